"""Walks the models of the services: kinesis_model.py ENDPOINT ID SECRET OTHER_ID OTHER_SECRET START_MS CLIP.

`cam` holds CLIP (H.264, AAC) from START_MS on; the other key may do nothing to it. Requests are checked by
botocore's validator on their way out, answers are compared with the model as they came and as they were read.

A member of a request counts as here if a request with it succeeds, and the same with something of another type in its place is
refused: a member that nobody reads would not be missed. A value counts if it is taken, and one beside the model's is refused. A
member of an answer, or a value, counts once it was seen; an error once it came by its class, with the model's status. All else
has to stand in docs/api/kinesis.md, and what stands there has to be missing.
"""

import json
import sys
import time
from datetime import datetime, timezone

import boto3
import kinesis_page
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from botocore.httpsession import URLLib3Session
from botocore.serialize import create_serializer
from botocore.validate import ParamValidator

endpoint, key, secret, other_key, other_secret, start_ms, clip = sys.argv[1:]
start = int(start_ms) / 1000
SERVICES = ("kinesis-video-archived-media", "kinesis-video-media", "kinesisvideo", "kinesis-video-signaling",
            "kinesis-video-webrtc-storage")
REGION = "eu-central-1"
WRONG = {"string": {"no": 1}, "timestamp": "soon", "integer": "many", "long": "many", "boolean": "maybe", "blob": {"no": 1},
         "structure": "text", "list": "text", "map": "text"}
CHANNEL = "arn:aws:kinesisvideo:eu-central-1:000000000000:channel/none/1"
TOPIC = "arn:aws:sns:eu-central-1:000000000000:door"
http = URLLib3Session()


def client(service, key=key, secret=secret):
    config = Config(retries={"total_max_attempts": 1}, read_timeout=60)
    return boto3.client(service, region_name=REGION, endpoint_url=endpoint, aws_access_key_id=key,
                        aws_secret_access_key=secret, config=config)


clients = {service: client(service) for service in SERVICES}
others = {service: client(service, other_key, other_secret) for service in SERVICES}
models = {service: clients[service].meta.service_model for service in SERVICES}
services = {operation: service for service in SERVICES for operation in models[service].operation_names}
kvs = clients["kinesisvideo"]
archived = clients["kinesis-video-archived-media"]


def at(seconds):
    return datetime.fromtimestamp(seconds, timezone.utc)


def paths(shape, prefix=""):
    """Members and values of a shape, as paths: `A.B` and `A.B=VALUE`. Lists and maps are what they hold."""
    if shape is None:
        return
    if shape.type_name == "structure":
        for name, member in shape.members.items():
            path = f"{prefix}.{name}" if prefix else name
            yield path
            yield from paths(member, path)
    elif shape.type_name == "list":
        yield from paths(shape.member, prefix)
    elif shape.type_name == "map":
        yield from paths(shape.key, prefix)
        yield from paths(shape.value, prefix)
    for value in getattr(shape, "enum", None) or ():
        yield f"{prefix}={value}"


def places(shape, value, prefix="", where=()):
    """What of a value is where: (path, shape, keys that lead there). What the model does not know is an error."""
    if shape.type_name == "structure":
        for name, member in value.items():
            assert name in shape.members, f"{prefix}.{name} is not in the model"
            path = f"{prefix}.{name}" if prefix else name
            if member is not None:
                yield path, shape.members[name], (*where, name)
                yield from places(shape.members[name], member, path, (*where, name))
    elif shape.type_name == "list":
        for index, member in enumerate(value):
            yield prefix, shape.member, (*where, index)
            yield from places(shape.member, member, prefix, (*where, index))
    elif shape.type_name == "map":
        for name, member in value.items():
            # A value of the model that is a key is said where its own value stands.
            yield from places(shape.key, name, prefix, (*where, name))
            yield prefix, shape.value, (*where, name)
            yield from places(shape.value, member, prefix, (*where, name))
    elif getattr(shape, "enum", None):
        assert value in shape.enum, f"{prefix}: {value} is not in the model"
        yield f"{prefix}={value}", shape, where


taken, probed, given, refusals, ran = set(), set(), set(), set(), set()
raw = {}


