// The web page's editor in headless Chromium: an input image by file, drop, paste and from a
// result; marks, paint, strength, undo, comparison, upscaling; by mouse, touch and keyboard. Run as
// page.mjs.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { browser, done, draw, look, open, said } from "./page_tools.mjs";
import { run, serve } from "./server.mjs";

// A server that notes what reaches the engine.
async function start(flags = []) {
  const folder = mkdtempSync(join(tmpdir(), "imagend-seen-")), file = join(folder, "seen");
  const s = await serve({ FAKE_STEP_MS: "1", FAKE_SEEN: file }, ...flags);
  const stop = s.stop;
  return Object.assign(s, {
    // What the engine was given of each image that has an input.
    seen: () => readFileSync(file, "utf8").trim().split("\n").map((line) => JSON.parse(line).edit)
      .filter(Boolean),
    async stop() {
      const code = await stop();
      rmSync(folder, { recursive: true });
      return code;
    },
  });
}

// A file that the page's browser makes: four fields of colour, the right half clear if asked.
async function file(page, width, height, { type = "image/png", clear = false } = {}) {
  const data = await page.evaluate(async ([w, h, kind, half]) => {
    const canvas = document.createElement("canvas"), ctx = canvas.getContext("2d");
    [canvas.width, canvas.height] = [w, h];
    ["#d03030", "#30a040", "#3050d0", "#d0c040"].forEach((colour, i) => {
      ctx.fillStyle = colour;
      ctx.fillRect(i % 2 * w / 2, i < 2 ? 0 : h / 2, w / 2, h / 2);
    });
    if (half) ctx.clearRect(w / 2, 0, w / 2, h);
    return canvas.toDataURL(kind);
  }, [width, height, type, clear]);
  return { name: "input." + type.split("/")[1], mimeType: type,
    buffer: Buffer.from(data.split(",")[1], "base64") };
}

async function openFile(page, image) {
  await page.setInputFiles("#file", image);
  await page.waitForSelector("#editor:visible");
}

// Points in fractions of the canvas.
async function brush(page, points) {
  const box = await page.locator("#canvas").boundingBox();
  const at = ([x, y]) => [box.x + x * box.width, box.y + y * box.height];
  await page.mouse.move(...at(points[0]));
  await page.mouse.down();
  for (const point of points.slice(1)) await page.mouse.move(...at(point), { steps: 5 });
  await page.mouse.up();
}

// A pixel of what the canvas shows, at a fraction of it.
const pixel = (page, x, y) => page.evaluate(([fx, fy]) => new Promise((found) =>
  requestAnimationFrame(() => requestAnimationFrame(() => {
    const canvas = document.getElementById("canvas");
    const { data } = canvas.getContext("2d").getImageData(fx * canvas.width, fy * canvas.height, 1, 1);
    found([...data.slice(0, 3)].map((v) => v.toString(16).padStart(2, "0")).join(""));
  }))), [x, y]);

const choose = (page, name, value) => page.check(`[name=${name}][value="${value}"]`, { force: true });

// The pixels of an image of a job, as "r,g,b" at the given places.
const drawn = (page, path, places) => page.evaluate(async ([url, list]) => {
  const bitmap = await createImageBitmap(await (await fetch(url)).blob());
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height), ctx = canvas.getContext("2d");
  ctx.drawImage(bitmap, 0, 0);
  return list.map(([x, y]) => [...ctx.getImageData(x * bitmap.width, y * bitmap.height, 1, 1).data.slice(0, 3)].join());
}, [path, places]);

const newest = async (s) => (await s.json("/v1/jobs")).data[0];
const text = (page, id) => page.textContent("#" + id);

