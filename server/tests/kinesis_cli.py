"""The operations by the command line of the service: kinesis_cli.py ENDPOINT ID SECRET START_MS.

`cam` holds bbb.mkv (8.02 s) from START_MS on. Each command is a process of its own, as in a shell.
"""

import base64
import json
import os
import re
import subprocess
import sys
import tempfile

import boto3
import kinesis_page

endpoint, key, secret, start_ms = sys.argv[1:]
start = int(start_ms) / 1000
folder = tempfile.TemporaryDirectory()
aws = os.path.join(os.path.dirname(sys.executable), "aws")
# Nothing of the machine's own settings. The endpoint is all that is changed, as users do.
environment = {"PATH": os.environ["PATH"], "HOME": folder.name, "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret,
               "AWS_DEFAULT_REGION": "eu-central-1", "AWS_ENDPOINT_URL": endpoint, "AWS_MAX_ATTEMPTS": "1",
               "AWS_EC2_METADATA_DISABLED": "true"}
operations = {}
for service in ("kinesisvideo", "kinesis-video-archived-media", "kinesis-video-media"):
    mapping = boto3.client(service, region_name="eu-central-1").meta.method_to_api_mapping
    operations.update({method.replace("_", "-"): (service, operation) for method, operation in mapping.items()})
ran = set()


def command(name, *arguments):
    service, operation = operations[name]
    ran.add(operation)
    return [sys.executable, "-B", aws, service, name, "--output", "json", *map(str, arguments)]


