// The operations as the AWS SDK for JavaScript v3 calls them: node sdk.mjs ENDPOINT ID SECRET READER_ID READER_SECRET START_MS.
//
// `cam` holds bbb.mkv (8.02 s, fragments of 2 s) from START_MS on, `law` G.711 alone; the reader's key may read and list `js-1` alone. Pictures may go
// to s3://shots, notifications to the topic `door`. Every operation of the clients is run. Exit status 0 only if all was as it should be.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import * as media from "@aws-sdk/client-kinesis-video-media";
import * as kept from "@aws-sdk/client-kinesis-video-archived-media";
import * as control from "@aws-sdk/client-kinesis-video";

const [endpoint, id, secret, readerId, readerSecret, startText] = process.argv.slice(2);
const startMs = Number(startText);
const ran = new Set();

/** A client as users make it: the endpoint is all that is changed. Once, so that no refusal is hidden by another try. */
function client(Client, accessKeyId = id, secretAccessKey = secret, sessionToken = undefined) {
  const credentials = { accessKeyId, secretAccessKey, sessionToken };
  const made = new Client({ region: "eu-central-1", endpoint, credentials, maxAttempts: 1 });
  const note = (next, { commandName }) => (args) => (ran.add(commandName), next(args));
  made.middlewareStack.add(note, { step: "initialize" });
  return made;
}

const kvs = client(control.KinesisVideoClient);
const archive = client(kept.KinesisVideoArchivedMediaClient);
const reads = client(media.KinesisVideoMediaClient);

/** Runs an operation of a client, whose package has its class. */
function call(client, name, input) {
  const of = client === archive ? kept : client === reads ? media : control;
  return client.send(new of[`${name}Command`](input));
}

/** Runs an operation that has to be refused, by an error of that class, or by one without a class of its own if that is a name. */
async function refused(expected, status, client, name, input) {
  try {
    await call(client, name, input);
  } catch (error) {
    const isExpected = typeof expected === "string" ? error.name === expected : error instanceof expected;
    assert.ok(isExpected, `${name}: ${error.stack}`);
    assert.equal(error.$metadata?.httpStatusCode, status, `${name}: ${error}`);
    assert.match(error.$metadata.requestId, /^[0-9a-f-]{36}$/, `${name}: ${error}`);
    assert.ok(error.message && error.$fault === "client", `${name}: ${error.$fault} ${error.message}`);
    return;
  }
  assert.fail(`${name} was not refused`);
}

async function pages(paginator) {
  const found = [];
  for await (const page of paginator) found.push(page);
  return found;
}

async function info(StreamName) {
  return (await call(kvs, "DescribeStream", { StreamName })).StreamInfo;
}

