// Walks through the console in Chromium: node console.mjs URL ID SECRET CHROMIUM. The server has the stream `grey`: ten seconds from
// 2026-01-01T12:00:00Z on, second n with luma 32 + 20 n. Exit status 0 only if all was as it should be.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const [base, id, secret, executablePath] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
try {
  for (const colorScheme of ["light", "dark"]) await walk(colorScheme);
} finally {
  await browser.close();
}

async function walk(colorScheme) {
  const context = await browser.newContext({ colorScheme, timezoneId: "UTC", viewport: { width: 1280, height: 900 } });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  const faults = [];
  page.on("pageerror", (error) => faults.push(error.message));
  page.on("console", (line) => line.text().includes("Content Security Policy") && faults.push(line.text()));
  page.on("request", (request) => !/^(data|blob):/.test(request.url()) && !request.url().startsWith(base) && faults.push(request.url()));

  await page.goto(`${base}/`);
  await page.fill("input[name=id]", id);
  await page.fill("input[name=secret]", "wrong-secret");
  await page.click("button[type=submit]");
  await page.waitForSelector("[role=alert]:not(:empty)");
  await accessible(page);
  await page.fill("input[name=secret]", secret);
  await page.click("button[type=submit]");

  // A picture on the wall, and nothing where the filter leaves nothing.
  await page.waitForSelector(".wall img");
  assert.equal(await page.locator(".wall li").count(), 2);
  await accessible(page);
  await page.fill("input[type=search]", "no such stream");
  await page.waitForSelector("text=0 of 2");

  // The picture shown is the one of that instant: by the address, by the form.
  await page.goto(`${base}/console/#/stream/grey?at=2026-01-01T12:00:02Z`);
  await shows(page, 2);
  await page.fill("input[type=datetime-local]", "2026-01-01T12:00:07");
  await page.click("button:text-is('Go')");
  await shows(page, 7);
  await page.click("button:text-is('Mark start')");
  await page.fill("input[type=datetime-local]", "2026-01-01T12:00:04");
  await page.click("button:text-is('Go')");
  await shows(page, 4);
  assert.equal(await page.locator("text=Download MP4").count(), 0, "no range without an end");
  await page.click("button:text-is('Mark start')");
  await page.focus(".timeline canvas");
  await page.keyboard.press("End");
  await shows(page, 8);
  await page.click("button:text-is('Mark end')");
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("text=Download MP4")]);
  const clip = readFileSync(await download.path());
  assert.equal(clip.toString("latin1", 4, 8), "ftyp");
  await accessible(page);

  // The head plays, by parts that are made as it is recorded, and says how far it is behind.
  const part = page.waitForResponse((response) => /\/v1\/\d+-\d+-\d+\.m4s/.test(response.url()) && response.ok());
  await page.goto(`${base}/console/#/stream/camera`);
  await part;
  await page.waitForSelector(".behind:text-matches('^\\\\d+\\\\.\\\\d s behind')");
  const from = await page.evaluate(() => document.querySelector("video").currentTime);
  await page.waitForFunction((from) => document.querySelector("video").currentTime > from + 2, from);
  // A frame is as long as this stream says.
  await page.evaluate(() => document.querySelector("video").pause());
  const at = await page.evaluate(() => document.querySelector("video").currentTime);
  await page.click("[aria-label='One frame back']");
  const stepped = at - (await page.evaluate(() => document.querySelector("video").currentTime));
  assert.ok(Math.abs(stepped - 0.02) < 0.003, `${stepped} s are no frame`);

  await page.goto(`${base}/console/#/search?q=kind%3Afragment%20stream%3Agrey`);
  await page.waitForSelector("text=10 found");
  await accessible(page);
  // Counted over time and by what there is; a bar leads to what is in it.
  await page.waitForFunction(() => document.querySelectorAll(".histogram a").length === 10);
  await page.click(".histogram a:nth-child(4)");
  await page.waitForSelector("text=1 found");
  assert.ok((await page.textContent("tbody tr td")).includes("12:00:03.000"));
  await page.goto(`${base}/console/#/search?q=kind%3Afragment%20stream%3Agrey%20OR%20stream%3Anone`);
  await page.waitForSelector("h2:text-is('Codecs')");
  await page.click(".facets a:text-is('h264')");
  await page.waitForFunction(() => location.hash.endsWith(encodeURIComponent("(kind:fragment stream:grey OR stream:none) codec:h264")));
  await page.waitForSelector("text=10 found");
  await page.click("tbody tr:last-child a");
  await shows(page, 0);
  await page.goto(`${base}/console/#/search?q=width%3Ax`);
  await page.waitForSelector("[role=alert]:has-text('byte 6')");

  // What would go is said before it may be saved.
  await page.goto(`${base}/console/#/operate`);
  await page.fill("tbody input", "2000");
  assert.equal(await page.locator("text=Save").count(), 0);
  await page.click("text=What would go?");
  await page.waitForSelector("text=/would go/");
  await accessible(page);

  await page.goto(`${base}/console/#/start`);
  await page.fill("input", "grey");
  await page.waitForSelector("[role=status]:has-text('grey is')");
  await accessible(page);

  // An address that a person got wrong is told, and breaks nothing.
  await page.goto(`${base}/console/#/stream/%`);
  await page.waitForSelector("[role=alert]:not(:empty)");

  // Nothing of a session is within reach of scripts, and it ends.
  assert.equal(await page.evaluate(() => document.cookie), "");
  assert.equal(await page.evaluate(() => localStorage.length + sessionStorage.length), 0);
  await page.click("text=Sign out");
  await page.waitForSelector("input[name=secret]");
  assert.equal(await page.evaluate(async () => (await fetch("/v1/streams", { headers: { "Vidar-Console": "1" } })).status), 401);
  assert.deepEqual(faults, []);
  await context.close();
}