def keep_raw(operation_model, response_dict, **_):
    if not operation_model.has_streaming_output:
        raw[operation_model.name] = response_dict["body"]


for one in clients.values():
    one.meta.events.register("before-parse.*.*", keep_raw)


def method(operation, of=clients):
    one = of[services[operation]]
    return getattr(one, next(name for name, known in one.meta.method_to_api_mapping.items() if known == operation))


def model(operation):
    return models[services[operation]].operation_model(operation)


def succeed(operation, arguments):
    """A call whose answer is compared with the model."""
    answer = method(operation)(**arguments)
    shape = model(operation).output_shape
    ran.add(operation)
    for path, *_ in places(model(operation).input_shape, arguments):
        taken.add((operation, path))
    if model(operation).has_streaming_output:
        assert answer["ContentType"] and answer["Payload"].read(4), (operation, answer)
        given.update({(operation, "ContentType"), (operation, "Payload")})
        answer["Payload"].close()
        return answer
    body = json.loads(raw.pop(operation))
    if shape is None or not shape.members:
        assert body == {}, (operation, body)
        return answer
    for path, *_ in places(shape, body):
        given.add((operation, path))
    read = {name: value for name, value in answer.items() if name != "ResponseMetadata"}
    report = ParamValidator().validate(read, shape)
    assert not report.has_errors(), (operation, report.generate_report())
    return answer


def refused(operation, code, arguments, of=clients):
    """A call that ends with an error of the model, by its class."""
    expected = getattr(method(operation, of).__self__.exceptions, code)
    try:
        method(operation, of)(**arguments)
    except expected as error:
        found = error.response
        shape = next(shape for shape in model(operation).error_shapes if shape.name == code)
        # As the service does, whatever its model says of this one.
        status = 403 if code == "AccessDeniedException" else shape.metadata["error"]["httpStatusCode"]
        assert found["ResponseMetadata"]["HTTPStatusCode"] == status, (operation, found)
        assert found["ResponseMetadata"]["RequestId"] and found["Error"]["Message"], (operation, found)
        refusals.add((operation, code))
        return
    raise AssertionError(f"{operation} {arguments} was not refused")


def send(operation, body):
    """The error of a signed request, whatever its body: none if it succeeds."""
    path = model(operation).http["requestUri"]
    request = AWSRequest("POST", endpoint + path, data=json.dumps(body), headers={"Content-Type": "application/json"})
    SigV4Auth(Credentials(key, secret), "kinesisvideo", REGION).add_auth(request)
    request.stream_output = True
    answer = http.send(request.prepare())
    kind = answer.headers.get("x-amzn-errortype")
    if answer.status_code != 200:
        assert json.loads(answer.content)["__type"] == kind, (operation, answer.status_code, kind)
    answer.raw.close()
    return None if answer.status_code == 200 else kind


def probe(operation, make):
    """Changes a request that succeeds in every place: to another type, and to a value that the model does not have."""
    shape = model(operation).input_shape
    found = {(path.partition("=")[0], member.name, "=" in path): where for path, member, where in places(shape, make())}
    types = {(path.partition("=")[0], member.name): member.type_name for path, member, _ in places(shape, make())}
    for (path, name, is_value), where in found.items():
        serialized = create_serializer("rest-json").serialize_to_request(make(), model(operation))
        body = json.loads(serialized["body"])
        holder = body
        for step in where[:-1]:
            holder = holder[step]
        holder[where[-1]] = "NEITHER" if is_value else WRONG[types[path, name]]
        if send(operation, body) == "InvalidArgumentException":
            probed.add((operation, path, is_value))


def without_private_data(data):
    """The private data of the codecs become elements of another id: Void, whose size takes a byte more."""
    place, found = 0, 0
    while 0 <= (place := data.find(b"\x63\xa2", place + 1)) < 4096:
        data = data[:place] + b"\xec\x40" + bytes([data[place + 2] & 0x7F]) + data[place + 3:]
        found += 1
    assert found == 2, found
    return data


def of_unknown_codecs(data):
    assert b"V_MPEG4/ISO/AVC" in data and b"A_AAC" in data
    return data.replace(b"V_MPEG4/ISO/AVC", b"V_OTHER/ISO/AVC").replace(b"A_AAC", b"A_OWN")