async function manageStreams() {
  const before = Date.now();
  const made = await call(kvs, "CreateStream", {
    StreamName: "js-1",
    DataRetentionInHours: 24,
    MediaType: "video/h264",
    DeviceName: "door",
    Tags: { site: "north" },
    StreamStorageConfiguration: { DefaultStorageTier: "HOT" },
  });
  assert.equal(made.$metadata.httpStatusCode, 200);
  assert.match(made.$metadata.requestId, /^[0-9a-f-]{36}$/);
  const arn = made.StreamARN;
  await refused(control.ResourceInUseException, 400, kvs, "CreateStream", { StreamName: "js-1" });
  await refused(control.InvalidArgumentException, 400, kvs, "CreateStream", { StreamName: "no", DataRetentionInHours: 87601 });
  await refused(control.ResourceNotFoundException, 404, kvs, "DescribeStream", { StreamName: "nowhere" });
  const Tags = Object.fromEntries(Array.from({ length: 51 }, (_, index) => [`t${index}`, ""]));
  await refused(control.TagsPerResourceExceededLimitException, 400, kvs, "CreateStream", { StreamName: "no", Tags });

  const first = await info("js-1");
  assert.deepEqual((await call(kvs, "DescribeStream", { StreamARN: arn })).StreamInfo, first);
  assert.ok(first.CreationTime instanceof Date && Math.abs(first.CreationTime - before) < 600_000, first.CreationTime);
  assert.ok(arn.endsWith(`/${first.CreationTime.getTime()}`), `${arn}: to the millisecond`);
  assert.deepEqual([first.DeviceName, first.MediaType, first.Status], ["door", "video/h264", "ACTIVE"]);

  const update = { StreamName: "js-1", CurrentVersion: first.Version, DeviceName: "gate" };
  await call(kvs, "UpdateStream", update);
  await refused(control.VersionMismatchException, 400, kvs, "UpdateStream", update);
  await call(kvs, "UpdateDataRetention", {
    StreamARN: arn,
    CurrentVersion: (await info("js-1")).Version,
    Operation: "INCREASE_DATA_RETENTION",
    DataRetentionChangeInHours: 24,
  });
  const second = await info("js-1");
  assert.deepEqual([second.DeviceName, second.DataRetentionInHours], ["gate", 48]);
  await call(kvs, "UpdateStreamStorageConfiguration", {
    StreamName: "js-1",
    CurrentVersion: second.Version,
    StreamStorageConfiguration: { DefaultStorageTier: "WARM" },
  });
  const tier = await call(kvs, "DescribeStreamStorageConfiguration", { StreamName: "js-1" });
  assert.deepEqual(tier.StreamStorageConfiguration, { DefaultStorageTier: "WARM" });

  for (const APIName of Object.values(control.APIName)) {
    const told = await call(kvs, "GetDataEndpoint", { StreamName: "js-1", APIName });
    assert.equal(told.DataEndpoint, endpoint, APIName);
  }

  for (const index of [2, 3, 4, 5]) await call(kvs, "CreateStream", { StreamName: `js-${index}`, DataRetentionInHours: 1 });
  const StreamNameCondition = { ComparisonOperator: "BEGINS_WITH", ComparisonValue: "js-" };
  const listed = await pages(control.paginateListStreams({ client: kvs, pageSize: 2 }, { StreamNameCondition }));
  const names = listed.map((page) => page.StreamInfoList.map((stream) => stream.StreamName));
  assert.deepEqual(names, [["js-1", "js-2"], ["js-3", "js-4"], ["js-5"]]);

  const gone = await info("js-5");
  const stale = { StreamARN: gone.StreamARN, CurrentVersion: "stale" };
  await refused(control.VersionMismatchException, 400, kvs, "DeleteStream", stale);
  await call(kvs, "DeleteStream", { StreamARN: gone.StreamARN, CurrentVersion: gone.Version });
  await refused(control.ResourceNotFoundException, 404, kvs, "DeleteStream", { StreamARN: gone.StreamARN });
  return arn;
}

async function tag(arn) {
  await call(kvs, "TagStream", { StreamName: "js-1", Tags: { floor: "2" } });
  await call(kvs, "TagResource", { ResourceARN: arn, Tags: [{ Key: "room", Value: "2.1 \u00e4" }] });
  const all = { site: "north", floor: "2", room: "2.1 \u00e4" };
  assert.deepEqual((await call(kvs, "ListTagsForStream", { StreamName: "js-1" })).Tags, all);
  await call(kvs, "UntagStream", { StreamName: "js-1", TagKeyList: ["floor"] });
  await call(kvs, "UntagResource", { ResourceARN: arn, TagKeyList: ["room"] });
  assert.deepEqual((await call(kvs, "ListTagsForResource", { ResourceARN: arn })).Tags, { site: "north" });
}

