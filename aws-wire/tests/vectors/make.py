#!/usr/bin/env python3
"""Makes sigv4.json: requests as clients of the reference service sign them, by botocore.

    python3 -m venv V && V/bin/pip install botocore==1.44.5 && V/bin/python make.py > sigv4.json

The C, Java and Go clients are not Python: what they sign is told to botocore header by header. Requests of the
"Signature Version 4 Test Suite" stand here with the signature that AWS published; botocore has to agree.
"""
import datetime
import json
from urllib.parse import urlsplit

import botocore.auth as auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

ID, SECRET, TOKEN = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "IQoJb3JpZ2luX2VjEXAMPLE//+token=="
EMPTY = auth.EMPTY_SHA256_HASH
JSON_BODY = '{"StreamName": "cam-1"}'


class Chosen(auth.SigV4Auth):
    """Signs the headers and the payload hash that it is told."""

    def __init__(self, *args, names, payload=None):
        super().__init__(*args)
        self.names, self.literal = names, payload

    def headers_to_sign(self, request):
        chosen = auth.HTTPHeaders()
        for name, value in request.headers.items():
            if name.lower() in self.names:
                chosen[name.lower()] = value
        return chosen

    def payload(self, request):
        return self.literal or super().payload(request)

    def _modify_request_before_signing(self, request):
        auth.SigV4Auth._set_necessary_date_headers(self, request)


class PresignedChosen(auth.SigV4QueryAuth):
    def headers_to_sign(self, request):
        headers = auth.HTTPHeaders()
        headers["host"] = request.headers.get("host") or auth._host_from_url(request.url)
        return headers


vectors = []


def vector(name, method, url, headers, body="", *, signer=auth.SigV4Auth, token=None, stream=False, date=None,
           service="kinesisvideo", region="us-west-2", after=None, absolute=False, published=None, context=None, **options):
    now = date or datetime.datetime(2026, 11, 26, 1, 10, 0, tzinfo=datetime.timezone.utc)
    auth.get_current_datetime = lambda *args, **kwargs: now
    request = AWSRequest(method=method, url=url, headers=dict(headers), data=body)
    request.context.update(context or {})
    # As a client would: what is signed is what goes out.
    if "host" not in {key.lower() for key in headers}:
        request.headers["Host"] = auth._host_from_url(url)
    signer(Credentials(ID, SECRET, token), service, region, **options).add_auth(request)
    for key, value in (after or {}).items():
        request.headers[key] = value
    if published:
        assert request.headers["Authorization"].endswith("Signature=" + published), name
    parts = urlsplit(request.url)
    target = parts.path + ("?" + parts.query if parts.query else "")
    vectors.append({
        "name": name,
        "method": method,
        "target": request.url if absolute else target,
        "headers": [[key, value] for key, value in request.headers.items()],
        "body": None if stream else body,
        "now_ms": int(now.timestamp() * 1000),
        "service": service,
        "region": region,
        "token": token or (after or {}).get("x-amz-security-token"),
    })


json_type = {"Content-Type": "application/json"}
describe = "http://127.0.0.1:8081/describeStream"
vector("boto3", "POST", describe, {**json_type, "User-Agent": "Boto3/1.44.5", "Expect": "100-continue"}, JSON_BODY)
vector("boto3-token", "POST", describe, json_type, JSON_BODY, token=TOKEN)
vector("date-header", "POST", describe, {**json_type, "Date": "now"}, JSON_BODY)
vector("spaces", "POST", describe, {**json_type, "X-Amz-Note": "  a   b  "}, JSON_BODY)
vector("unsigned-payload", "POST", "https://media.example/getMedia", json_type, JSON_BODY, stream=True,
       context={"payload_signing_enabled": False})
vector("presigned", "POST", describe + "?b=%20x%2F&a=1", {}, signer=auth.SigV4QueryAuth, expires=60)
vector("presigned-token", "POST", describe, {}, signer=auth.SigV4QueryAuth, token=TOKEN)

