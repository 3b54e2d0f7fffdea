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
  const config = { region: "eu-central-1", endpoint, credentials, maxAttempts: 1 };
  // Playing is not to wait for a click.
  const args = ["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"];
  const browser = await chromium.launch({ executablePath, args });
  try {
    const [left, failed] = [[...jobs], []];
    const work = async () => {
      for (let job = left.shift(); job; job = left.shift()) {
        await one(browser, origin, config, job).catch((error) => failed.push(error));
      }
    };
    await Promise.all(Array.from({ length: together }, work));
    if (failed.length > 0) throw new Error(failed.map((error) => `${error.stack}: ${error.cause}`).join("\n\n"));
  } finally {
    await browser.close();
    server.close();
  }
}

/** What sends a client's requests from the page, as the SDK does where it runs in a browser: by fetch, with its preflights. */
function sentBy(page) {
  async function handle({ protocol, hostname, port, path, method, headers, body }) {
    const ask = async ([url, init]) => {
      const answer = await fetch(url, init);
      return { statusCode: answer.status, headers: Object.fromEntries(answer.headers), text: await answer.text() };
    };
    const asked = [`${protocol}//${hostname}:${port}${path}`, { method, headers, body: new TextDecoder().decode(body) }];
    const { statusCode, headers: told, text } = await page.evaluate(ask, asked);
    return { response: { statusCode, headers: told, body: Buffer.from(text) } };
  }
  return { handle, metadata: { handlerProtocol: "http/1.1" }, updateHttpClientConfig() {}, httpHandlerConfigs: () => ({}) };
}

/** The URL of a session, which the page asks for by itself; before that, why there is none of another stream. */
async function open(page, config, kind, request) {
  const client = new kept.KinesisVideoArchivedMediaClient({ ...config, requestHandler: sentBy(page) });
  const ask = (request) => client.send(new kept[`Get${kind}StreamingSessionURLCommand`](request));
  const isTold = (error) => error instanceof kept.ResourceNotFoundException && error.$metadata.requestId !== undefined;
  await assert.rejects(ask({ ...request, StreamName: "nowhere" }), isTold);
  return (await ask(request))[`${kind}StreamingSessionURL`];
}

async function one(browser, origin, config, job) {
  const { name, player, kind, request, watch } = job;
  const page = await browser.newPage();
  page.setDefaultTimeout(60_000);
  const faults = [];
  page.on("pageerror", (error) => faults.push(error.message));
  await page.goto(`${origin}/`);
  // What the machine's Chromium cannot decode would be no fault of a session.
  const plays = (type) => page.evaluate((type) => MediaSource.isTypeSupported(type), type);
  assert.ok(await plays('video/mp4; codecs="avc1.64001f, mp4a.40.2"'), "this Chromium has no H.264 or AAC");
  try {
    const url = await open(page, config, kind, request);
    page.on("response", (response) => response.status() >= 400 && faults.push(`${response.status()} ${response.url()}`));
    await page.evaluate(([player, url]) => play(player, url), [player, url]);
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