/** Pictures, notifications, and what is not here. */
async function configure() {
  const shots = {
    Status: "ENABLED",
    DestinationConfig: { Uri: "s3://shots/js", DestinationRegion: "us-east-1" },
    SamplingInterval: 200,
    ImageSelectorType: "PRODUCER_TIMESTAMP",
    Format: "JPEG",
    FormatConfig: { JPEGQuality: "80" },
    WidthPixels: 320,
    HeightPixels: 240,
  };
  const topic = "arn:aws:sns:eu-central-1:000000000000:door";
  const noted = { Status: "DISABLED", DestinationConfig: { Uri: topic } };
  for (const [kind, asked] of [["ImageGeneration", shots], ["Notification", noted]]) {
    const member = `${kind}Configuration`;
    const describe = async () => (await call(kvs, `Describe${member}`, { StreamName: "js-1" }))[member];
    assert.equal(await describe(), undefined);
    await call(kvs, `Update${member}`, { StreamName: "js-1", [member]: asked });
    assert.deepEqual(await describe(), asked);
    const elsewhere = { ...asked, DestinationConfig: { ...asked.DestinationConfig, Uri: "s3://elsewhere" } };
    const input = { StreamName: "js-1", [member]: elsewhere };
    await refused(control.InvalidArgumentException, 400, kvs, `Update${member}`, input);
    await call(kvs, `Update${member}`, { StreamName: "js-1" });
    assert.equal(await describe(), undefined);
  }

  const mapped = await call(kvs, "DescribeMappedResourceConfiguration", { StreamName: "js-1" });
  assert.deepEqual(mapped.MappedResourceConfigurationList, []);
  assert.deepEqual((await call(kvs, "ListSignalingChannels", {})).ChannelInfoList, []);
  const HubDeviceArn = "arn:aws:iot:us-west-2:000000000000:thing/t";
  assert.deepEqual((await call(kvs, "ListEdgeAgentConfigurations", { HubDeviceArn })).EdgeConfigs, []);
  await refused(control.AccountChannelLimitExceededException, 400, kvs, "CreateSignalingChannel", { ChannelName: "none" });
  const ChannelARN = "arn:aws:kinesisvideo:eu-central-1:000000000000:channel/none/1";
  const MediaStorageConfiguration = { Status: "DISABLED" };
  for (const [name, input] of [
    ["DescribeSignalingChannel", { ChannelName: "none" }],
    ["UpdateSignalingChannel", { ChannelARN, CurrentVersion: "1" }],
    ["DeleteSignalingChannel", { ChannelARN }],
    ["GetSignalingChannelEndpoint", { ChannelARN }],
    ["DescribeMediaStorageConfiguration", { ChannelARN }],
    ["UpdateMediaStorageConfiguration", { ChannelARN, MediaStorageConfiguration }],
  ]) {
    await refused(control.ResourceNotFoundException, 404, kvs, name, input);
  }
  for (const name of ["DescribeEdgeConfiguration", "DeleteEdgeConfiguration"]) {
    await refused(control.StreamEdgeConfigurationNotFoundException, 404, kvs, name, { StreamName: "js-1" });
  }
  const RecorderConfig = { MediaSourceConfig: { MediaUriSecretArn: `arn:aws:secretsmanager:eu-central-1:000000000000:secret:s`, MediaUriType: "RTSP_URI" } };
  const edge = { StreamName: "js-1", EdgeConfig: { HubDeviceArn, RecorderConfig } };
  await refused(control.InvalidArgumentException, 400, kvs, "StartEdgeConfigurationUpdate", edge);
}

function selector(firstMs, lastMs, kind = "PRODUCER") {
  const TimestampRange = { StartTimestamp: new Date(firstMs), EndTimestamp: new Date(lastMs) };
  return { FragmentSelectorType: `${kind}_TIMESTAMP`, TimestampRange };
}

