"""Archived media as boto3 asks for it: sessions.py ENDPOINT ID SECRET READER_ID READER_SECRET START_MS FOLDER.

The streams are the test's: `cam` holds bbb.mkv from START_MS on (8.02 s, fragments of 2 s), `gap` the same twice, an hour
apart, `sound` AAC alone, `law` G.711 alone, `gone` bbb.mkv. Writes clips to FOLDER; prints the session URLs, which the test plays.
"""

import base64
import json
import re
import struct
import sys
import time
import urllib.error
import urllib.request
import xml.etree.ElementTree as ElementTree
from datetime import datetime, timezone

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

endpoint, key, secret, reader, reader_secret, start_ms, folder = sys.argv[1:]
start = int(start_ms) / 1000
config = Config(retries={"total_max_attempts": 1}, parameter_validation=False)


def client(key, secret, service="kinesis-video-archived-media"):
    return boto3.client(service, region_name="eu-central-1", endpoint_url=endpoint, aws_access_key_id=key,
                                 aws_secret_access_key=secret, config=config)


def at(seconds):
    return datetime.fromtimestamp(seconds, timezone.utc)


def refused(expected, status, call, **arguments):
    try:
        call(**arguments)
    except expected as error:
        found = error.response
        assert found["ResponseMetadata"]["HTTPStatusCode"] == status, found
        assert found["ResponseMetadata"]["RequestId"] and found["Error"]["Message"], found
        return
    raise AssertionError(f"{call.__name__} {arguments} was not refused")


def fetch(url, status=200):
    try:
        answer = urllib.request.urlopen(url)
        found, body, headers = answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        found, body, headers = error.code, error.read(), error.headers
    assert found == status, (found, url, body[:300])
    assert headers["Access-Control-Allow-Origin"] == "*", dict(headers)
    return body


media = client(key, secret)
errors = media.exceptions
began = time.time()


def selector(kind, first, last):
    return {"FragmentSelectorType": kind + "_TIMESTAMP",
            "TimestampRange": {"StartTimestamp": at(first), "EndTimestamp": at(last)}}


whole = selector("PRODUCER", start, start + 60)
served = selector("SERVER", began - 3000, began)

def hls(stream="cam", who=media, **arguments):
    return who.get_hls_streaming_session_url(StreamName=stream, **arguments)["HLSStreamingSessionURL"]


def relative(url, uri):
    assert "/" not in uri, uri
    return url.rsplit("/", 1)[0] + "/" + uri


def media_playlist(url, track=0):
    master = fetch(url).decode()
    uris = re.findall(r'URI="([^"]+)"', master) + [line for line in master.splitlines() if line[:1] not in ("#", "")]
    assert all(uri.startswith("getHLSMediaPlaylist.m3u8?SessionToken=") for uri in uris), master
    url = relative(url, sorted(uris, key=lambda uri: uri.rsplit("=", 1)[1])[track])
    return url, fetch(url).decode()


def segments(text):
    return [line for line in text.splitlines() if line.startswith("getMP4MediaFragment.mp4?")]


def dash(stream="cam", **arguments):
    return media.get_dash_streaming_session_url(StreamName=stream, **arguments)["DASHStreamingSessionURL"]


# Live sessions first: they want a fragment of the last 30 s.
urls = {"live": hls(), "dash-live": dash()}

# GetClip, by both clocks; and its errors.
for name, chosen in (("producer.mp4", whole), ("server.mp4", served),
                     ("part.mp4", selector("PRODUCER", start + 0.001, start + 4))):
    answer = media.get_clip(StreamName="cam", ClipFragmentSelector=chosen)
    assert answer["ContentType"] == "video/mp4", answer
    body = answer["Payload"].read()
    assert body[4:8] == b"ftyp" and len(body) == int(answer["ResponseMetadata"]["HTTPHeaders"]["content-length"])
    open(f"{folder}/{name}", "wb").write(body)
for error, status, chosen in (
        (errors.ResourceNotFoundException, 404, selector("PRODUCER", start - 60, start - 1)),
        (errors.InvalidArgumentException, 400, selector("PRODUCER", start, start)),
        (errors.InvalidArgumentException, 400, selector("PRODUCER", start, start + 86401)),
        (errors.InvalidArgumentException, 400, selector("SERVER", began, began + 3600)),
        (errors.InvalidArgumentException, 400, selector("WALL", start, start + 1)),
        (errors.InvalidArgumentException, 400, {"FragmentSelectorType": "PRODUCER_TIMESTAMP"})):
    refused(error, status, media.get_clip, StreamName="cam", ClipFragmentSelector=chosen)