def put(stream, data):
    """PutMedia, signed by botocore."""
    headers = {"x-amzn-stream-name": stream, "x-amzn-fragment-timecode-type": "RELATIVE",
               "x-amzn-producer-start-timestamp": f"{start:.3f}", "x-amz-content-sha256": "UNSIGNED-PAYLOAD"}
    url = kvs.get_data_endpoint(StreamName=stream, APIName="PUT_MEDIA")["DataEndpoint"] + "/putMedia"
    request = AWSRequest("POST", url, data=data, headers=headers)
    SigV4Auth(Credentials(key, secret), "kinesisvideo", REGION).add_auth(request)
    answer = http.send(request.prepare())
    assert answer.status_code == 200 and b"PERSISTED" in answer.content and b"ERROR" not in answer.content, answer.content


def selector(kind, first, last):
    return {"FragmentSelectorType": kind + "_TIMESTAMP",
            "TimestampRange": {"StartTimestamp": at(first), "EndTimestamp": at(last)}}


count = 0


def fresh():
    global count
    count += 1
    return f"walk-{count}"


def made(**more):
    return kvs.create_stream(StreamName=fresh(), DataRetentionInHours=1, **more)["StreamARN"]


def version(stream="mine"):
    return kvs.describe_stream(StreamName=stream)["StreamInfo"]["Version"]


cam = {"StreamName": "cam"}
arn = {"StreamARN": kvs.describe_stream(**cam)["StreamInfo"]["StreamARN"]}
# Live first: it wants a fragment of the last 30 s.
succeed("GetHLSStreamingSessionURL", {**cam, "PlaybackMode": "LIVE"})
succeed("GetDASHStreamingSessionURL", {**cam, "PlaybackMode": "LIVE"})
now = time.time()
whole, served = selector("PRODUCER", start, start + 60), selector("SERVER", now - 3000, now)
mine = {"StreamARN": kvs.create_stream(StreamName="mine", DataRetentionInHours=24)["StreamARN"]}
for stream, hours in (("watch", 0), ("bare", 24), ("unknown", 24), ("tagged", 24)):
    kvs.create_stream(StreamName=stream, DataRetentionInHours=hours)
media = open(clip, "rb").read()
put("bare", without_private_data(media))
put("unknown", of_unknown_codecs(media))
listed = archived.list_fragments(**cam, MaxResults=1, FragmentSelector=whole)
number = listed["Fragments"][0]["FragmentNumber"]
images = {"ImageSelectorType": "PRODUCER_TIMESTAMP", "StartTimestamp": at(start), "EndTimestamp": at(start + 20), "Format": "JPEG"}
page = {**images, "SamplingInterval": 500, "MaxResults": 1}
token = archived.get_images(**cam, **page)["NextToken"]
replay = {"PlaybackMode": "LIVE_REPLAY"}

