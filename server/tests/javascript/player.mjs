// A browser, the page in it that plays session URLs, and the sessions. The page comes from an origin of its own, as those of users do.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import * as kept from "@aws-sdk/client-kinesis-video-archived-media";
import { chromium } from "playwright-core";

const resolve = createRequire(import.meta.url).resolve;
const beside = (name) => new URL(name, import.meta.url);
/** As the page asks for it: type, where it is. */
const files = {
  "/": ["text/html", beside("page.html")],
  "/page.js": ["text/javascript", beside("page.js")],
  "/hls.js": ["text/javascript", resolve("hls.js/dist/hls.min.js")],
  "/shaka.js": ["text/javascript", resolve("shaka-player/dist/shaka-player.compiled.js")],
};

/**
 * Runs jobs in pages of their own, so many at the same time. Each is a name, a player (`hls.js`, `Shaka`), members of the request for
 * a session of `kind` (`HLS`, `DASH`), and `watch(page, job)`, which looks at what is played. No fault is let pass but what `tolerates`.
 */
export async function play({ endpoint, id, secret, executablePath, jobs, together }) {
  const server = createServer((request, answer) => {
    const [type, path] = files[request.url] ?? [];
    if (path) answer.writeHead(200, { "content-type": type }).end(readFileSync(path));
    else answer.writeHead(404).end();
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  const origin = `http://127.0.0.1:${server.address().port}`;
  assert.notEqual(origin, endpoint);
  const credentials = { accessKeyId: id, secretAccessKey: secret };
  const client = new kept.KinesisVideoArchivedMediaClient({ region: "eu-central-1", endpoint, credentials });
  // Playing is not to wait for a click.
  const args = ["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"];
  const browser = await chromium.launch({ executablePath, args });
  try {
    const [left, failed] = [[...jobs], []];
    const work = async () => {
      for (let job = left.shift(); job; job = left.shift()) {
        await one(browser, origin, client, job).catch((error) => failed.push(error));
      }
    };
    await Promise.all(Array.from({ length: together }, work));
    if (failed.length > 0) throw new Error(failed.map((error) => `${error.stack}: ${error.cause}`).join("\n\n"));
  } finally {
    await browser.close();
    server.close();
    client.destroy();
  }
}

async function one(browser, origin, client, job) {
  const { name, player, kind, request, watch } = job;
  const answer = await client.send(new kept[`Get${kind}StreamingSessionURLCommand`](request));
  const page = await browser.newPage();
  page.setDefaultTimeout(60_000);
  const faults = [];
  page.on("pageerror", (error) => faults.push(error.message));
  page.on("response", (response) => {
    const isIcon = response.url().endsWith("/favicon.ico");
    if (response.status() >= 400 && !isIcon) faults.push(`${response.status()} ${response.url()}`);
  });
  await page.goto(`${origin}/`);
  // What the machine's Chromium cannot decode would be no fault of a session.
  const plays = (type) => page.evaluate((type) => MediaSource.isTypeSupported(type), type);
  assert.ok(await plays('video/mp4; codecs="avc1.64001f, mp4a.40.2"'), "this Chromium has no H.264 or AAC");
  try {
    await page.evaluate(([player, url]) => play(player, url), [player, answer[`${kind}StreamingSessionURL`]]);
    await watch(page, job);
    faults.push(...(await page.evaluate(() => faults)));
    assert.deepEqual(faults.filter((fault) => !job.tolerates?.test(fault)), []);
  } catch (error) {
    const state = await page.evaluate(() => state()).catch(() => undefined);
    throw new Error(`${name}, ${player}, ${kind}\n${faults.join("\n")}\n${JSON.stringify(state)}`, { cause: error });
  } finally {
    await page.close();
  }
}