put = "http://localhost:8081/putMedia"
kvs = {
    "x-amzn-fragment-acknowledgment-required": "1",
    "x-amzn-fragment-timecode-type": "ABSOLUTE",
    "x-amzn-producer-start-timestamp": "1795401065.51",
    "x-amzn-stream-name": "cam-1",
}
c_head = {"Host": "localhost", "User-Agent": "AWS-SDK-KVS/3.5.0 GCC/12.2.0 Linux/6.1 x86_64"}
c_put = {**c_head, **kvs, "Connection": "keep-alive", "Transfer-Encoding": "chunked", "Content-Type": "application/json",
         "Expect": "100-continue", "Accept": "*/*"}
c_names = {"host", "user-agent", "x-amz-date"}
c_put_names = c_names | set(kvs) | {"connection", "transfer-encoding"}
vector("c-control", "POST", "http://localhost:8081/describeStream", {**c_head, **json_type}, JSON_BODY, signer=Chosen,
       names=c_names, after={"x-amz-security-token": TOKEN})
vector("c-put-media", "POST", put, c_put, stream=True, signer=Chosen, names=c_put_names, payload=EMPTY,
       after={"x-amz-security-token": TOKEN})
vector("embedded-c-put-media", "POST", put, {**c_put, "x-amz-security-token": TOKEN}, stream=True, signer=Chosen,
       names=c_put_names | {"x-amz-security-token"}, payload=EMPTY, token=TOKEN)
java_put = {**kvs, "x-amzn-producer-start-timestamp": "2026-11-23T02:37:59.897Z", "User-Agent": "aws-sdk-java/1.12.797",
            "Transfer-Encoding": "chunked"}
java_names = {"host", "user-agent", "transfer-encoding", "x-amz-date", "x-amz-content-sha256", *kvs}
vector("java-v1-put-media", "POST", put, {**java_put, "x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"},
       stream=True, absolute=True, signer=Chosen, names=java_names)
vector("java-producer-put-media", "POST", put, java_put, stream=True, signer=Chosen, names=java_names,
       payload="UNSIGNED-PAYLOAD", after={"x-amz-content-sha256": "UNSIGNED-PAYLOAD"})
vector("unsigned-put-media", "POST", put, java_put, stream=True, signer=Chosen, names=java_names,
       payload="UNSIGNED-PAYLOAD")
vector("go-put-media", "POST", put, kvs, stream=True, signer=PresignedChosen, expires=600)
vector("go-put-media-token-header", "POST", put, kvs, stream=True, signer=PresignedChosen, expires=600,
       after={"x-amz-security-token": TOKEN})

suite = {"date": datetime.datetime(2015, 8, 30, 12, 36, 0, tzinfo=datetime.timezone.utc), "service": "service",
         "region": "us-east-1"}
example = "https://example.amazonaws.com"
vector("get-vanilla", "GET", example + "/", {}, **suite,
       published="5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31")
vector("get-vanilla-query-order-key-case", "GET", example + "/?Param2=value2&Param1=value1", {}, **suite,
       published="b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500")
vector("get-utf8", "GET", example + "/%E1%88%B4".replace("%E1%88%B4", "\u1234"), {}, **suite,
       published="8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85")
vector("get-header-value-trim", "GET", example + "/", {"My-Header1": " value1", "My-Header2": ' "a   b   c"'}, **suite,
       published="acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736")
vector("get-slashes", "GET", example + "//example//", {}, **suite,
       published="9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84")
vector("post-vanilla", "POST", example + "/", {}, **suite,
       published="5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b")
vector("post-x-www-form-urlencoded", "POST", example + "/",
       {"Content-Type": "application/x-www-form-urlencoded"}, "Param1=value1", **suite,
       published="ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a")

print("[\n" + ",\n".join(json.dumps(v, ensure_ascii=False) for v in vectors) + "\n]")