/** WCAG A and AA by axe, from outside of the page: its policy lets no script of others in. */
async function accessible(page) {
  const session = await page.context().newCDPSession(page);
  await session.send("Runtime.evaluate", { expression: `${axe};0` });
  const found = await page.evaluate(async () => {
    const { violations } = await window.axe.run();
    return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target).join(", ")}`);
  });
  assert.deepEqual(found, [], page.url());
}

/** Stops at the first picture from that second on, and reads second and grey of what is shown. */
async function shows(page, second) {
  const clock = /12:00:(\d\d)\.\d\d\d/;
  const from = String(second).padStart(2, "0");
  await page.waitForFunction(
    (from) => {
      const video = document.querySelector("video");
      const at = /12:00:(\d\d)/.exec(document.querySelector(".clock")?.textContent ?? "")?.[1];
      if (!video || video.readyState < 2 || video.seeking || video.currentTime === 0) return false;
      if (at === undefined || at < from || Number(at) > Number(from) + 2) return false;
      video.pause();
      return true;
    },
    from,
    { polling: "raf" },
  );
  const seeked = page.evaluate(() => new Promise((done) => document.querySelector("video").addEventListener("seeked", done, { once: true })).then(() => {}));
  await page.click("[aria-label='One frame on']");
  await seeked;
  await page.waitForFunction(() => document.querySelector("video").paused);
  const grey = await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [1, 1];
    const context = canvas.getContext("2d");
    context.drawImage(document.querySelector("video"), 0, 0, 1, 1);
    done(context.getImageData(0, 0, 1, 1).data[0]);
  }))));
  const shown = Number(clock.exec(await page.textContent(".clock"))[1]);
  assert.ok(shown >= second && shown <= second + 3, `${shown} instead of ${second}`);
  const expected = ((32 + 20 * shown - 16) * 255) / 219;
  assert.ok(Math.abs(grey - expected) < 10, `second ${shown} is to be ${expected}, and is ${grey}`);
}
