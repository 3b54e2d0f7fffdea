// Sessions of a stream that is pushed to meanwhile, at real time: node live.mjs ENDPOINT ID SECRET CHROMIUM STREAM.
//
// Second n of the push has luma 32 + 20 (n mod 10). Exit status 0 only if each player went on at the head.
import assert from "node:assert/strict";
import { play } from "./player.mjs";

const [endpoint, id, secret, executablePath, StreamName] = process.argv.slice(2);
/** How long each is watched, by the media's clock. */
const WATCHED_S = 15;
/** Fragments of a second; a playlist of five of them. hls.js and Shaka stay three behind, and a fragment is listed when it has ended. */
const BEHIND_S_MAX = 10;

async function watch(page, { dated }) {
  await page.waitForFunction(() => video.currentTime > 0 && shown.length > 25);
  const first = await page.evaluate(() => ({ at: video.currentTime, now: Date.now() }));
  await page.waitForFunction((until) => video.currentTime > until, first.at + WATCHED_S);
  const last = await page.evaluate(() => ({ at: video.currentTime, now: Date.now(), behind: behind(), date: playingDate(), ...state() }));
  // It neither falls behind, nor leaves anything out.
  const [played, took] = [last.at - first.at, (last.now - first.now) / 1000];
  assert.ok(Math.abs(played - took) < 3, `${played} s in ${took} s`);
  assert.ok(last.behind < BEHIND_S_MAX, `${last.behind} s behind what is listed`);
  if (dated) {
    const late = (last.now - last.date) / 1000;
    assert.ok(late > 0 && late < BEHIND_S_MAX, `${late} s behind the camera`);
  }
  assert.ok(last.totalVideoFrames > WATCHED_S * 25 * 0.9, `${last.totalVideoFrames} pictures were decoded`);
  assert.ok(last.audioBytes > 10_000, `${last.audioBytes} bytes of sound were decoded`);
  // One second after another, as they were pushed.
  const seconds = (await page.evaluate(() => shown)).map(({ grey }) => Math.round(((grey * 219) / 255 + 16 - 32) / 20));
  const turns = seconds.filter((second, index) => index > 0 && second !== seconds[index - 1]);
  const steps = turns.filter((second, index) => index > 0 && second === (turns[index - 1] + 1) % 10).length;
  assert.ok(steps >= WATCHED_S - 3, `${turns}`);
}

const selected = (kind) => ({ [`${kind}FragmentSelector`]: { FragmentSelectorType: "PRODUCER_TIMESTAMP" }, DisplayFragmentTimestamp: "ALWAYS" });
function job(player, kind, more = {}) {
  // A player knows dates from the playlist's, or from a dynamic manifest.
  const dated = kind === "DASH" || "DisplayFragmentTimestamp" in more;
  // Where the machine is slow for a moment hls.js reports it, and goes on; how it went on is measured.
  const tolerates = /(bufferStalledError|bufferSeekOverHole|aborted) false/;
  return { name: JSON.stringify(more), player, kind, request: { StreamName, ...more }, watch, dated, tolerates };
}

const jobs = [
  job("hls.js", "HLS"),
  job("Shaka", "HLS"),
  job("Shaka", "DASH"),
  job("hls.js", "HLS", selected("HLS")),
  job("Shaka", "HLS", selected("HLS")),
  job("Shaka", "DASH", selected("DASH")),
];
await play({ endpoint, id, secret, executablePath, jobs, together: 3 });