async function readStored() {
  const StreamName = "cam";
  const whole = selector(startMs, startMs + 60_000);
  const listed = await pages(kept.paginateListFragments({ client: archive, pageSize: 2 }, { StreamName, FragmentSelector: whole }));
  assert.ok(listed.length > 1 && listed.every((page) => page.Fragments.length <= 2));
  const fragments = listed.flatMap((page) => page.Fragments).sort((a, b) => (a.FragmentNumber < b.FragmentNumber ? -1 : 1));
  const numbers = fragments.map((fragment) => fragment.FragmentNumber);
  assert.ok(numbers.length > 3 && new Set(numbers).size === numbers.length, numbers);
  assert.equal(fragments[0].ProducerTimestamp.getTime(), startMs);
  const lengths = fragments.reduce((sum, fragment) => sum + fragment.FragmentLengthInMilliseconds, 0);
  assert.ok(Math.abs(lengths - 8020) < 50, `${lengths} ms`);
  // To the millisecond, both ways: what was told is found again, and not a millisecond later.
  for (const kind of ["PRODUCER", "SERVER"]) {
    const told = fragments.map((fragment) => (kind === "SERVER" ? fragment.ServerTimestamp : fragment.ProducerTimestamp).getTime());
    for (const atMs of [told[1], told[1] + 1]) {
      const found = await call(archive, "ListFragments", { StreamName, FragmentSelector: selector(atMs, atMs, kind) });
      assert.equal(found.Fragments.length, told.filter((ms) => ms === atMs).length, `${kind} ${atMs}`);
    }
  }
  await refused(kept.InvalidArgumentException, 400, archive, "ListFragments", { StreamName, NextToken: "none" });

  const list = await call(archive, "GetMediaForFragmentList", { StreamName, Fragments: numbers });
  assert.equal(list.ContentType, "video/webm");
  const documents = await bytes(list.Payload);
  assert.equal(count(documents, "\x1a\x45\xdf\xa3"), numbers.length, "a document each");
  assert.ok(numbers.every((number) => documents.includes(number)));
  const nowhere = { StreamName: "nowhere", Fragments: ["1"] };
  await refused(kept.ResourceNotFoundException, 404, archive, "GetMediaForFragmentList", nowhere);

  const clip = await call(archive, "GetClip", { StreamName, ClipFragmentSelector: whole });
  assert.equal(clip.ContentType, "video/mp4");
  const file = await bytes(clip.Payload);
  assert.equal(file.toString("latin1", 4, 8), "ftyp");
  assert.ok(file.length > documents.length / 2, `${file.length} bytes`);
  const empty = { StreamName, ClipFragmentSelector: selector(startMs, startMs) };
  await refused(kept.InvalidArgumentException, 400, archive, "GetClip", empty);
  const early = { StreamName, ClipFragmentSelector: selector(startMs - 60_000, startMs - 1) };
  await refused(kept.ResourceNotFoundException, 404, archive, "GetClip", early);
  await call(kvs, "CreateStream", { StreamName: "watch" });
  await refused(kept.NoDataRetentionException, 400, archive, "GetClip", { StreamName: "watch", ClipFragmentSelector: whole });

  const ask = {
    StreamName,
    ImageSelectorType: "PRODUCER_TIMESTAMP",
    Format: "JPEG",
    StartTimestamp: new Date(startMs + 250),
    EndTimestamp: new Date(startMs + 9250),
    SamplingInterval: 1000,
  };
  const shown = await pages(kept.paginateGetImages({ client: archive, pageSize: 4 }, ask));
  assert.deepEqual(shown.map((page) => page.Images.length), [4, 4, 2]);
  const images = shown.flatMap((page) => page.Images);
  assert.deepEqual(images.map(({ TimeStamp }) => TimeStamp - startMs), Array.from({ length: 10 }, (_, index) => 250 + 1000 * index));
  assert.deepEqual(images.map(({ Error }) => Error), [...Array(8).fill(undefined), "NO_MEDIA", "NO_MEDIA"]);
  for (const { ImageContent } of images.slice(0, 8)) {
    assert.deepEqual([...Buffer.from(ImageContent, "base64").subarray(0, 3)], [0xff, 0xd8, 0xff]);
  }
  await refused(kept.InvalidArgumentException, 400, archive, "GetImages", { ...ask, SamplingInterval: 199 });

  for (const kind of ["HLS", "DASH"]) {
    const [name, member] = [`Get${kind}StreamingSessionURL`, `${kind}StreamingSessionURL`];
    const input = { StreamName, PlaybackMode: "ON_DEMAND", [`${kind}FragmentSelector`]: whole };
    const url = (await call(archive, name, input))[member];
    assert.ok(url.startsWith(`${endpoint}/${kind.toLowerCase()}/v1/`), url);
    assert.equal((await fetch(url)).status, 200);
    await refused(kept.InvalidArgumentException, 400, archive, name, { ...input, Expires: 299 });
    await refused(kept.ResourceNotFoundException, 404, archive, name, { ...input, StreamName: "nowhere" });
    await refused(kept.UnsupportedStreamMediaTypeException, 400, archive, name, { ...input, StreamName: "law" });
  }
  return numbers;
}