refused(errors.InvalidArgumentException, 400, media.get_clip, StreamName="cam")
refused(errors.ResourceNotFoundException, 404, media.get_clip, StreamName="nowhere", ClipFragmentSelector=whole)

# GetImages: the picture at any instant; what is beside it is what the native API gives.
ask = dict(StreamName="cam", ImageSelectorType="PRODUCER_TIMESTAMP", Format="PNG")
images = media.get_images(StartTimestamp=at(start + 0.5), EndTimestamp=at(start + 9.5), SamplingInterval=1000, **ask)
assert "NextToken" not in images, images["NextToken"]
found = [(round(image["TimeStamp"].timestamp() - start, 3), image.get("Error")) for image in images["Images"]]
assert found == [(0.5 + i, None if i < 8 else "NO_MEDIA") for i in range(10)], found
content = images["Images"][1]["ImageContent"]
png = base64.b64decode(content)
assert png[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", png[16:24]) == (320, 180)
open(f"{folder}/at-1500.png", "wb").write(png)
pages, token = [], {}
while True:
    page = media.get_images(StartTimestamp=at(start), EndTimestamp=at(start + 4), SamplingInterval=500, MaxResults=4,
                            **ask, **token)
    pages.append([round(image["TimeStamp"].timestamp() - start, 3) for image in page["Images"]])
    if not page.get("NextToken"):
        break
    token = {"NextToken": page["NextToken"]}
assert pages == [[0, 0.5, 1, 1.5], [2, 2.5, 3, 3.5], [4]], pages


def jpeg_size(**more):
    page = media.get_images(StreamName="cam", ImageSelectorType="PRODUCER_TIMESTAMP", Format="JPEG",
                            StartTimestamp=at(start + 1), EndTimestamp=at(start + 1), **more)
    body = base64.b64decode(page["Images"][0]["ImageContent"])
    place = body.index(b"\xff\xc0")
    height, width = struct.unpack(">HH", body[place + 5:place + 9])
    return width, height, len(body)


assert jpeg_size()[:2] == (320, 180)
assert jpeg_size(WidthPixels=100, HeightPixels=100)[:2] == (100, 100), "stretched"
assert jpeg_size(HeightPixels=90)[:2] == (160, 90) and jpeg_size(WidthPixels=160)[:2] == (160, 90)
low, high = (jpeg_size(FormatConfig={"JPEGQuality": quality})[2] for quality in ("5", "100"))
assert low * 2 < high, (low, high)
server = media.get_images(StreamName="cam", ImageSelectorType="SERVER_TIMESTAMP", Format="JPEG", SamplingInterval=1000,
                          StartTimestamp=at(began - 120), EndTimestamp=at(began))
assert {image.get("Error") for image in server["Images"]} <= {None, "NO_MEDIA"}
silent = media.get_images(StreamName="sound", ImageSelectorType="PRODUCER_TIMESTAMP", Format="JPEG",
                          StartTimestamp=at(start + 1), EndTimestamp=at(start + 1))
assert silent["Images"][0]["Error"] == "NO_MEDIA", silent
for bad in (dict(EndTimestamp=at(start + 301)), dict(SamplingInterval=199), dict(MaxResults=101), dict(Format="GIF"),
            dict(WidthPixels=3841), dict(NextToken="x"), dict(FormatConfig={"JPEGQuality": "101"})):
    arguments = {**ask, "StartTimestamp": at(start), "EndTimestamp": at(start + 1), **bad}
    refused(errors.InvalidArgumentException, 400, media.get_images, **arguments)

# HLS.
demand = dict(PlaybackMode="ON_DEMAND", HLSFragmentSelector=whole)
urls["demand"] = hls(**demand)
assert re.fullmatch(re.escape(endpoint) + r"/hls/v1/getHLSMasterPlaylist\.m3u8\?SessionToken=[A-Za-z0-9_~-]+", urls["demand"])
url, text = media_playlist(urls["demand"])
assert "#EXT-X-PLAYLIST-TYPE:VOD" in text and "#EXT-X-ENDLIST" in text and "#EXT-X-INDEPENDENT-SEGMENTS" in text
assert "#EXT-X-DISCONTINUITY" not in text and "PROGRAM-DATE-TIME" not in text, text
assert len(segments(text)) == 4 or len(segments(text)) == 5, text
assert re.match(r"getMP4MediaFragment\.mp4\?FragmentNumber=\d{47,48}&SessionToken=[^&]+&TrackNumber=1$", segments(text)[0])
init = re.search(r'#EXT-X-MAP:URI="(getMP4InitFragment\.mp4\?SessionToken=[^&]+&TrackNumber=1&SequenceNumber=0)"', text)[1]
assert fetch(relative(url, init))[4:8] == b"ftyp"
segment = fetch(relative(url, segments(text)[0]))
assert b"moof" in segment[:64] and b"mdat" in segment
_, sound = media_playlist(urls["demand"], 1)
assert len(segments(sound)) == len(segments(text)) and all("TrackNumber=2" in uri for uri in segments(sound))

urls["server"] = hls(PlaybackMode="ON_DEMAND", HLSFragmentSelector=served, DisplayFragmentTimestamp="ALWAYS")
_, text = media_playlist(urls["server"])
count = len(segments(text))
assert text.count("#EXT-X-DISCONTINUITY\n") == count - 1 and text.count("#EXT-X-PROGRAM-DATE-TIME:2026-") == count, text
urls["ts"] = hls(ContainerFormat="MPEG_TS", **demand)
ts_url, text = media_playlist(urls["ts"])
assert "AUDIO=" not in fetch(urls["ts"]).decode() and "mp4a.40.2" in fetch(urls["ts"]).decode()
lines = [line for line in text.splitlines() if line[:1] not in ("#", "")]
assert len(lines) == count and "EXT-X-MAP" not in text, text
assert re.match(r"getTSFragment\.ts\?FragmentNumber=\d{47,48}&SessionToken=[^&]+$", lines[0]), lines[0]
packets = fetch(relative(ts_url, lines[0]))
assert len(packets) % 188 == 0 and {packets[at] for at in range(0, len(packets), 188)} == {0x47}
few = media_playlist(hls(MaxMediaPlaylistFragmentResults=2, **demand))[1]
assert len(segments(few)) == 2, few
part = media_playlist(hls(PlaybackMode="ON_DEMAND", HLSFragmentSelector=selector("PRODUCER", start + 0.001, start + 4)))[1]
assert len(segments(part)) == 2, part
both = selector("PRODUCER", start, start + 4000)
urls["gap"] = hls("gap", PlaybackMode="ON_DEMAND", HLSFragmentSelector=both, DiscontinuityMode="ON_DISCONTINUITY")
_, text = media_playlist(urls["gap"])
assert text.count("#EXT-X-DISCONTINUITY\n") == 1 and len(segments(text)) == 2 * count, text
assert segments(media_playlist(hls("sound", **demand))[1])

live_url, text = media_playlist(urls["live"])
assert "#EXT-X-ENDLIST" not in text and "#EXT-X-MEDIA-SEQUENCE:0\n" in text and "PLAYLIST-TYPE" not in text, text
urls["replay"] = hls(PlaybackMode="LIVE_REPLAY", MaxMediaPlaylistFragmentResults=3, HLSFragmentSelector={
    "FragmentSelectorType": "PRODUCER_TIMESTAMP", "TimestampRange": {"StartTimestamp": at(start)}})
replay_url, text = media_playlist(urls["replay"])
first = segments(text)
assert len(first) == 3 and "#EXT-X-MEDIA-SEQUENCE:0\n" in text and "#EXT-X-ENDLIST" not in text, text
deadline = time.time() + 60
while "#EXT-X-MEDIA-SEQUENCE:0\n" in text:
    assert time.time() < deadline, "the replay stands still"
    time.sleep(0.1)
    text = fetch(replay_url).decode()
assert segments(text)[:2] == first[1:], (first, text)

# Tokens open what their session shows, and nothing else.
other = segments(media_playlist(hls("gap", PlaybackMode="ON_DEMAND", HLSFragmentSelector=both))[1])[-1]
foreign = re.search(r"FragmentNumber=(\d+)", other)[1]
beyond = re.search(r"FragmentNumber=(\d+)", segments(media_playlist(urls["demand"])[1])[-1])[1]
url, text = media_playlist(hls(PlaybackMode="ON_DEMAND", HLSFragmentSelector=selector("PRODUCER", start, start + 1)))
assert len(segments(text)) == 1
mine = relative(url, segments(text)[0])
fetch(mine)
for number in (foreign, beyond, "0", "9" * 48):
    fetch(re.sub(r"FragmentNumber=\d+", f"FragmentNumber={number}", mine), 404)
fetch(mine.replace("TrackNumber=1", "TrackNumber=9"), 404)
fetch(relative(url, init).replace("SequenceNumber=0", "SequenceNumber=1"), 404)
place = urls["demand"].index("SessionToken=") + 30
forged = urls["demand"][:place] + ("A" if urls["demand"][place] != "A" else "B") + urls["demand"][place + 1:]
for bad in (forged, urls["demand"][:-8], urls["demand"].split("?")[0], urls["demand"].split("?")[0] + "?SessionToken=x",
            urls["demand"].replace("/hls/v1/getHLSMasterPlaylist.m3u8", "/dash/v1/getDASHManifest.mpd")):
    fetch(bad, 403)

gone = hls("gone", **demand)
fetch(gone)
control = client(key, secret, "kinesisvideo")
control.delete_stream(StreamARN=control.describe_stream(StreamName="gone")["StreamInfo"]["StreamARN"])
fetch(gone, 403)
control.create_stream(StreamName="gone", DataRetentionInHours=1)
fetch(gone, 403)

for error, status, stream, arguments in (
        (errors.ResourceNotFoundException, 404, "nowhere", {}),
        (errors.ResourceNotFoundException, 404, "gone", {}),
        (errors.ResourceNotFoundException, 404, "cam",
         dict(PlaybackMode="ON_DEMAND", HLSFragmentSelector=selector("PRODUCER", start - 60, start - 1))),
        (errors.UnsupportedStreamMediaTypeException, 400, "law", demand),
        (errors.InvalidArgumentException, 400, "cam", dict(PlaybackMode="ON_DEMAND")),
        (errors.InvalidArgumentException, 400, "cam", dict(HLSFragmentSelector=whole)),
        (errors.InvalidArgumentException, 400, "cam", dict(ContainerFormat="MKV", **demand)),
        (errors.InvalidArgumentException, 400, "cam", dict(Expires=299)),
        (errors.InvalidArgumentException, 400, "cam", dict(Expires=43201)),
        (errors.InvalidArgumentException, 400, "cam", dict(MaxMediaPlaylistFragmentResults=5001))):
    refused(error, status, media.get_hls_streaming_session_url, StreamName=stream, **arguments)

# A key that reads one stream: what it opened ends with it, which the test sees to.
reading = client(reader, reader_secret)
urls["reader"] = hls(who=reading, **demand)
fetch(urls["reader"])
refused(ClientError, 403, reading.get_hls_streaming_session_url, StreamName="gap")
refused(ClientError, 403, reading.get_clip, StreamName="gap", ClipFragmentSelector=whole)


# DASH.
urls["dash"] = dash(PlaybackMode="ON_DEMAND", DASHFragmentSelector=whole, DisplayFragmentTimestamp="ALWAYS",
                    DisplayFragmentNumber="ALWAYS")
assert urls["dash"].startswith(endpoint + "/dash/v1/getDASHManifest.mpd?SessionToken=")
ns = {"d": "urn:mpeg:dash:schema:mpd:2011"}
manifest = ElementTree.fromstring(fetch(urls["dash"]))
assert manifest.get("type") == "static" and len(manifest.findall("d:Period", ns)) == 1
sets = manifest.findall(".//d:AdaptationSet", ns)
assert [one.get("contentType") for one in sets] == ["video", "audio"], sets
lines = sets[0].findall(".//d:S", ns)
assert len(lines) == count and len(sets[0].findall(".//d:SegmentURL", ns)) == count
for before, after in zip(lines, lines[1:]):
    assert int(before.get("t")) + int(before.get("d")) == int(after.get("t"))
names = lines[0].keys()
assert any(name.endswith("}ts") for name in names) and any(name.endswith("}fn") for name in names), names
periods = ElementTree.fromstring(fetch(dash("gap", PlaybackMode="ON_DEMAND", DASHFragmentSelector=both)))
periods = periods.findall("d:Period", ns)
assert [period.get("start") for period in periods][0] == "PT0.000S" and len(periods) == 2
assert 7 < float(periods[1].get("start")[2:-1]) < 9, "the gap is closed"
manifest = ElementTree.fromstring(fetch(urls["dash-live"]))
assert manifest.get("type") == "dynamic" and manifest.get("availabilityStartTime"), manifest.attrib
refused(errors.InvalidArgumentException, 400, media.get_dash_streaming_session_url, StreamName="cam",
        MaxManifestFragmentResults=0)
fetch(urls["dash"].replace("/dash/v1/getDASHManifest.mpd", "/hls/v1/getHLSMasterPlaylist.m3u8"), 403)
print(json.dumps(urls))