await run({
  async markAndDraw() {
    const s = await start();
    const { page, problems } = await open(s);
    await look(page, "e1-empty");
    await openFile(page, await file(page, 320, 240));
    assert.equal(await text(page, "editor-size"), "320 × 240 px");
    assert.equal(await text(page, "strength-word"), "strong");
    assert.match(await text(page, "note"), /whole image changes/);
    await choose(page, "brush", "0.24");
    await brush(page, [[.1, .25], [.3, .25]]);
    assert.match(await text(page, "note"), /Only the marked area/);
    assert.equal(await text(page, "strength-word"), "all new");
    assert.equal(await page.isDisabled("#size"), true);
    await page.fill("#prompt", "a green cone");
    await look(page, "e2-marked");
    await page.click("#draw");
    await done(page);
    const [edit] = s.seen(), area = 320 * 240;
    assert.deepEqual([edit.size, edit.strength[0], edit.scale], [[320, 240], 1, 0]);
    // A stroke of 64 x 77 pixels with round ends.
    assert.ok(edit.drawn > .1 * area && edit.drawn < .14 * area, String(edit.drawn));
    // What is not marked is the input itself.
    const job = await newest(s), places = [[.8, .2], [.8, .8], [.2, .8]];
    assert.deepEqual(await drawn(page, "/v1/jobs/" + job.id + "/images/0", places),
      ["48,160,64", "208,192,64", "48,80,208"]);
    assert.match(await page.textContent(".card .state"), /^320 × 240 px · .* · strength 1, all new/);
    assert.deepEqual(problems, []);
    assert.equal(await s.stop(), 0);
  },

  async marksInvertEraseUndo() {
    const s = await start();
    const { page, problems } = await open(s);
    await openFile(page, await file(page, 256, 256));
    const plain = await pixel(page, .25, .25);
    assert.equal(plain, "d03030");
    assert.equal(await page.isDisabled("#undo"), true);
    await choose(page, "brush", "0.24");
    await brush(page, [[.25, .25], [.26, .25]]);
    const marked = await pixel(page, .25, .25);
    assert.notEqual(marked, plain);
    await page.click("#invert");
    assert.equal(await pixel(page, .25, .25), plain);
    assert.notEqual(await pixel(page, .75, .75), "d0c040");
    await choose(page, "tool", "erase");
    await brush(page, [[.75, .75], [.76, .75]]);
    assert.equal(await pixel(page, .75, .75), "d0c040");
    await page.click("#undo");
    assert.notEqual(await pixel(page, .75, .75), "d0c040");
    await page.keyboard.press("Control+z");
    assert.equal(await pixel(page, .25, .25), marked);
    await page.keyboard.press("Control+y");
    await page.click("#redo");
    assert.equal(await pixel(page, .75, .75), "d0c040");
    assert.equal(await page.isDisabled("#redo"), true);
    // What was undone is gone once something else is done.
    await page.click("#undo");
    await page.click("#clear");
    assert.equal(await page.isDisabled("#redo"), true);
    assert.equal(await pixel(page, .9, .1), "30a040");
    assert.equal(await page.isDisabled("#clear"), true);
    assert.match(await text(page, "note"), /whole image changes/);
    // Without marks, no mask is sent.
    await page.click("#draw");
    await done(page);
    assert.deepEqual(s.seen().map((e) => [e.drawn, e.strength[0].toFixed(3)]), [[-1, "0.700"]]);
    assert.deepEqual(problems, []);
    assert.equal(await s.stop(), 0);
  },

  async paintFromNothing() {
    const s = await start();
    const { page, problems } = await open(s);
    await page.selectOption("#size", "256");
    await page.click("#start-painting");
    await page.waitForSelector("#editor:visible");
    assert.equal(await page.isVisible("#layer"), false);
    assert.equal(await page.$$eval("[name=colour]", (all) => all.length) >= 12, true);
    await choose(page, "colour", "#86c8f5");
    await choose(page, "tool", "fill");
    await page.click("#canvas");
    assert.equal(await pixel(page, .02, .02), "86c8f5");
    await choose(page, "colour", "#3a9a3f");
    await choose(page, "tool", "brush");
    await choose(page, "brush", "0.24");
    await brush(page, [[0, .9], [1, .9]]);
    await page.fill("#own-colour", "#123456");
    await brush(page, [[.5, .5], [.51, .5]]);
    assert.equal(await pixel(page, .5, .5), "123456");
    // A fill ends at another colour.
    await choose(page, "colour", "#f6d223");
    await choose(page, "tool", "fill");
    await page.click("#canvas", { position: { x: 5, y: 5 } });
    assert.deepEqual([await pixel(page, .02, .02), await pixel(page, .5, .9), await pixel(page, .5, .5)],
      ["f6d223", "3a9a3f", "123456"]);
    await page.fill("#prompt", "a blue ball on the grass");
    await look(page, "e3-painting");
    // A reloaded page can bring it back.
    await page.waitForFunction(() => new Promise((found) => {
      const request = indexedDB.open("imagend");
      request.onsuccess = () => {
        const got = request.result.transaction("inputs").objectStore("inputs").get("last");
        got.onsuccess = () => found(got.result && got.result.steps.length === 4);
      };
    }));
    await page.reload();
    await page.click("#back");
    await page.waitForSelector("#editor:visible");
    assert.deepEqual([await pixel(page, .02, .02), await text(page, "editor-title")], ["f6d223", "Painting"]);
    await page.fill("#prompt", "a blue ball on the grass");
    // Another size is another canvas with the same painting.
    await page.selectOption("#size", "512x768");
    await page.waitForFunction(() => document.getElementById("editor-size").textContent === "512 × 768 px");
    assert.equal(await pixel(page, .02, .02), "f6d223");
    await page.selectOption("#size", "256");
    await page.waitForFunction(() => document.getElementById("editor-size").textContent === "256 px");
    await page.fill("#strength", "0.5");
    assert.equal(await text(page, "strength-word"), "balanced");
    await page.click("#draw");
    await done(page);
    assert.deepEqual(s.seen(), [{ size: [256, 256], drawn: -1, feather: s.seen()[0].feather, scale: 0,
      strength: [.5, ...s.seen()[0].strength.slice(1)] }]);
    assert.deepEqual(problems, []);
    assert.equal(await s.stop(), 0);
  },

  async resultAsInput() {
    const s = await start();
    const { page, problems } = await open(s);
    await draw(page, "a red sphere");
    await done(page);
    const first = await newest(s), sent = [];
    page.on("request", (q) => { if (q.method() === "POST") sent.push(q.postDataJSON()); });
    await page.click(".card .edit");
    await page.waitForSelector("#editor:visible");
    assert.equal(await page.evaluate(() => document.activeElement.id), "canvas");
    await page.fill("#strength", "0.25");
    assert.equal(await text(page, "strength-word"), "subtle");
    await page.click("#draw");
    await done(page, 2);
    // A setting of one image is not the next one's.
    await page.click(".card:nth-child(2) .edit");
    await page.waitForFunction(() => document.getElementById("strength-word").textContent === "strong");
    // Nothing that the server has is uploaded, with marks either.
    assert.deepEqual(sent[0].image, { job: first.id, index: 0 });
    assert.deepEqual([sent[0].task, sent[0].strength, sent[0].mask], ["edit", .25, undefined]);
    await brush(page, [[.2, .2], [.3, .2]]);
    await page.click("#draw");
    await done(page, 3);
    assert.deepEqual(sent[1].image, { job: first.id, index: 0 });
    assert.match(sent[1].mask, /^data:image\/png;base64,/);
    assert.equal(sent[1].mask_kind, "light");
    // What is painted on is another image.
    await choose(page, "layer", "paint");
    await brush(page, [[.2, .2], [.3, .2]]);
    const [request] = await Promise.all([page.waitForRequest((q) => q.method() === "POST"), page.click("#draw")]);
    assert.match(request.headers()["content-type"], /^multipart\/form-data/);
    await done(page, 4);
    assert.equal(s.seen().length, 3);
    assert.deepEqual(problems, []);
    assert.equal(await s.stop(), 0);
  },

  async beforeAndAfter() {
    const s = await start();
    const { page, problems } = await open(s);
    await openFile(page, await file(page, 128, 128));
    await page.fill("#prompt", "another");
    await page.click("#draw");
    await done(page);
    await page.click(".card .compare");
    await page.waitForSelector(".card .handle");
    assert.equal(await page.evaluate(() => document.activeElement.className), "handle");
    const edge = () => page.$eval(".card .frame", (f) => f.style.getPropertyValue("--at"));
    assert.equal(await edge(), "50%");
    await page.keyboard.press("ArrowLeft");
    assert.equal(await edge(), "49%");
    const box = await page.locator(".card .frame").boundingBox();
    await page.mouse.move(box.x + box.width * .49, box.y + 40);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * .8, box.y + 40, { steps: 4 });
    await page.mouse.up();
    assert.ok(Math.abs(parseInt(await edge()) - 80) <= 2, await edge());
    assert.equal(await page.$eval(".card .before", (i) => i.naturalWidth), 128);
    await look(page, "e4-compare");
    await page.click(".card .compare");
    assert.equal(await page.$(".card .handle"), null);
    // Also after a reload, and in full size.
    await page.reload();
    await page.waitForSelector(".card .compare:visible");
    await page.click(".card .open");
    await page.click("#viewer-compare");
    await page.waitForSelector("dialog .handle");
    await look(page, "e5-viewer");
    await page.keyboard.press("Escape");
    // The settings of an edit bring its input back, with what was marked.
    await page.click(".card .again");
    await page.waitForSelector("#editor:visible");
    assert.equal(await page.inputValue("#prompt"), "another");
    assert.equal(await text(page, "editor-size"), "128 px");
    await page.click(".card .remove");
    await page.waitForFunction(() => !document.querySelector(".card"));
    assert.deepEqual(problems, []);
    assert.equal(await s.stop(), 0);
  },

  // A form, which has the file, names them as JSON does; upscaling has them, too.
  async loras() {
    const s = await start(["--lora-choices", "fox.safetensors,dog.safetensors,cat.safetensors:2"]);
    const { page, problems } = await open(s);
    await openFile(page, await file(page, 200, 150));
    await page.getByRole("checkbox", { name: "fox" }).check();
    await page.getByRole("checkbox", { name: "dog" }).check();
    await page.getByRole("checkbox", { name: "cat" }).check();
    await page.getByLabel("Scale of dog").fill("0.5");
    await page.fill("#prompt", "a fox");
    await page.click("#draw");
    await done(page);
    assert.equal((await newest(s)).request.loras, "fox:1, dog:0.5");
    await page.click("#upscale button");
    await done(page, 2);
    assert.equal((await newest(s)).request.loras, "dog:0.5", "that of the stage that ran");
    assert.deepEqual(problems, []);
    assert.equal(await s.stop(), 0);
  },

  async upscale() {
    const s = await start();
    const { page, problems } = await open(s);
    await openFile(page, await file(page, 40, 30));
    assert.match(await page.textContent("#upscale button"), /^4× · 160 × 120 px$/);
    // A factor that would exceed what the server makes is not offered.
    const offered = () => page.$$eval("#upscale button:not([hidden])", (all) => all.map((b) => b.value));
    for (const [width, factors] of [[512, ["4", "16"]], [600, ["4"]], [2400, []], [40, ["4", "16"]]]) {
      await openFile(page, await file(page, width, width * .75));
      await page.waitForFunction((w) => document.getElementById("editor-size").textContent.startsWith(w),
        String(width));
      assert.deepEqual(await offered(), factors);
    }
    await page.click("#upscale button");
    await done(page);
    assert.deepEqual(s.seen().map((e) => [e.size, e.scale]), [[[40, 30], 4]]);
    assert.equal(await page.textContent(".what"), "Upscaled image");
    assert.match(await page.textContent(".state"), /^160 × 120 px · .* · upscaled 4×/);
    await page.waitForFunction(() => document.querySelector(".card .frame img").naturalWidth === 160);
    assert.deepEqual(problems, []);
    assert.equal(await s.stop(), 0);
  },

  async dropPasteAndTransparency() {
    const s = await start();
    const { page, problems } = await open(s);
    const give = (image, name) => page.evaluate(([base64, type, kind]) => {
      const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
      const data = new DataTransfer();
      data.items.add(new File([bytes], "x", { type }));
      if (kind === "paste") {
        document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
        return;
      }
      for (const event of ["dragover", "drop"])
        document.body.dispatchEvent(new DragEvent(event, { dataTransfer: data, bubbles: true, cancelable: true }));
    }, [image.buffer.toString("base64"), image.mimeType, name]);
    const size = (words) => page.waitForFunction((t) =>
      document.getElementById("editor-size").textContent === t, words);
    await give(await file(page, 100, 50), "drop");
    await size("100 × 50 px");
    assert.equal(await page.evaluate(() => document.body.classList.contains("dropping")), false);
    await give(await file(page, 60, 90, { type: "image/jpeg" }), "paste");
    await size("60 × 90 px");
    // What is transparent is marked, because the server reads it so.
    await give(await file(page, 64, 64, { clear: true }), "paste");
    await size("64 px");
    assert.match(await text(page, "note"), /Only the marked area/);
    await page.click("#draw");
    await done(page);
    await page.click("#clear");
    await page.click("#draw");
    await done(page, 2);
    assert.deepEqual(s.seen().map((e) => e.drawn), [32 * 64, -1]);
    // A result that is dragged there is not uploaded.
    const dragged = await page.evaluate(() => {
      const data = new DataTransfer(), card = document.querySelector(".card");
      card.querySelector("img").dispatchEvent(new DragEvent("dragstart", { dataTransfer: data, bubbles: true }));
      document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
      return card.dataset.job;
    });
    await said(page, "Image opened");
    const [request] = await Promise.all([page.waitForRequest((q) => q.method() === "POST"), page.click("#draw")]);
    assert.deepEqual(request.postDataJSON().image, { job: dragged, index: 0 });
    await done(page, 3);
    assert.deepEqual(problems, []);
    assert.equal(await s.stop(), 0);
  },

  async keyboardAlone() {
    const s = await start();
    const { page, problems } = await open(s);
    const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.value);
    const tabTo = async (id) => {
      for (let i = 0; i < 60 && await focused() !== id; i++) await page.keyboard.press("Tab");
      assert.equal(await focused(), id);
    };
    await tabTo("start-painting");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.activeElement.id === "canvas");
    await look(page, "e6-keyboard");
    await page.keyboard.press("]");
    for (let i = 0; i < 5; i++) await page.keyboard.press("Shift+ArrowLeft");
    await page.keyboard.press("Space");
    assert.match(await text(page, "status"), /^Brush down, 0 % across, 50 % down$/);
    for (let i = 0; i < 10; i++) await page.keyboard.press("Shift+ArrowRight");
    await page.keyboard.press("Space");
    assert.match(await text(page, "status"), /^Brush up, 100 % across/);
    assert.deepEqual([await pixel(page, .5, .5), await pixel(page, .5, .2)], ["d9292a", "ffffff"]);
    await page.keyboard.press("f");
    for (let i = 0; i < 3; i++) await page.keyboard.press("Shift+ArrowUp");
    // Every tool is reached by Tab, and its choices by arrow keys.
    await tabTo("#d9292a");
    for (let i = 0; i < 6; i++) await page.keyboard.press("ArrowRight");
    assert.equal(await focused(), "#86c8f5");
    await page.keyboard.press("Shift+Tab");
    await page.keyboard.press("Shift+Tab");
    await page.keyboard.press("Shift+Tab");
    await page.waitForFunction(() => document.activeElement.id === "canvas");
    await page.keyboard.press("Enter");
    assert.deepEqual([await pixel(page, .5, .2), await pixel(page, .5, .8)], ["86c8f5", "ffffff"]);
    await page.keyboard.press("Control+z");
    assert.equal(await pixel(page, .5, .2), "ffffff");
    await tabTo("prompt");
    await page.keyboard.type("by keyboard");
    await tabTo("strength");
    await page.keyboard.press("Home");
    assert.equal(await text(page, "strength-word"), "subtle");
    // The model's 8 steps are too few for that.
    await tabTo("draw");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.getElementById("message").textContent ===
      "Strength 0.1 leaves no step to run.");
    assert.equal(await focused(), "strength");
    for (let i = 0; i < 3; i++) await page.keyboard.press("ArrowRight");
    await tabTo("draw");
    await page.keyboard.press("Enter");
    await done(page);
    assert.deepEqual(s.seen().map((e) => [e.size, e.strength[0]]), [[[256, 256], .25]]);
    assert.deepEqual(problems, []);
    assert.equal(await s.stop(), 0);
  },

  async phoneAndTouch() {
    const s = await start();
    const { page, problems, context } = await open(s, { viewport: { width: 360, height: 740 },
      colorScheme: "dark", hasTouch: true, isMobile: true, deviceScaleFactor: 2 });
    await openFile(page, await file(page, 300, 400, { type: "image/webp" }));
    const cdp = await context.newCDPSession(page), box = await page.locator("#canvas").boundingBox();
    const touch = (type, points) => cdp.send("Input.dispatchTouchEvent", { type,
      touchPoints: points.map(([x, y]) => ({ x: box.x + x * box.width, y: box.y + y * box.height })) });
    const top = await page.evaluate(() => window.scrollY);
    await touch("touchStart", [[.25, .25]]);
    for (const y of [.3, .4, .5, .6, .7]) await touch("touchMove", [[.25, y]]);
    await touch("touchEnd", []);
    assert.equal(await page.evaluate(() => window.scrollY), top, "a finger draws, it does not scroll");
    assert.match(await text(page, "note"), /Only the marked area/);
    assert.notEqual(await pixel(page, .25, .6), "3050d0");
    await look(page, "e7-phone");
    await choose(page, "layer", "paint");
    await look(page, "e8-phone-paint");
    assert.equal(await page.evaluate(() =>
      document.documentElement.scrollWidth <= window.innerWidth), true, "no sideways scrolling");
    for (const part of await page.$$("button:visible, a.button:visible, input:visible")) {
      const { height, width } = await part.boundingBox();
      assert.ok(height >= 39 && width >= 30, "large enough to touch: " + await part.evaluate((e) => e.outerHTML));
    }
    await page.fill("#prompt", "by hand");
    await page.click("#draw");
    await done(page);
    assert.ok(await page.$eval(".card", (c) => c.getBoundingClientRect().top < window.innerHeight));
    assert.ok(s.seen()[0].drawn > 1000);
    assert.deepEqual(problems, []);
    assert.equal(await s.stop(), 0);
  },

  async faultsInWords() {
    const s = await start(["--input-bytes", "64K"]);
    const { page, context } = await open(s);
    const says = (start) => page.waitForFunction((t) =>
      document.getElementById("message").textContent.startsWith(t), start);
    await page.setInputFiles("#file", { name: "notes.png", mimeType: "image/png", buffer: Buffer.from("no image") });
    await says("The browser cannot read this file as an image; use a PNG, JPEG or WebP file.");
    await page.setInputFiles("#file", { name: "big.png", mimeType: "image/png", buffer: Buffer.alloc(70000) });
    await says("The file has 0.1 MB, but the server accepts at most 0.1 MB; make the image smaller");
    assert.equal(await page.isVisible("#editor"), false);
    // A result that goes while it is open is sent as a file instead.
    await draw(page, "soon gone", "64");
    await done(page);
    await page.click(".card .edit");
    await page.waitForSelector("#editor:visible");
    await fetch(s.url + "/v1/jobs/" + (await newest(s)).id, { method: "DELETE" });
    await page.click("#draw");
    await done(page, 2);
    assert.deepEqual(s.seen().map((e) => e.size), [[64, 64]]);
    // The same, closed before the server has answered.
    await page.click("#editor-close");
    await draw(page, "soon gone and closed", "64");
    await done(page, 3);
    await page.click(".card .edit");
    await page.waitForSelector("#editor:visible");
    await fetch(s.url + "/v1/jobs/" + (await newest(s)).id, { method: "DELETE" });
    await page.route("**/v1/jobs", async (route) => {
      await page.click("#editor-close");
      await route.continue();
    }, { times: 1 });
    await page.click("#draw");
    await done(page, 4);
    assert.equal(await page.isVisible("#editor"), false);
    assert.deepEqual(s.seen().map((e) => e.size), [[64, 64], [64, 64]]);
    await page.click(".card .edit");
    await page.waitForSelector("#editor:visible");
    // One that is gone.
    const cdp = await context.newCDPSession(page);
    await cdp.send("Network.enable");
    await cdp.send("Network.setCacheDisabled", { cacheDisabled: true });
    await page.click(".card:nth-child(2) .edit");
    await says("The server has deleted this image; use an image that it still has, or a file.");
    await look(page, "e9-fault");
    await page.click("#editor-close");
    assert.equal(await page.evaluate(() => document.activeElement.id), "back");
    assert.equal(await s.stop(), 0);
  },

  // A model that cannot edit shows nothing of all this.
  async withoutTheAbility() {
    const s = await start();
    const { page } = await open(s, { can: { features: { edit: false, inpaint: false }, scales: [] } });
    await draw(page, "plain", "64");
    await done(page);
    for (const id of ["#start-field", "#editor", ".edit", "#strength-field"])
      assert.equal(await page.isVisible(id), false, id);
    const { page: other } = await open(s, { can: { features: { edit: true, inpaint: false }, scales: [] } });
    await openFile(other, await file(other, 64, 64));
    for (const id of ["#layer", "#upscale"]) assert.equal(await other.isVisible(id), false, id);
    assert.equal(await other.isVisible("#colours"), true);
    assert.equal(await s.stop(), 0);
  },
}).finally(() => browser.close());
