// Recorded media, played to the end and looked at in any place: node demand.mjs ENDPOINT ID SECRET CHROMIUM START_MS.
//
// From START_MS on, `grey` holds 4 s of pictures (25 a second) and sound, second n with luma 32 + 20 n, in fragments of a second; `gap` the
// same twice, an hour apart. The others are fixtures. Exit status 0 only if all was as it should be.
import assert from "node:assert/strict";
import { play } from "./player.mjs";

const [endpoint, id, secret, executablePath, startText] = process.argv.slice(2);
const startMs = Number(startText);

function range(kind, firstMs, lastMs) {
  const TimestampRange = { StartTimestamp: new Date(firstMs), EndTimestamp: new Date(lastMs) };
  return { FragmentSelectorType: `${kind}_TIMESTAMP`, TimestampRange };
}

const whole = range("PRODUCER", startMs, startMs + 4_000_000);
// By the server's clock it came just now.
const served = range("SERVER", Date.now() - 3_000_000, Date.now());

/** How long it plays, how many pictures that are, and what grey each second has, if it is told by that. */
const streams = {
  grey: { seconds: 4, pictures: 100, greys: [0, 1, 2, 3] },
  gap: { seconds: 8, pictures: 200, greys: [0, 1, 2, 3, 0, 1, 2, 3] },
  // Each fragment begins with decode times that are two pictures earlier than what is shown first.
  bbb: { seconds: 8, pictures: 200, reordered: true },
  av1: { seconds: 4, pictures: 100 },
  vp9: { seconds: 4, pictures: 100 },
  aac: { seconds: 4, pictures: 0 },
  opus: { seconds: 4, pictures: 0 },
};

function job(StreamName, player, kind, selector, more = {}) {
  const name = `${StreamName} ${selector.FragmentSelectorType} ${JSON.stringify(more)}`;
  const request = { StreamName, PlaybackMode: "ON_DEMAND", [`${kind}FragmentSelector`]: selector, ...more };
  const stream = streams[StreamName];
  // For players of HLS a segment begins with its first decode time, or with the first sound of a transport stream. So there is a moment
  // without pictures at the beginning, which hls.js steps over and reports; Shaka has one of sound after the first segment too.
  const holes_s = kind === "HLS" && (stream.reordered || more.ContainerFormat) ? 0.15 : 0.01;
  const tolerates = holes_s > 0.01 ? /bufferSeekOverHole false/ : undefined;
  return { name, player, kind, request, watch, stream, holes_s, tolerates };
}

async function watch(page, { stream, holes_s }) {
  await page.waitForFunction(() => video.ended);
  const { currentTime, duration, totalVideoFrames, audioBytes, ranges } = await page.evaluate(() => state());
  assert.ok(Math.abs(duration - stream.seconds) < 0.1 && Math.abs(currentTime - duration) < 0.1, `${duration} s`);
  // From the beginning to the end, all of it: these are too short for a player to drop what is behind.
  const buffered_s = ranges.reduce((sum, [first, last]) => sum + last - first, 0);
  assert.ok(duration - buffered_s < holes_s, `${duration - buffered_s} s are not there`);
  assert.ok(totalVideoFrames >= stream.pictures * 0.95, `${totalVideoFrames} pictures were decoded`);
  assert.ok(audioBytes > 1000, `${audioBytes} bytes of sound were decoded`);
  // Forwards and backwards; then on from there.
  const places = (stream.greys ?? [0, 1, 2, 3]).map((grey, second) => [second + 0.5, stream.greys && luma(grey)]);
  for (const [at, grey] of [...places.slice(1).reverse(), ...places]) await seek(page, at, grey);
  await page.evaluate(() => video.play());
  const last = places.at(-1)[0];
  await page.waitForFunction((last) => video.currentTime > last + 0.3, last);
}

function luma(second) {
  return ((32 + 20 * second - 16) * 255) / 219;
}

/** Stops there, and waits until the picture of that instant is shown. */
async function seek(page, at, grey) {
  await page.evaluate((at) => (video.pause(), (video.currentTime = at)), at);
  const isShown = ([at, expected]) => {
    if (video.seeking || video.readyState < 2 || Math.abs(video.currentTime - at) > 0.001) return false;
    return expected === undefined || Math.abs(grey() - expected) < 8;
  };
  await page.waitForFunction(isShown, [at, grey ?? undefined], { polling: "raf" }).catch((error) => {
    error.message = `${at} s, to be grey ${grey}: ${error.message}`;
    throw error;
  });
}

const players = [["hls.js", "HLS"], ["Shaka", "HLS"], ["Shaka", "DASH"]];
const jobs = [];
for (const [player, kind] of players) {
  const breaks = kind === "HLS" ? { DiscontinuityMode: "ON_DISCONTINUITY" } : {};
  jobs.push(job("gap", player, kind, whole, breaks));
  jobs.push(job("bbb", player, kind, whole));
  // Of HLS that has a discontinuity between all fragments, if nothing is said.
  jobs.push(job("grey", player, kind, served));
  jobs.push(job("grey", player, kind, whole));
  for (const stream of ["av1", "vp9", "aac", "opus"]) jobs.push(job(stream, player, kind, whole));
  if (kind === "HLS") jobs.push(job("grey", player, kind, whole, { ContainerFormat: "MPEG_TS" }));
}
await play({ endpoint, id, secret, executablePath, jobs, together: 6 });