def run(name, *arguments):
    """What a command says, read; None if it says nothing."""
    done = subprocess.run(command(name, *arguments), env=environment, capture_output=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, (name, arguments, done.stderr.decode())
    return json.loads(done.stdout) if done.stdout.strip() else None


def refused(code, name, *arguments):
    done = subprocess.run(command(name, *arguments), env=environment, capture_output=True, stdin=subprocess.DEVNULL)
    said = done.stderr.decode()
    assert done.returncode in (254, 255) and f"An error occurred ({code}) when calling the {operations[name][1]}" in said, said


def of(name):
    return ["--stream-name", name]


def version(name):
    return ["--current-version", run("describe-stream", *of(name))["StreamInfo"]["Version"]]


# Streams.
arn = run("create-stream", *of("cli-1"), "--data-retention-in-hours", 24, "--media-type", "video/h264", "--device-name", "door",
          "--tags", "site=north")["StreamARN"]
refused("ResourceInUseException", "create-stream", *of("cli-1"))
info = run("describe-stream", "--stream-arn", arn)["StreamInfo"]
assert (info["StreamName"], info["DataRetentionInHours"], info["Status"]) == ("cli-1", 24, "ACTIVE"), info
assert info["CreationTime"] == int(arn.rsplit("/", 1)[1]) / 1000, "to the millisecond"
refused("ResourceNotFoundException", "describe-stream", *of("nowhere"))
for name in ("cli-2", "cli-3"):
    run("create-stream", *of(name), "--stream-storage-configuration", "DefaultStorageTier=WARM")
condition = ["--stream-name-condition", "ComparisonOperator=BEGINS_WITH,ComparisonValue=cli-"]
paged = run("list-streams", *condition, "--page-size", 1)["StreamInfoList"]
assert [stream["StreamName"] for stream in paged] == ["cli-1", "cli-2", "cli-3"], paged
first = run("list-streams", *condition, "--max-items", 2)
rest = run("list-streams", *condition, "--starting-token", first["NextToken"])["StreamInfoList"]
assert len(first["StreamInfoList"]) == 2 and [stream["StreamName"] for stream in rest] == ["cli-3"], (first, rest)
refused("VersionMismatchException", "update-stream", *of("cli-1"), "--current-version", "stale")
run("update-stream", *of("cli-1"), *version("cli-1"), "--device-name", "gate")
run("update-data-retention", *of("cli-1"), *version("cli-1"), "--operation", "DECREASE_DATA_RETENTION",
    "--data-retention-change-in-hours", 23)
info = run("describe-stream", *of("cli-1"))["StreamInfo"]
assert (info["DeviceName"], info["DataRetentionInHours"]) == ("gate", 1), info
run("update-stream-storage-configuration", *of("cli-1"), *version("cli-1"), "--stream-storage-configuration",
    "DefaultStorageTier=WARM")
tier = run("describe-stream-storage-configuration", *of("cli-1"))["StreamStorageConfiguration"]
assert tier == {"DefaultStorageTier": "WARM"}, tier
assert run("get-data-endpoint", *of("cli-1"), "--api-name", "PUT_MEDIA")["DataEndpoint"] == endpoint

# Tags.
run("tag-stream", *of("cli-1"), "--tags", "floor=2")
run("tag-resource", "--resource-arn", arn, "--tags", "Key=room,Value=2.1")
assert run("list-tags-for-stream", *of("cli-1"))["Tags"] == {"site": "north", "floor": "2", "room": "2.1"}
run("untag-stream", *of("cli-1"), "--tag-key-list", "floor")
run("untag-resource", "--resource-arn", arn, "--tag-key-list", "room")
assert run("list-tags-for-resource", "--resource-arn", arn)["Tags"] == {"site": "north"}

# Pictures and notifications.
shots = {"Status": "ENABLED", "DestinationConfig": {"Uri": "s3://shots/cli", "DestinationRegion": "us-east-1"},
         "SamplingInterval": 200, "ImageSelectorType": "PRODUCER_TIMESTAMP", "Format": "JPEG",
         "FormatConfig": {"JPEGQuality": "80"}, "WidthPixels": 320, "HeightPixels": 240}
noted = {"Status": "DISABLED", "DestinationConfig": {"Uri": "arn:aws:sns:eu-central-1:000000000000:door"}}
for kind, member, asked in (("image-generation", "ImageGenerationConfiguration", shots),
                            ("notification", "NotificationConfiguration", noted)):
    run(f"update-{kind}-configuration", "--cli-input-json", json.dumps({"StreamName": "cli-1", member: asked}))
    assert run(f"describe-{kind}-configuration", *of("cli-1")) == {member: asked}
    run(f"update-{kind}-configuration", *of("cli-1"))
    said = run(f"describe-{kind}-configuration", *of("cli-1"))
    assert not said, said
    elsewhere = {**asked, "DestinationConfig": {**asked["DestinationConfig"], "Uri": "s3://elsewhere"}}
    refused("InvalidArgumentException", f"update-{kind}-configuration", "--cli-input-json",
            json.dumps({"StreamName": "cli-1", member: elsewhere}))

# What is not here.
assert run("describe-mapped-resource-configuration", *of("cli-1"))["MappedResourceConfigurationList"] == []
assert run("list-signaling-channels")["ChannelInfoList"] == []
assert run("list-edge-agent-configurations", "--hub-device-arn", "arn:aws:iot:us-west-2:0:thing/t")["EdgeConfigs"] == []
refused("StreamEdgeConfigurationNotFoundException", "describe-edge-configuration", *of("cli-1"))
refused("AccountChannelLimitExceededException", "create-signaling-channel", "--channel-name", "none")
refused("ResourceNotFoundException", "describe-signaling-channel", "--channel-name", "none")
run("delete-stream", "--stream-arn", run("describe-stream", *of("cli-3"))["StreamInfo"]["StreamARN"])
refused("ResourceNotFoundException", "describe-stream", *of("cli-3"))

# Stored media.


def selector(first, last, kind="PRODUCER"):
    return json.dumps({"FragmentSelectorType": kind + "_TIMESTAMP",
                       "TimestampRange": {"StartTimestamp": first, "EndTimestamp": last}})


fragments = run("list-fragments", *of("cam"), "--fragment-selector", selector(start, start + 60), "--page-size", 2)["Fragments"]
fragments.sort(key=lambda fragment: fragment["FragmentNumber"])
assert len(fragments) > 3 and fragments[0]["ProducerTimestamp"] == start, fragments
times = {fragment["ProducerTimestamp"] for fragment in fragments} | {fragment["ServerTimestamp"] for fragment in fragments}
assert any(time % 1 for time in times), "to the millisecond"
# This client sends whole seconds only.
one = fragments[1]["ProducerTimestamp"]
assert one == start + 2, fragments
found = run("list-fragments", *of("cam"), "--fragment-selector", selector(one, one))["Fragments"]
assert found == [fragments[1]], found
path = os.path.join(folder.name, "out")


def saved(name, *arguments):
    said = run(name, path, *arguments)
    with open(path, "rb") as file:
        return said["ContentType"], file.read()


numbers = [fragment["FragmentNumber"] for fragment in fragments]
kind, media = saved("get-media-for-fragment-list", *of("cam"), "--fragments", *numbers)
assert kind == "video/webm" and all(number.encode() in media for number in numbers)
assert media.count(b"\x1a\x45\xdf\xa3") == len(numbers), "documents"
kind, clip = saved("get-clip", *of("cam"), "--clip-fragment-selector", selector(start, start + 60))
assert kind == "video/mp4" and clip[4:8] == b"ftyp" and len(clip) > len(media) // 2, (kind, len(clip))
refused("InvalidArgumentException", "get-clip", *of("cam"), "--clip-fragment-selector", selector(start, start), path)
asked = ["--image-selector-type", "PRODUCER_TIMESTAMP", "--start-timestamp", int(start), "--end-timestamp", int(start) + 3, "--format",
         "JPEG", "--sampling-interval", 500]
images = run("get-images", *of("cam"), *asked, "--page-size", 3)["Images"]
assert [image["TimeStamp"] for image in images] == [start + index / 2 for index in range(7)], images
assert all(base64.b64decode(image["ImageContent"])[:2] == b"\xff\xd8" for image in images)
demand = ["--playback-mode", "ON_DEMAND"]
url = run("get-hls-streaming-session-url", *of("cam"), *demand, "--hls-fragment-selector", selector(start, start + 60))
assert re.match(re.escape(endpoint) + "/hls/v1/", url["HLSStreamingSessionURL"]), url
url = run("get-dash-streaming-session-url", *of("cam"), *demand, "--dash-fragment-selector", selector(start, start + 60))
assert re.match(re.escape(endpoint) + "/dash/v1/", url["DASHStreamingSessionURL"]), url

# GetMedia has no end: it is read until most of what is stored came, and ends with its stream.
getting = subprocess.Popen(command("get-media", *of("cam"), "--start-selector", "StartSelectorType=EARLIEST", "/dev/stdout"),
                           env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
got = b""
while got.count(b"AWS_KINESISVIDEO_CONTINUATION_TOKEN") < len(numbers) - 1:
    more = getting.stdout.read1(1 << 16)
    assert more, "the answer ended"
    got += more
run("delete-stream", "--stream-arn", run("describe-stream", *of("cam"))["StreamInfo"]["StreamARN"])
got += getting.stdout.read()
assert getting.wait() == 0
assert got.count(b"AWS_KINESISVIDEO_CONTINUATION_TOKEN") == len(numbers) and all(number.encode() in got for number in numbers)
assert b'"ContentType": "video/webm"' in got

kinesis_page.check("awscli", ran)
