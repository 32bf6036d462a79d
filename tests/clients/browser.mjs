// The unmodified openai SDK in headless Chromium, on a page of another origin.
import assert from "node:assert/strict";
import { createReadStream, existsSync } from "node:fs";
import { createServer } from "node:http";
import { need, openBrowser, patience, run, serve } from "./server.mjs";

need("openai");
const browser = await openBrowser();

// The SDK's own files, as a site without a bundler would serve them.
const site = createServer((request, response) => {
  const file = new URL("node_modules" + request.url, import.meta.url);
  const script = request.url.endsWith(".mjs") && existsSync(file);
  response.writeHead(script || request.url === "/" ? 200 : 404,
    { "Content-Type": script ? "text/javascript" : "text/html" });
  if (script) createReadStream(file).pipe(response);
  else response.end("<!doctype html><title>another site</title>");
});
await new Promise((done) => site.listen(0, "127.0.0.1", done));
const origin = "http://127.0.0.1:" + site.address().port;

async function open() {
  const page = await (await browser.newContext()).newPage();
  page.setDefaultTimeout(patience);
  await page.goto(origin);
  return page;
}

await run({
  async generate() {
    const s = await serve({}, "--cors-origins", origin);
    const page = await open();
    const got = await page.evaluate(async (url) => {
      const { default: OpenAI } = await import("/openai/index.mjs");
      const c = new OpenAI({ apiKey: "none", baseURL: url + "/v1", dangerouslyAllowBrowser: true,
        maxRetries: 0 });
      const { data, response, request_id } = await c.images.generate({ prompt: "a red sphere",
        size: "64x64", response_format: "b64_json" }).withResponse();
      const types = [];
      for await (const event of await c.images.generate({ prompt: "a", size: "64x64", stream: true,
        partial_images: 1 }))
        types.push(event.type);
      const missing = await c.get("/nothing").catch((error) => error.status);
      const raw = await fetch(url + "/v1/images/generations", { method: "POST", headers: {
        "Content-Type": "application/json", Accept: "image/png" }, body: '{"prompt":"a","size":"64x64"}' });
      return { image: data.data[0].b64_json.slice(0, 8), id: request_id, types, missing,
        seen: response.headers.get("x-request-id"), seed: raw.headers.get("x-imagend-seed") };
    }, s.url);
    assert.equal(got.image, "iVBORw0K");
    assert.match(got.id, /^req_/);
    assert.equal(got.seen, got.id);
    assert.match(got.seed, /^\d+$/);
    assert.equal(got.types.at(-1), "image_generation.completed");
    assert.equal(got.missing, 404);
    assert.equal(await s.stop(), 0);
  },

  async others() {
    const s = await serve({}, "--cors-origins", "https://app.test");
    const page = await open();
    const failed = await page.evaluate((url) => fetch(url + "/v1/jobs", { method: "POST", headers: {
      "Content-Type": "application/json" }, body: '{"prompt":"a"}' }).then(() => null, String), s.url);
    assert.match(failed, /TypeError/);
    assert.deepEqual((await s.json("/v1/jobs")).data, []);
    assert.equal(await s.stop(), 0);
  },
});