/** GetMedia has no end: it is read until all that is stored came, and then given up. */
async function readHead(numbers) {
  const earliest = { StreamName: "cam", StartSelector: { StartSelectorType: "EARLIEST" } };
  const answer = await call(reads, "GetMedia", earliest);
  assert.equal(answer.ContentType, "video/webm");
  let got = Buffer.alloc(0);
  // The last fragment's token is the last thing that is said of it.
  for await (const part of answer.Payload) {
    got = Buffer.concat([got, part]);
    if (count(got, "AWS_KINESISVIDEO_CONTINUATION_TOKEN") === numbers.length && got.toString("latin1").endsWith(numbers.at(-1))) break;
  }
  assert.equal(count(got, "AWS_KINESISVIDEO_CONTINUATION_TOKEN"), numbers.length, "the answer ended");
  assert.ok(numbers.every((number) => got.includes(number)));
  const after = { StartSelectorType: "CONTINUATION_TOKEN", ContinuationToken: numbers.at(-2) };
  const rest = await call(reads, "GetMedia", { StreamName: "cam", StartSelector: after });
  got = Buffer.alloc(0);
  for await (const part of rest.Payload) {
    got = Buffer.concat([got, part]);
    if (got.includes(numbers.at(-1))) break;
  }
  assert.ok(got.includes(numbers.at(-1)) && !got.includes(numbers.at(-2)), "the fragments after that token");
  await refused(media.ResourceNotFoundException, 404, reads, "GetMedia", { ...earliest, StreamName: "nowhere" });
  await refused(media.InvalidArgumentException, 400, reads, "GetMedia", { StreamName: "cam", StartSelector: { StartSelectorType: "SOON" } });
}

async function beRefused() {
  const reader = client(control.KinesisVideoClient, readerId, readerSecret);
  assert.deepEqual((await call(reader, "ListStreams", {})).StreamInfoList.map((stream) => stream.StreamName), ["js-1"]);
  await refused(control.AccessDeniedException, 403, reader, "CreateStream", { StreamName: "js-9" });
  await refused(control.AccessDeniedException, 403, reader, "DescribeStream", { StreamName: "js-2" });
  for (const [pair, name] of [
    [[id, "wrong"], "InvalidSignatureException"],
    [["nobody", secret], "InvalidClientTokenId"],
    [[id, secret, "token"], "InvalidClientTokenId"],
  ]) {
    await refused(name, 403, client(control.KinesisVideoClient, ...pair), "ListStreams", {});
  }
}

async function bytes(payload) {
  return Buffer.from(await payload.transformToByteArray());
}

function count(buffer, text) {
  return buffer.toString("latin1").split(text).length - 1;
}

/** The operations of the page's column. */
function said() {
  const page = readFileSync(new URL("../../../docs/api/kinesis.md", import.meta.url), "utf8");
  const lines = page.split("\n### What was run\n")[1].split("\n#")[0].split("\n").filter((line) => line.startsWith("| "));
  const [head, ...rows] = lines.map((line) => line.replace(/^\| | \|$/g, "").split(" | "));
  const column = head.indexOf("JS");
  assert.ok(column > 0, "no column JS");
  return rows.filter((row) => row[column] === "yes").flatMap((row) => row[0].split(", "));
}

const arn = await manageStreams();
await tag(arn);
await configure();
await readHead(await readStored());
await beRefused();

const all = [control, kept, media].flatMap((one) => Object.keys(one)).filter((name) => /^[A-Z].*Command$/.test(name));
assert.deepEqual([...ran].sort(), [...new Set(all)].sort(), "every operation of the clients");
assert.deepEqual(said().sort(), [...ran].map((name) => name.replace(/Command$/, "")).sort(), "docs/api/kinesis.md, column JS");
// Sockets are kept for the next call.
for (const one of [kvs, archive, reads]) one.destroy();
