"""Reading as boto3 reads: kinesis_media.py ENDPOINT ID SECRET STREAM COUNT DIR.

Waits at the head for COUNT fragments, which the test pushes once it has read "ready"; then reads them in every other way.
Each goes into files of DIR, documents as they came.
"""

import datetime
import re
import sys

import boto3
from botocore.config import Config

endpoint, key, secret, stream, count, folder = sys.argv[1:]
count = int(count)


def client(service, api=None):
    url = endpoint
    if api:
        url = client("kinesisvideo").get_data_endpoint(StreamName=stream, APIName=api)["DataEndpoint"]
    return boto3.client(
        service, region_name="eu-central-1", endpoint_url=url, aws_access_key_id=key, aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}, read_timeout=60))


def refused(expected, call, **arguments):
    try:
        call(**arguments)
    except expected as error:
        assert error.response["Error"]["Message"] and error.response["ResponseMetadata"]["RequestId"], error.response
        return
    raise AssertionError(f"{call.__name__} {arguments} was not refused")


def save(name, data):
    with open(f"{folder}/{name}", "wb") as file:
        file.write(data)


def fragments_of(answer, tokens):
    """Reads an answer that has no end until so many fragments are complete."""
    assert answer["ContentType"] == "video/webm", answer
    data = b""
    while data.count(b"AWS_KINESISVIDEO_CONTINUATION_TOKEN") < tokens or not data[-47:].isdigit():
        more = answer["Payload"]._raw_stream.read1(1 << 16)
        assert more, "the answer ended"
        data += more
    answer["Payload"].close()
    return data


media = client("kinesis-video-media", "GET_MEDIA")
live = media.get_media(StreamName=stream, StartSelector={"StartSelectorType": "NOW"})
print("ready", flush=True)
save("live.mkv", fragments_of(live, count))

archived = client("kinesis-video-archived-media", "LIST_FRAGMENTS")
day = datetime.timedelta(days=1)
now = datetime.datetime.now(datetime.timezone.utc)
found = {}
for clock in ("PRODUCER_TIMESTAMP", "SERVER_TIMESTAMP"):
    pages = archived.get_paginator("list_fragments").paginate(
        StreamName=stream, PaginationConfig={"PageSize": 3},
        FragmentSelector={"FragmentSelectorType": clock, "TimestampRange": {"StartTimestamp": now - day, "EndTimestamp": now + day}})
    listed = [fragment for page in pages for fragment in page["Fragments"]]
    found[clock] = sorted(listed, key=lambda fragment: fragment["FragmentNumber"])
assert found["PRODUCER_TIMESTAMP"] == found["SERVER_TIMESTAMP"], found
listed = found["SERVER_TIMESTAMP"]
assert len(listed) == count, listed
numbers = [fragment["FragmentNumber"] for fragment in listed]
assert all(len(number) == 47 and number.isdigit() for number in numbers), numbers
assert all(fragment["FragmentSizeInBytes"] > 0 and fragment["FragmentLengthInMilliseconds"] > 0 for fragment in listed)

# Exactly one begins at an instant that is said to the millisecond.
second = listed[1]["ProducerTimestamp"]
one = archived.list_fragments(StreamName=stream, FragmentSelector={
    "FragmentSelectorType": "PRODUCER_TIMESTAMP", "TimestampRange": {"StartTimestamp": second, "EndTimestamp": second}})
assert [fragment["FragmentNumber"] for fragment in one["Fragments"]] == [numbers[1]], one

answer = archived.get_media_for_fragment_list(StreamName=stream, Fragments=numbers)
assert answer["ContentType"] == "video/webm", answer
save("list.mkv", answer["Payload"].read())
for index, number in enumerate(numbers):
    save(f"fragment-{index}.mkv", archived.get_media_for_fragment_list(StreamName=stream, Fragments=[number])["Payload"].read())
missing = archived.get_media_for_fragment_list(StreamName=stream, Fragments=["1" * 47])["Payload"].read()
assert b"FRAGMENT_NOT_FOUND" in missing and b"3000" in missing and b"1" * 47 in missing, missing

save("earliest.mkv", fragments_of(media.get_media(StreamName=stream, StartSelector={"StartSelectorType": "EARLIEST"}), count))
after = {"StartSelectorType": "FRAGMENT_NUMBER", "AfterFragmentNumber": numbers[0]}
save("after.mkv", fragments_of(media.get_media(StreamName=stream, StartSelector=after), count - 1))
token = {"StartSelectorType": "CONTINUATION_TOKEN", "ContinuationToken": numbers[0]}
assert numbers[1].encode() in fragments_of(media.get_media(StreamName=stream, StartSelector=token), 1)
for clock, member in (("PRODUCER_TIMESTAMP", "ProducerTimestamp"), ("SERVER_TIMESTAMP", "ServerTimestamp")):
    at = {"StartSelectorType": clock, "StartTimestamp": listed[2][member]}
    first = re.search(rb"[0-9]{47}", fragments_of(media.get_media(StreamName=stream, StartSelector=at), 1)).group().decode()
    # Several may have begun within a millisecond.
    assert listed[numbers.index(first)][member] == listed[2][member], (clock, first)

refused(archived.exceptions.ResourceNotFoundException, archived.get_media_for_fragment_list, StreamName="nowhere", Fragments=numbers)
refused(archived.exceptions.InvalidArgumentException, archived.list_fragments, StreamName=stream)
refused(archived.exceptions.InvalidArgumentException, archived.list_fragments, StreamName=stream, NextToken="AAAA")
refused(media.exceptions.ResourceNotFoundException, media.get_media, StreamName="nowhere", StartSelector={"StartSelectorType": "NOW"})
refused(media.exceptions.InvalidArgumentException, media.get_media, StreamName=stream, StartSelector={"StartSelectorType": "SERVER_TIMESTAMP"})