# Requests that succeed, with every member and value.
GOOD = {
    "GetClip": [lambda: {**cam, "ClipFragmentSelector": whole}, lambda: {**arn, "ClipFragmentSelector": served}],
    "GetHLSStreamingSessionURL": [
        lambda: {**cam, "PlaybackMode": "ON_DEMAND", "HLSFragmentSelector": whole, "ContainerFormat": "FRAGMENTED_MP4",
                 "DiscontinuityMode": "ALWAYS", "DisplayFragmentTimestamp": "ALWAYS", "Expires": 300,
                 "MaxMediaPlaylistFragmentResults": 10},
        lambda: {**arn, **replay, "HLSFragmentSelector": served, "ContainerFormat": "MPEG_TS", "DiscontinuityMode": "NEVER",
                 "DisplayFragmentTimestamp": "NEVER"},
        lambda: {**arn, **replay, "HLSFragmentSelector": whole, "DiscontinuityMode": "ON_DISCONTINUITY"}],
    "GetDASHStreamingSessionURL": [
        lambda: {**cam, "PlaybackMode": "ON_DEMAND", "DASHFragmentSelector": whole, "DisplayFragmentTimestamp": "ALWAYS",
                 "DisplayFragmentNumber": "ALWAYS", "Expires": 300, "MaxManifestFragmentResults": 10},
        lambda: {**arn, **replay, "DASHFragmentSelector": served, "DisplayFragmentTimestamp": "NEVER",
                 "DisplayFragmentNumber": "NEVER"}],
    "GetImages": [
        lambda: {**cam, **images, "SamplingInterval": 1000, "WidthPixels": 160, "HeightPixels": 90, "MaxResults": 20,
                 "FormatConfig": {"JPEGQuality": "50"}},
        lambda: {**cam, **page, "NextToken": token},
        lambda: {**arn, **images, "ImageSelectorType": "SERVER_TIMESTAMP", "StartTimestamp": at(now - 60), "EndTimestamp": at(now),
                 "Format": "PNG"},
        lambda: {"StreamName": "bare", **images, "StartTimestamp": at(start + 3), "MaxResults": 1}],
    "GetMediaForFragmentList": [lambda: {**cam, "Fragments": [number]}, lambda: {**arn, "Fragments": [number]}],
    "ListFragments": [
        lambda: {**cam, "FragmentSelector": whole, "MaxResults": 1},
        lambda: {**arn, "FragmentSelector": served},
        lambda: {**cam, "NextToken": listed["NextToken"]}],
    "GetMedia": [lambda selector=selector, to=to: {**to, "StartSelector": selector} for to, selector in (
        (cam, {"StartSelectorType": "NOW"}),
        (arn, {"StartSelectorType": "EARLIEST"}),
        (cam, {"StartSelectorType": "FRAGMENT_NUMBER", "AfterFragmentNumber": number}),
        (cam, {"StartSelectorType": "CONTINUATION_TOKEN", "ContinuationToken": number}),
        (cam, {"StartSelectorType": "PRODUCER_TIMESTAMP", "StartTimestamp": at(start)}),
        (cam, {"StartSelectorType": "SERVER_TIMESTAMP", "StartTimestamp": at(now - 60)}))],
    "CreateStream": [
        lambda: {"StreamName": fresh(), "DeviceName": "door", "MediaType": "video/h264", "KmsKeyId": "alias/none",
                 "DataRetentionInHours": 1, "Tags": {"site": "north"},
                 "StreamStorageConfiguration": {"DefaultStorageTier": "HOT"}},
        lambda: {"StreamName": fresh(), "StreamStorageConfiguration": {"DefaultStorageTier": "WARM"}}],
    "DescribeStream": [lambda: {"StreamName": "walk-1"}, lambda: arn],
    "GetDataEndpoint": [lambda to=to, api=api: {**to, "APIName": api} for to, api in zip(
        [cam, arn] * 4, model("GetDataEndpoint").input_shape.members["APIName"].enum)],
    "ListStreams": [
        lambda: {"MaxResults": 1, "StreamNameCondition": {"ComparisonOperator": "BEGINS_WITH", "ComparisonValue": "walk-"}},
        lambda: {"NextToken": kvs.list_streams(MaxResults=1)["NextToken"]}],
    "UpdateStream": [
        lambda: {"StreamName": "mine", "CurrentVersion": version(), "DeviceName": "gate", "MediaType": "video/h265"},
        lambda: {**mine, "CurrentVersion": version()}],
    "UpdateDataRetention": [
        lambda: {"StreamName": "mine", "CurrentVersion": version(), "Operation": "INCREASE_DATA_RETENTION",
                 "DataRetentionChangeInHours": 2},
        lambda: {**mine, "CurrentVersion": version(), "Operation": "DECREASE_DATA_RETENTION", "DataRetentionChangeInHours": 1}],
    "DeleteStream": [
        lambda: {"StreamARN": made()},
        lambda: {"StreamARN": made(), "CurrentVersion": version(f"walk-{count}")}],
    "TagStream": [lambda: {"StreamName": "mine", "Tags": {"a": "1"}}, lambda: {**mine, "Tags": {"b": "2"}}],
    "ListTagsForStream": [lambda: {"StreamName": "mine"}, lambda: mine],
    "UntagStream": [lambda: {"StreamName": "mine", "TagKeyList": ["a"]}, lambda: {**mine, "TagKeyList": ["b"]}],
    "TagResource": [lambda: {"ResourceARN": mine["StreamARN"], "Tags": [{"Key": "c", "Value": "3"}]}],
    "ListTagsForResource": [lambda: {"ResourceARN": mine["StreamARN"]}],
    "UntagResource": [lambda: {"ResourceARN": mine["StreamARN"], "TagKeyList": ["c"]}],
    "UpdateStreamStorageConfiguration": [
        lambda to=to, tier=tier: {**to, "CurrentVersion": version(), "StreamStorageConfiguration": {"DefaultStorageTier": tier}}
        for to, tier in (({"StreamName": "mine"}, "WARM"), (mine, "HOT"))],
    "DescribeStreamStorageConfiguration": [
        lambda: {"StreamName": "mine"}, lambda: {"StreamARN": made(StreamStorageConfiguration={"DefaultStorageTier": "WARM"})}],
}
shots = {"Status": "ENABLED", "ImageSelectorType": "PRODUCER_TIMESTAMP", "SamplingInterval": 200, "Format": "JPEG",
         "DestinationConfig": {"Uri": "s3://shots/door", "DestinationRegion": "eu-central-1"}}
