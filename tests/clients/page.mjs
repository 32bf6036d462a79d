// The web page in headless Chromium: draw, watch, cancel, reload, bad input, phone, keyboard, dark;
// axe-core checks each state against WCAG AA. With a folder as third argument, screenshots are left
// there.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { browser, done, draw, look, open, ready, said } from "./page_tools.mjs";
import { program, run, serve } from "./server.mjs";

await run({
  async drawAndWatch() {
    const s = await serve({ FAKE_STEP_MS: "20" });
    const { page, problems } = await open(s);
    await look(page, "1-empty");
    s.hold(2); // where the first preview has come
    await draw(page, "a red sphere on a wooden table");
    await page.waitForSelector(".card.working img:not([hidden])");
    assert.match(await page.textContent(".card .state"), /Stage \d of 2, step \d+ of \d+/);
    const value = await page.$eval(".card progress", (p) => p.value);
    assert.ok(value > 0 && value < 1);
    await look(page, "2-progress");
    // A page that comes late knows as much, although no step ends meanwhile.
    await page.reload();
    await page.waitForSelector(".card.working img:not([hidden])");
    assert.match(await page.textContent(".card .state"), /Stage 1 of 2, step 2 of \d+/);
    assert.equal(await page.$eval(".card progress", (p) => p.value), value);
    s.release();
    await done(page);
    assert.match(await page.textContent(".card .state"), /256 px · seed \d+ · 8\+4 steps/);
    await page.waitForFunction(() => document.querySelector(".card img").naturalWidth === 256);
    await said(page, "Done: a red sphere");
    const [file] = await Promise.all([page.waitForEvent("download"), page.click(".download")]);
    assert.match(file.suggestedFilename(), /^imagend-\d+\.png$/);
    await page.click(".again");
    assert.match(await page.inputValue("#seed"), /^\d+$/);
    await page.fill("#count", "3");
    await draw(page, "three of them", "64");
    await done(page, 4);
    await look(page, "3-gallery");
    assert.deepEqual(problems, []);
    assert.equal(await s.stop(), 0);
  },

  async examples() {
    const s = await serve({ FAKE_STEP_MS: "1" });
    const { page } = await open(s);
    await page.click("#examples button >> nth=1");
    await done(page);
    assert.equal(await page.textContent(".what"), await page.inputValue("#prompt"));
    assert.equal(await page.isVisible("#empty"), false);
    const readable = (url) => page.evaluate((u) => Object.assign(new Image(), { src: u }).decode()
      .then(() => true, () => false), url);
    const url = await page.getAttribute(".download", "href");
    assert.equal(await readable(url), true);
    await page.click(".remove");
    await page.waitForSelector("#empty:visible");
    assert.equal(await readable(url), false);    // an image of a removed card takes no memory
    assert.equal(await s.stop(), 0);
  },

  async preset() {
    const s = await serve({ FAKE_STEP_MS: "1" });
    const { page } = await open(s);
    await page.selectOption("#preset", "fast");
    await draw(page, "quickly");
    await done(page);
    assert.match(await page.textContent(".state"), / · 3\+2 steps · guidance 1\/1 · fast$/);
    await page.selectOption("#preset", "");
    await page.click(".again");
    assert.equal(await page.inputValue("#preset"), "fast");
    assert.equal(await s.stop(), 0);
  },

  async models() {
    const folder = mkdtempSync(join(tmpdir(), "imagend-models-"));
    const file = join(folder, "models");
    writeFileSync(file, "[photo]\nmodel = fake\n[missing]\nmodel = missing\n[draft]\nmodel = fake/small\n");
    const s = await serve({ FAKE_STEP_MS: "1" }, "--models-file", file);
    const { page, problems } = await open(s);
    const options = (id) => page.$$eval(`#${id} option:not([hidden])`, (all) => all.map((o) => o.value));
    assert.deepEqual(await options("model"), ["photo", "missing", "draft"]);
    assert.equal(await page.inputValue("#model"), "photo", "the default");
    assert.equal(await page.isVisible("#preset"), true);
    await page.selectOption("#preset", "fast");
    await page.selectOption("#size", "64");
    await page.selectOption("#model", "draft");
    await page.waitForSelector("#preset:not(:visible)", { state: "attached" });
    await look(page, "models");
    assert.equal(await page.inputValue("#size"), "64", "a size of both");
    assert.ok(!(await options("size")).includes("1024") && (await options("size")).includes("256"));
    await draw(page, "with the other model", "64");
    await done(page);
    assert.match(await page.textContent(".state"), /^64 px · .* · draft$/);
    await page.selectOption("#model", "photo");
    await page.waitForSelector("#preset:visible");
    await page.click(".again");
    await page.waitForFunction(() => document.querySelector("#model").value === "draft");
    await page.selectOption("#model", "missing");
    await page.waitForFunction(() => document.body.textContent.includes("cannot be loaded"));
    assert.ok(!problems.some((p) => !p.includes("503")), problems);
    assert.equal(await s.stop(), 0);
    rmSync(folder, { recursive: true });
  },

  async known() {
    const folder = mkdtempSync(join(tmpdir(), "imagend-wordy-"));
    writeFileSync(join(folder, "vocabulary.json"), JSON.stringify({ format: 1, colours: { red: ["red"] }, other_words: ["a"],
      nouns: [{ name: "cat", category: "animals", words: ["cat", "kitten"], languages: { es: ["pingüino"] }, example: "a cat in the snow" },
        { name: "hat", category: "clothes", words: ["hat"] }], shapes: [{ name: "star", words: ["star"] }] }));
    const s = await serve({ FAKE_STEP_MS: "1" }, "--model", folder);
    const { page, problems } = await open(s);
    const shown = () => page.$$eval("#known-list button:not([hidden])", (all) => all.map((b) => b.textContent));
    assert.equal(await page.textContent("#known-title"), "What this model knows (3)");
    await page.click("#known-title");
    assert.deepEqual(await shown(), ["cat", "hat", "star"]);
    assert.equal(await page.textContent("#known-more"), "Colors: red.");
    await look(page, "known");
    for (const [asked, names] of [["Kitt", ["cat"]], ["PINGUI", ["cat"]], ["clothes", ["hat"]], ["zebra", []], ["a t", ["cat", "hat", "star"]]]) {
      await page.fill("#known-search", asked);
      assert.deepEqual(await shown(), names, asked);
    }
    await page.fill("#known-search", "zebra");
    assert.equal(await page.textContent("#known-count"), "The model knows nothing of this name.");
    await page.press("#known-search", "Enter");
    assert.equal((await s.json("/v1/jobs")).data.length, 0, "searching draws nothing");
    await page.fill("#known-search", "cat");
    await page.click("#known-list button:not([hidden])");
    await done(page);
    assert.equal((await s.json("/v1/jobs")).data[0].request.prompt, "a cat in the snow");
    await draw(page, "a bat", "64");
    await done(page, 2);
    assert.match(await page.textContent(".card .warning"), /^The model knows nothing .* it knows cat, hat or star\.$/);
    assert.deepEqual(problems, []);
    assert.equal(await s.stop(), 0);
    rmSync(folder, { recursive: true });
  },

  async loras() {
    const folder = mkdtempSync(join(tmpdir(), "imagend-loras-")), file = join(folder, "models");
    writeFileSync(file, "[photo]\nmodel = fake\nlora = fox.safetensors:0.5,a/twin.safetensors,b/twin.safetensors\n" +
      "lora-choices = " + [1, 2, 3, 4, 5, 6, 7, 8].map((n) => `style-${n}.safetensors:${n}`).join() +
      "\n[draft]\nmodel = fake/small\n");
    const s = await serve({ FAKE_STEP_MS: "1" }, "--models-file", file);
    const { page, problems } = await open(s);
    const asked = async () => (await s.json("/v1/jobs")).data[0].request.loras;
    const box = (name) => page.getByRole("checkbox", { name }), scale = (name) => page.getByLabel("Scale of " + name);
    const chosen = () => page.$$eval("#lora-list :checked", (all) => all.map((c) => c.labels[0].textContent));
    assert.deepEqual(await chosen(), ["fox"], "the default; a name of two files is not offered");
    assert.equal(await scale("fox").inputValue(), "0.5");
    assert.equal(await scale("style-1").isVisible(), false);
    await look(page, "loras");
    await draw(page, "as the service draws", "64");
    await done(page);
    assert.equal(await asked(), "fox:0.5", "the default of the stage that ran");
    await box("style-1").check();
    await scale("style-1").fill("");
    await box("fox").uncheck();
    await box("style-2").check();
    await scale("style-2").fill("-0.25");
    await draw(page, "with two others", "1024");
    await done(page, 2);
    assert.equal(await asked(), "style-1:1, style-2:-0.25");
    assert.match(await page.textContent(".card .state"), / · LoRAs style-1:1, style-2:-0.25 · photo$/);
    await look(page, "loras-two");
    await box("style-1").uncheck();
    await box("style-2").uncheck();
    await draw(page, "with none", "64");
    await done(page, 3);
    assert.equal(await asked(), null);
    // Each image's own, also from another model.
    await page.selectOption("#model", "draft");
    await page.waitForSelector("#loras:not(:visible)", { state: "attached" });
    await page.click(".card:nth-child(2) .again");
    await page.waitForSelector("#loras:visible");
    await page.waitForFunction(() => document.querySelector("#prompt").value === "with two others");
    assert.deepEqual(await chosen(), ["style-1", "style-2"]);
    assert.deepEqual([await scale("style-1").inputValue(), await scale("style-2").inputValue()], ["1", "-0.25"]);
    await page.click(".card:nth-child(1) .again");
    assert.deepEqual(await chosen(), []);
    await page.click(".card:nth-child(3) .again");
    assert.deepEqual(await chosen(), ["fox"]);
    // A request names at most 8 of the 9.
    for (let n = 1; n <= 7; n++) await box("style-" + n).check();
    assert.equal(await box("style-8").isDisabled(), true);
    assert.equal(await page.textContent("#lora-help:visible"), "up to 8 at once");
    await look(page, "loras-full");
    await box("fox").uncheck();
    assert.equal(await box("style-8").isDisabled(), false);
    // What the server refuses is said at the list.
    await page.evaluate(() => document.getElementById("form").setAttribute("novalidate", ""));
    await scale("style-1").fill("1000");
    await page.click("#draw");
    await page.waitForFunction(() => /^LoRAs.* 1000\.$/.test(document.getElementById("message").textContent));
    assert.equal(await page.evaluate(() => document.activeElement.closest("#loras") !== null), true);
    assert.deepEqual(problems, []);
    assert.equal(await s.stop(), 0);
    rmSync(folder, { recursive: true });
  },

  async lostLora() {
    const s = await serve({ FAKE_STEP_MS: "1" }, "--lora-choices", "fox.safetensors");
    const { page } = await open(s);
    await page.getByRole("checkbox", { name: "fox" }).check();
    await draw(page, "a fox", "64");
    await done(page);
    await page.route("**/v1/capabilities", async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, json: { ...await response.json(), loras: [] } });
    });
    await page.reload();
    await done(page);
    assert.equal(await page.isVisible("#loras"), false);
    await page.click(".again");
    await page.waitForFunction(() => document.getElementById("message").textContent ===
      'The model no longer has the LoRA "fox".');
    assert.equal(await s.stop(), 0);
  },

  async viewerAndSeed() {
    const s = await serve({ FAKE_STEP_MS: "1" });
    const { page, context } = await open(s);
    await context.grantPermissions(["clipboard-read", "clipboard-write"]);
    await page.click("#more summary");
    await page.fill("#steps", "3");
    await page.fill("#guidance", "2.5");
    await page.fill("#count", "3");
    await draw(page, "one of three", "64");
    await done(page, 3);
    await said(page, "Done: one of three");
    await page.focus(".open");
    await page.keyboard.press("Enter");
    await page.waitForSelector("dialog[open]");
    assert.equal(await page.isDisabled("#previous"), true);
    await page.keyboard.press("ArrowRight");
    assert.equal(await page.textContent("#caption"), "one of three, 2 of 3");
    await page.click("#next");
    assert.equal(await page.isDisabled("#next"), true);
    await look(page, "8-viewer");
    await page.keyboard.press("Escape");
    await page.waitForFunction(() => document.activeElement.className === "open");
    await page.click(".copy");
    await page.waitForFunction(() => /^Seed \d+ copied$/.test(
      document.getElementById("status").textContent));
    const seed = await page.evaluate(() => navigator.clipboard.readText());
    assert.ok((await page.textContent(".state")).includes("seed " + seed));
    // The second picture of a job comes again, bit for bit, also after a reload.
    await page.reload();
    await done(page, 3);
    const drawn = (named, index) => page.evaluate(async ([words, i]) => {
      const card = [...document.querySelectorAll(".card")].find((c) =>
        c.querySelector(".state").textContent.startsWith(words));
      const answer = await fetch("v1/jobs/" + card.dataset.job + "/images/" + i);
      return [...new Uint8Array(await answer.arrayBuffer())].join();
    }, [named, index]);
    const before = await drawn("2 of 3", 1);
    await page.click(".card:nth-child(2) .again");
    assert.deepEqual(await Promise.all(["seed", "picture", "count", "steps", "guidance"].map((id) =>
      page.inputValue("#" + id))), [seed, "1", "1", "3", "2.5"]);
    await page.click("#draw");
    await done(page, 4);
    assert.ok(before.startsWith("137,80,78,71,"));
    assert.equal(await drawn("image number 1", 0), before);
    await page.click("#seed-clear");
    assert.equal(await page.inputValue("#seed") + await page.inputValue("#picture"), "");
    assert.equal(await s.stop(), 0);
  },

  async shapesAndWarnings() {
    const s = await serve({ FAKE_STEP_MS: "1" });
    const { page, problems } = await open(s);
    await draw(page, "a tall picture of a tower", "512x768");
    await done(page);
    await page.waitForFunction(() => document.querySelector(".card img").naturalWidth === 512 &&
      document.querySelector(".card img").naturalHeight === 768);
    assert.match(await page.textContent(".card .state"), /^512 × 768 px · /);
    assert.equal(await page.isVisible(".card .warning"), false);
    await draw(page, "word ".repeat(99), "64");
    await page.waitForSelector(".card:first-child .warning:not([hidden])");
    assert.equal(await page.textContent(".card:first-child .warning"),
      "The prompt has 100 tokens, but the text encoder reads only the first 77; the other 23 were " +
      "cut off.");
    await page.click(".card:nth-child(2) .again");
    assert.equal(await page.inputValue("#size"), "512x768");
    await look(page, "9-shapes");
    assert.deepEqual(problems, []);
    assert.equal(await s.stop(), 0);
  },

  async cancelAndReload() {
    const s = await serve({ FAKE_STEP_MS: "500", FAKE_SLOTS: "1" });
    const { page, problems } = await open(s);
    await page.click("#more summary");
    await page.fill("#steps", "300");
    await draw(page, "the first", "64");
    await draw(page, "the second", "64");
    await page.waitForFunction(() => [...document.querySelectorAll(".state")].some((p) =>
      /ahead|Next in line/.test(p.textContent)));
    await look(page, "4-queue");
    await page.click(".card:first-child .cancel");
    await page.waitForSelector(".card:first-child .end:visible");
    assert.equal(await page.textContent(".card .end"), "Cancelled");
    await page.reload();
    await page.waitForFunction(() => document.querySelectorAll(".card").length === 2);
    await page.waitForFunction(() => /^[1-9]\d*% · imagend$/.test(document.title));
    await look(page, "9-cancelled");
    await page.click(".card.working .cancel");
    await page.waitForFunction(() => document.querySelectorAll(".card.failed").length === 2);
    assert.equal(await page.title(), "imagend");
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
    await page.click("#more summary");
    await page.fill("#prompt", "x");
    await page.fill("#seed", "12");
    await page.evaluate(() => document.getElementById("form").setAttribute("novalidate", ""));
    await page.fill("#steps", "5000");
    await page.click("#draw");
    await page.waitForFunction(() => document.getElementById("message").textContent ===
      "Steps must be an integer from 1 to 1000, not 5000.");
    assert.equal(await page.evaluate(() => document.activeElement.id), "steps");
    assert.equal(await page.getAttribute("#steps", "aria-invalid"), "true");
    await look(page, "5-error");
    await page.fill("#steps", "");
    await draw(page, "[fail]", "64");
    await page.waitForSelector(".card.failed.error");
    assert.equal(await page.textContent(".card .end"), "Failed");
    assert.match(await page.textContent(".card .state"), /^[A-Z].{4,}\.$/);
    assert.equal(await page.getAttribute("#steps", "aria-invalid"), null);
    await look(page, "10-failed");
    await s.stop();
    await page.click("#draw");
    await page.waitForFunction(() => document.getElementById("message").textContent ===
      "Cannot reach the server.");
  },

  async apiKey() {
    const folder = mkdtempSync(join(tmpdir(), "imagend-client-"));
    const [key, line] = execFileSync(program, ["config", "key", "someone"], { encoding: "utf8" })
      .split("\n").map((text) => text.split(": ")[1]);
    writeFileSync(join(folder, "keys"), line + "\n");
    const s = await serve({ FAKE_STEP_MS: "1" }, "--keys-file", join(folder, "keys"));
    const { page } = await open(s, { locked: true });
    await page.waitForSelector("#key:visible");
    assert.equal(await page.textContent("#server"), "This server requires an API key.");
    await look(page, "11-key");
    await page.fill("#key", "ik_wrong");
    await page.press("#key", "Tab");
    await page.waitForFunction(() => document.getElementById("server").textContent ===
      "This API key is not valid.");
    await page.fill("#key", key);
    await page.press("#key", "Tab");
    await ready(page);
    assert.equal(await page.isVisible("#key"), false);
    await draw(page, "with a key");
    await done(page);
    await page.reload();
    await ready(page);
    await done(page);
    assert.equal(await page.isVisible("#key"), false);
    assert.equal(await s.stop(), 0);
    rmSync(folder, { recursive: true });
  },

  async phoneDarkKeyboard() {
    const s = await serve({ FAKE_STEP_MS: "5" });
    const { page, problems } = await open(s, { viewport: { width: 360, height: 740 },
      colorScheme: "dark", hasTouch: true, deviceScaleFactor: 2 });
    await look(page, "6-phone-empty");
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.activeElement.id === "prompt");
    await page.keyboard.type("by keyboard alone");
    await page.keyboard.press("Control+Enter");
    await done(page);
    assert.equal(await page.evaluate(() =>
      document.documentElement.scrollWidth <= window.innerWidth), true, "no sideways scrolling");
    assert.ok(await page.$eval(".card", (c) => c.getBoundingClientRect().top < window.innerHeight),
      "the new image is in sight");
    await look(page, "6-phone");
    for (const button of await page.$$("button:visible, a.button:visible, input:visible"))
      assert.ok((await button.boundingBox()).height >= 40, "large enough to touch");
    assert.deepEqual(problems, []);
    assert.equal(await s.stop(), 0);
  },

  async docs() {
    const s = await serve();
    const { page } = await open(s);
    await page.click("nav a");
    await page.waitForURL("**/docs");
    assert.match(await page.textContent("main"), /POST \/v1\/jobs/);
    await look(page, "7-docs");
    const api = await s.json("/openapi.json");
    assert.equal(api.openapi, "3.1.0");
    assert.ok(api.paths["/v1/jobs"].post && api.paths["/v1/jobs"].get);
    assert.equal(await s.stop(), 0);
  },
}).finally(() => browser.close());
