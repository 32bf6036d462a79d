// The web page in headless Chromium: draw, watch, cancel, reload, bad input, phone, keyboard, dark.
// With a folder as third argument, screenshots are left there.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { need, run, serve } from "./server.mjs";

need("playwright-core");
const chromium = ["/usr/bin/chromium", "/usr/bin/chromium-browser"].find(existsSync);
if (!chromium) {
  console.log("skipped: there is no chromium");
  process.exit(77);
}
const { chromium: engine } = await import("playwright-core");
const browser = await engine.launch({ executablePath: chromium, args: ["--no-sandbox"] });
const shots = process.argv[3];

async function open(server, options = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const problems = [];
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("console", (m) => {
    if (m.type() === "error" && !m.text().includes("status of")) problems.push(m.text());
  });
  await page.goto(server.url);
  await page.waitForFunction(() => document.getElementById("size").options.length > 0);
  return { page, problems, context };
}

async function shot(page, name) {
  if (shots) await page.screenshot({ path: `${shots}/${name}.png`, fullPage: true });
}

async function draw(page, prompt, size = "256") {
  await page.fill("#prompt", prompt);
  await page.selectOption("#size", size);
  await page.click("#draw");
}

const done = (page, n = 1) => page.waitForFunction((count) =>
  document.querySelectorAll(".card .download:not([hidden])").length === count, n);

await run({
  async drawAndWatch() {
    const s = await serve({ FAKE_STEP_MS: "300" });
    const { page, problems } = await open(s);
    await shot(page, "1-empty");
    await draw(page, "a red sphere on a wooden table");
    await page.waitForSelector(".card.working img:not([hidden])");
    assert.match(await page.textContent(".card .state"), /Stage \d of 2, step \d+ of \d+/);
    const value = await page.$eval(".card progress", (p) => p.value);
    assert.ok(value > 0 && value < 1);
    await shot(page, "2-progress");
    await done(page);
    assert.match(await page.textContent(".card .state"), /256 px · seed \d+ · 8\+4 steps/);
    assert.equal(await page.$eval(".card img", (i) => i.naturalWidth), 256);
    assert.match(await page.textContent("#status"), /is done/);
    const [file] = await Promise.all([page.waitForEvent("download"), page.click(".download")]);
    assert.match(file.suggestedFilename(), /^imagend-\d+\.png$/);
    await page.click(".card img");
    await page.waitForSelector("dialog[open]");
    await page.keyboard.press("Escape");
    await page.click(".again");
    assert.match(await page.inputValue("#seed"), /^\d+$/);
    await page.fill("#count", "3");
    await draw(page, "three of them", "64");
    await done(page, 4);
    await shot(page, "3-gallery");
    assert.deepEqual(problems, []);
    assert.equal(await s.stop(), 0);
  },

  async cancelAndReload() {
    const s = await serve({ FAKE_STEP_MS: "700", FAKE_SLOTS: "1" });
    const { page, problems } = await open(s);
    await draw(page, "the first", "64");
    await draw(page, "the second", "64");
    await page.waitForFunction(() =>
      [...document.querySelectorAll(".state")].some((p) => /ahead|Next in line/.test(p.textContent)));
    await shot(page, "4-queue");
    await page.click(".card:first-child .cancel");
    await page.waitForFunction(() => document.querySelector(".card .state").textContent === "Cancelled");
    await page.reload();
    await page.waitForFunction(() => document.querySelectorAll(".card").length === 2);
    await page.waitForFunction(() =>
      [...document.querySelectorAll(".state")].some((p) => /Stage/.test(p.textContent)));
    await done(page);
    await page.click(".card.failed .remove");
    await page.waitForFunction(() => document.querySelectorAll(".card").length === 1);
    assert.deepEqual(problems, []);
    assert.equal(await s.stop(), 0);
  },

  async badInputInWords() {
    const s = await serve({ FAKE_STEP_MS: "1" });
    const { page } = await open(s);
    await page.click("#draw");
    assert.equal(await page.$eval("#prompt", (p) => p.validity.valueMissing), true);
    await page.click("summary");
    await page.fill("#prompt", "x");
    await page.fill("#seed", "12");
    await page.evaluate(() => document.getElementById("form").setAttribute("novalidate", ""));
    await page.fill("#steps", "5000");
    await page.click("#draw");
    await page.waitForFunction(() => document.getElementById("message").textContent.includes("steps"));
    await shot(page, "5-error");
    await page.fill("#steps", "");
    await draw(page, "[fail]", "64");
    await page.waitForFunction(() => document.querySelector(".card.failed .state")?.textContent
      .startsWith("Failed: "));
    await s.stop();
    await page.click("#draw");
    await page.waitForFunction(() => document.getElementById("message").textContent ===
      "The server cannot be reached.");
  },

  async phoneDarkKeyboard() {
    const s = await serve({ FAKE_STEP_MS: "5" });
    const { page, problems } = await open(s, { viewport: { width: 360, height: 740 },
      colorScheme: "dark", hasTouch: true, deviceScaleFactor: 2 });
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
    await page.keyboard.press("Enter");
    await page.keyboard.type("by keyboard alone");
    await page.keyboard.press("Control+Enter");
    await done(page);
    assert.equal(await page.evaluate(() =>
      document.documentElement.scrollWidth <= window.innerWidth), true, "no sideways scrolling");
    await shot(page, "6-phone");
    for (const button of await page.$$("button:visible, a.button:visible, input:visible"))
      assert.ok((await button.boundingBox()).height >= 40, "large enough to touch");
    const unnamed = await page.$$eval("input, select, textarea", (list) =>
      list.filter((e) => !e.labels.length).map((e) => e.id));
    assert.deepEqual(unnamed, []);
    assert.deepEqual(problems, []);
    assert.equal(await s.stop(), 0);
  },

  async docs() {
    const s = await serve();
    const { page } = await open(s);
    await page.click("nav a");
    assert.match(await page.textContent("main"), /POST \/v1\/jobs/);
    await shot(page, "7-docs");
    const api = await s.json("/openapi.json");
    assert.equal(api.openapi, "3.1.0");
    assert.ok(api.paths["/v1/jobs"].post && api.paths["/v1/jobs"].get);
    assert.equal(await s.stop(), 0);
  },
}).finally(() => browser.close());