sized = {**shots, "FormatConfig": {"JPEGQuality": "80"}, "WidthPixels": 320, "HeightPixels": 240}
stopped = {**shots, "Status": "DISABLED", "ImageSelectorType": "SERVER_TIMESTAMP", "Format": "PNG"}
noted = {"Status": "ENABLED", "DestinationConfig": {"Uri": TOPIC}}
for name, first, second in (("ImageGenerationConfiguration", sized, stopped),
                            ("NotificationConfiguration", noted, {**noted, "Status": "DISABLED"})):
    GOOD["Update" + name] = [lambda name=name, first=first: {"StreamName": "tagged", name: first},
                             lambda name=name, second=second: {**mine, name: second}]
    GOOD["Describe" + name] = [lambda: {"StreamName": "tagged"}, lambda: mine]
GOOD["DescribeMappedResourceConfiguration"] = [lambda: cam, lambda: arn]

gaps = set()
listed_gaps = kinesis_page.not_here()
whole_operations = {operation for operation, item in listed_gaps if item == "*"}
assert not whole_operations & GOOD.keys(), whole_operations & GOOD.keys()
assert whole_operations | GOOD.keys() == services.keys(), services.keys() ^ (whole_operations | GOOD.keys())

for operation, requests in GOOD.items():
    for make in requests:
        succeed(operation, make())
        probe(operation, make)
kvs.tag_stream(StreamName="mine", Tags={"left": "1"})
succeed("ListTagsForStream", {"StreamName": "mine"})
succeed("ListTagsForResource", {"ResourceARN": mine["StreamARN"]})
many = {f"t{index}": "" for index in range(51)}

# Errors, those of every operation first.
absent = mine["StreamARN"].replace("/mine/", "/nowhere/")
for operation, requests in GOOD.items():
    shape, known = model(operation).input_shape, {shape.name for shape in model(operation).error_shapes}
    good = requests[0]()
    for name, gone, bad in (("StreamName", "nowhere", "not a name"), ("StreamARN", absent, "arn:none"),
                            ("ResourceARN", absent, "arn:none")):
        if name in good and operation != "CreateStream":
            refused(operation, "ResourceNotFoundException", {**good, name: gone})
            refused(operation, "InvalidArgumentException", {**good, name: bad})
    if "AccessDeniedException" in known:
        refused(operation, "AccessDeniedException", good, others)
    if "CurrentVersion" in shape.members:
        refused(operation, "VersionMismatchException", {**requests[-1](), "CurrentVersion": "stale"})
refused("CreateStream", "InvalidArgumentException", {"StreamName": "not a name"})
refused("CreateStream", "ResourceInUseException", {"StreamName": "mine"})
refused("ListStreams", "InvalidArgumentException", {"MaxResults": 10001})
refused("CreateStream", "TagsPerResourceExceededLimitException", {"StreamName": fresh(), "Tags": many})
kvs.tag_stream(StreamName="mine", Tags=dict(list(many.items())[:49]))
refused("TagStream", "TagsPerResourceExceededLimitException", {"StreamName": "mine", "Tags": {"more": ""}})
refused("TagResource", "TagsPerResourceExceededLimitException",
        {"ResourceARN": mine["StreamARN"], "Tags": [{"Key": "more", "Value": ""}]})
