"""The control plane as boto3 calls it: kinesis.py ENDPOINT ID SECRET READER_ID READER_SECRET. Streams are left for the test."""

import sys
import time

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from botocore.httpsession import URLLib3Session

endpoint, key, secret, reader, reader_secret = sys.argv[1:]
config = Config(retries={"total_max_attempts": 1})


def client(key, secret, token=None):
    return boto3.client(
        "kinesisvideo", region_name="eu-central-1", endpoint_url=endpoint, aws_access_key_id=key,
        aws_secret_access_key=secret, aws_session_token=token, config=config)


def refused(expected, status, call, **arguments):
    try:
        call(**arguments)
    except expected as error:
        found = error.response
        assert found["ResponseMetadata"]["HTTPStatusCode"] == status, found
        assert found["ResponseMetadata"]["RequestId"] and found["Error"]["Message"], found
        return found["Error"]
    raise AssertionError(f"{call.__name__} {arguments} was not refused")


kvs = client(key, secret)
errors = kvs.exceptions
before = time.time()
arn = kvs.create_stream(StreamName="kin-1", DataRetentionInHours=24, MediaType="video/h264", DeviceName="door",
                        Tags={"site": "north"})["StreamARN"]
refused(errors.ResourceInUseException, 400, kvs.create_stream, StreamName="kin-1", DataRetentionInHours=1)
refused(errors.InvalidArgumentException, 400, kvs.create_stream, StreamName="no", DataRetentionInHours=87601)
info = kvs.describe_stream(StreamName="kin-1")["StreamInfo"]
assert info == kvs.describe_stream(StreamARN=arn)["StreamInfo"]
assert abs(info["CreationTime"].timestamp() - before) < 600, info
assert (info["DeviceName"], info["MediaType"], info["Status"]) == ("door", "video/h264", "ACTIVE"), info
refused(errors.ResourceNotFoundException, 404, kvs.describe_stream, StreamName="nowhere")

kvs.update_stream(StreamName="kin-1", CurrentVersion=info["Version"], DeviceName="gate")
refused(errors.VersionMismatchException, 400, kvs.update_stream, StreamName="kin-1", CurrentVersion=info["Version"])
version = kvs.describe_stream(StreamName="kin-1")["StreamInfo"]["Version"]
kvs.update_data_retention(StreamARN=arn, CurrentVersion=version, Operation="INCREASE_DATA_RETENTION",
                          DataRetentionChangeInHours=24)
info = kvs.describe_stream(StreamName="kin-1")["StreamInfo"]
assert (info["DeviceName"], info["DataRetentionInHours"]) == ("gate", 48), info

kvs.tag_stream(StreamName="kin-1", Tags={"floor": "2"})
kvs.tag_resource(ResourceARN=arn, Tags=[{"Key": "room", "Value": "2.1"}])
kvs.untag_stream(StreamName="kin-1", TagKeyList=["floor"])
assert kvs.list_tags_for_stream(StreamName="kin-1")["Tags"] == {"site": "north", "room": "2.1"}
kvs.untag_resource(ResourceARN=arn, TagKeyList=["room"])
assert kvs.list_tags_for_resource(ResourceARN=arn)["Tags"] == {"site": "north"}
refused(errors.TagsPerResourceExceededLimitException, 400, kvs.tag_stream, StreamName="kin-1",
        Tags={f"t{index}": "" for index in range(50)})

for api in ("PUT_MEDIA", "GET_MEDIA", "LIST_FRAGMENTS", "GET_MEDIA_FOR_FRAGMENT_LIST", "GET_HLS_STREAMING_SESSION_URL",
            "GET_DASH_STREAMING_SESSION_URL", "GET_CLIP", "GET_IMAGES"):
    assert kvs.get_data_endpoint(StreamName="kin-1", APIName=api)["DataEndpoint"] == endpoint

for index in range(2, 6):
    kvs.create_stream(StreamName=f"kin-{index}", DataRetentionInHours=1)
pages = kvs.get_paginator("list_streams").paginate(
    StreamNameCondition={"ComparisonOperator": "BEGINS_WITH", "ComparisonValue": "kin-"}, PaginationConfig={"PageSize": 2})
found = [[stream["StreamName"] for stream in page["StreamInfoList"]] for page in pages]
assert found == [["kin-1", "kin-2"], ["kin-3", "kin-4"], ["kin-5"]], found

gone = kvs.describe_stream(StreamName="kin-5")["StreamInfo"]
refused(errors.VersionMismatchException, 400, kvs.delete_stream, StreamARN=gone["StreamARN"], CurrentVersion="stale")
kvs.delete_stream(StreamARN=gone["StreamARN"], CurrentVersion=gone["Version"])
refused(errors.ResourceNotFoundException, 404, kvs.delete_stream, StreamARN=gone["StreamARN"])

info = kvs.describe_stream(StreamName="kin-1")["StreamInfo"]
kvs.update_stream_storage_configuration(StreamName="kin-1", CurrentVersion=info["Version"],
                                        StreamStorageConfiguration={"DefaultStorageTier": "WARM"})
tier = kvs.describe_stream_storage_configuration(StreamName="kin-1")["StreamStorageConfiguration"]
assert tier == {"DefaultStorageTier": "WARM"}, tier
assert kvs.list_signaling_channels()["ChannelInfoList"] == []
refused(errors.ResourceNotFoundException, 404, kvs.describe_signaling_channel, ChannelName="none")
refused(errors.AccountChannelLimitExceededException, 400, kvs.create_signaling_channel, ChannelName="none")
refused(errors.StreamEdgeConfigurationNotFoundException, 404, kvs.describe_edge_configuration, StreamName="kin-1")

# No operation of the model is unknown: each one is answered, if only with why not, and stands in the page.
page = open(sys.argv[0].replace("server/tests/kinesis.py", "docs/api/kinesis.md")).read()
for operation in kvs.meta.service_model.operation_names:
    assert operation in page, f"{operation} is not in docs/api/kinesis.md"
    path = kvs.meta.service_model.operation_model(operation).http["requestUri"]
    request = AWSRequest("POST", endpoint + path, data="{}", headers={"Content-Type": "application/json"})
    SigV4Auth(Credentials(key, secret), "kinesisvideo", "eu-central-1").add_auth(request)
    answer = URLLib3Session().send(request.prepare())
    assert b"UnknownOperation" not in answer.content and answer.status_code in (200, 400, 404), (operation, answer.content)

reading = client(reader, reader_secret)
assert [stream["StreamName"] for stream in reading.list_streams()["StreamInfoList"]] == ["kin-1"]
refused(reading.exceptions.AccessDeniedException, 403, reading.create_stream, StreamName="kin-9", DataRetentionInHours=1)
refused(reading.exceptions.AccessDeniedException, 403, reading.describe_stream, StreamName="kin-2")
assert refused(ClientError, 403, client(key, "wrong").list_streams)["Code"] == "InvalidSignatureException"
assert refused(ClientError, 403, client("nobody", secret).list_streams)["Code"] == "InvalidClientTokenId"
assert refused(ClientError, 403, client(key, secret, "token").list_streams)["Code"] == "InvalidClientTokenId"
# Retention is 0 by default: for watching only.
kvs.create_stream(StreamName="watch")
assert kvs.describe_stream(StreamName="watch")["StreamInfo"]["DataRetentionInHours"] == 0