for operation, asked in (("GetClip", {"ClipFragmentSelector": whole}),
                         ("GetHLSStreamingSessionURL", {"PlaybackMode": "ON_DEMAND", "HLSFragmentSelector": whole}),
                         ("GetDASHStreamingSessionURL", {"PlaybackMode": "ON_DEMAND", "DASHFragmentSelector": whole})):
    refused(operation, "NoDataRetentionException", {"StreamName": "watch", **asked})
    refused(operation, "UnsupportedStreamMediaTypeException", {"StreamName": "unknown", **asked})
    refused(operation, "MissingCodecPrivateDataException", {"StreamName": "bare", **asked})
refused("GetImages", "NoDataRetentionException", {"StreamName": "watch", **images})
for name, asked in (("ImageGenerationConfiguration", shots), ("NotificationConfiguration", noted)):
    refused("Update" + name, "NoDataRetentionException", {"StreamName": "watch", name: asked})
    # Null takes it away, also where nothing is kept.
    for stream in ("watch", "tagged"):
        method("Update" + name)(StreamName=stream)
    assert name not in method("Describe" + name)(StreamName="tagged")
    elsewhere = {**asked, "DestinationConfig": {**asked["DestinationConfig"], "Uri": "s3://elsewhere"}}
    refused("Update" + name, "InvalidArgumentException", {"StreamName": "tagged", name: elsewhere})

# What is not here as a whole is refused, or lists nothing, in the words of the model.


def sample(shape, name=""):
    known = {"StreamName": "cam", "ChannelARN": CHANNEL, "channelArn": CHANNEL}
    if name in known:
        return known[name]
    if shape.type_name == "structure":
        return {name: sample(member, name) for name, member in shape.members.items() if name != "StreamARN"}
    if shape.type_name == "list":
        return [sample(shape.member)]
    if shape.type_name == "map":
        return {sample(shape.key): sample(shape.value)}
    if shape.type_name in ("integer", "long"):
        return max(1, shape.metadata.get("min", 1))
    return {"timestamp": at(now), "boolean": True}.get(shape.type_name) or (getattr(shape, "enum", None) or ["a" * 20])[0]


for operation in sorted(whole_operations):
    one, arguments = clients[services[operation]], sample(model(operation).input_shape)
    try:
        answer = method(operation)(**arguments)
        answer.pop("ResponseMetadata")
        assert not any(answer.values()) and not ParamValidator().validate(answer, model(operation).output_shape).has_errors()
    except ClientError as error:
        found, status = error.response["Error"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        if services[operation] in ("kinesis-video-signaling", "kinesis-video-webrtc-storage"):
            assert status == 404, (operation, error.response)
        else:
            assert isinstance(error, getattr(one.exceptions, found["Code"])), (operation, found)
            shape = next(shape for shape in model(operation).error_shapes if shape.name == found["Code"])
            assert status == shape.metadata["error"]["httpStatusCode"] and found["Message"], (operation, error.response)
    ran.add(operation)

# What is missing, and what is said to be.
for operation in GOOD:
    for path in paths(model(operation).input_shape):
        name, _, value = path.partition("=")
        if (operation, path) not in taken or (operation, name, bool(value)) not in probed:
            gaps.add((operation, path))
    gaps.update((operation, path) for path in paths(model(operation).output_shape) if (operation, path) not in given)
    gaps.update((operation, shape.name) for shape in model(operation).error_shapes if (operation, shape.name) not in refusals)


def covers(entry, gap):
    (operation, item), (of, path) = entry, gap
    below = path == item or path.startswith((item + ".", item + "="))
    return below and operation in ("every", of)


unsaid = sorted(gap for gap in gaps if not any(covers(entry, gap) for entry in listed_gaps))
stale = [entry for entry in listed_gaps if entry[1] != "*" and not any(covers(entry, gap) for gap in gaps)]
assert not unsaid, "\n".join(["neither here nor in docs/api/kinesis.md:", *map(str, unsaid)])
assert not stale, "\n".join(["in docs/api/kinesis.md as not here, and here:", *map(str, stale)])
kinesis_page.check("boto3", ran)
print(f"{len(taken)} members and values taken, {len(given)} given, {len(refusals)} errors; {len(gaps)} said not to be here")
