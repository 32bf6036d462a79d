// The unmodified openai SDK against the server.
import assert from "node:assert/strict";
import { eventually, need, run, serve } from "./server.mjs";

need("openai");
// Debian 12's Node 18 lacks it; the SDK's own message about it names this line.
globalThis.File ??= (await import("node:buffer")).File;
const { default: OpenAI, toFile } = await import("openai");
const client = (server, more) =>
  new OpenAI({ apiKey: "none", baseURL: server.url + "/v1", ...more });
const png = (b64) => Buffer.from(b64, "base64").subarray(1, 4).toString() === "PNG";

await run({
  async generate() {
    const s = await serve();
    const c = client(s);
    const a = await c.images.generate({ prompt: "a red sphere", size: "64x64", n: 2, seed: 3 });
    assert.equal(a.data.length, 2);
    assert.ok(png(a.data[0].b64_json) && a.usage.total_tokens > 0 && a.seed === 3);
    assert.equal((await c.models.list()).data[0].id, "fake");
    assert.equal((await c.models.retrieve("fake")).object, "model");
    assert.equal(await s.stop(), 0);
  },

  async url() {
    const s = await serve();
    const a = await client(s).images.generate({ prompt: "a", size: "64x64", response_format: "url",
      output_format: "webp" });
    const file = await fetch(a.data[0].url);
    assert.equal(file.headers.get("content-type"), "image/webp");
    assert.equal(Buffer.from(await file.arrayBuffer()).subarray(8, 12).toString(), "WEBP");
    assert.equal(await s.stop(), 0);
  },

  async models() {
    const s = await serve({}, "--model-aliases", "sdxl,my/own");
    const c = client(s);
    for (const name of ["dall-e-2", "dall-e-3", "openai/dall-e-3"]) {
      const a = await c.images.generate({ model: name, prompt: "a", size: "64x64" });
      assert.equal((await fetch(a.data[0].url)).headers.get("content-type"), "image/png", name);
    }
    for (const name of ["gpt-image-1", "gpt-image-2-2026-04-21", "chatgpt-image-latest", "sdxl", "my/own",
      "openai/fake"]) {
      const a = await c.images.generate({ model: name, prompt: "a", size: "64x64" });
      assert.ok(png(a.data[0].b64_json), name);
      assert.equal((await c.models.retrieve(name)).id, name);
    }
    const ids = [];
    for await (const model of c.models.list()) ids.push(model.id);
    assert.deepEqual(ids, ["fake", "sdxl", "my/own"]);
    assert.equal(await s.stop(), 0);
  },

  async stream() {
    const s = await serve();
    const stream = await client(s).images.generate({ prompt: "a", size: "256x256", stream: true,
      partial_images: 3 });
    const types = [];
    for await (const event of stream) {
      types.push(event.type);
      assert.ok(png(event.b64_json));
      if (event.type === "image_generation.partial_image")
        assert.equal(event.partial_image_index, types.length - 1);
    }
    assert.deepEqual(types, [...Array(3).fill("image_generation.partial_image"),
      "image_generation.completed"]);
    await assert.rejects(async () => {
      const bad = await client(s).images.generate({ prompt: "[fail]", size: "64x64", stream: true });
      for await (const event of bad) void event;
    }, OpenAI.APIError);
    assert.equal(await s.stop(), 0);
  },

  async errors() {
    const s = await serve();
    const c = client(s, { maxRetries: 0 });
    await assert.rejects(c.images.generate({ prompt: "" }), (e) =>
      e instanceof OpenAI.BadRequestError && e.param === "prompt" && e.code === "invalid_value");
    await assert.rejects(c.images.generate({ prompt: "a", model: "none" }), OpenAI.NotFoundError);
    await assert.rejects(c.images.generate({ prompt: "[fail]" }), OpenAI.InternalServerError);
    await assert.rejects(c.models.retrieve("none"), OpenAI.NotFoundError);
    assert.equal(await s.stop(), 0);
  },

  async idempotency() {
    const s = await serve();
    const c = client(s);
    const headers = { "Idempotency-Key": "one" };
    const a = await c.images.generate({ prompt: "a", size: "64x64" }, { headers });
    const b = await c.images.generate({ prompt: "a", size: "64x64" }, { headers });
    assert.equal(a.seed, b.seed);
    await assert.rejects(c.images.generate({ prompt: "b", size: "64x64" }, { headers }),
      OpenAI.ConflictError);
    assert.equal(await s.stop(), 0);
    assert.equal(s.log.match(/status=409/g).length, 1, "a 409 must not be retried");
  },

  async edit() {
    const s = await serve();
    const c = client(s);
    // A result is the next input.
    const first = await c.images.generate({ prompt: "a", size: "64x64", seed: 1 });
    const bytes = Buffer.from(first.data[0].b64_json, "base64");
    const image = () => toFile(bytes, "image.png", { type: "image/png" });
    const a = await c.images.edit({ image: await image(), prompt: "a red ball", n: 2, seed: 3 });
    assert.equal(a.data.length, 2);
    assert.ok(png(a.data[0].b64_json) && a.seed === 3 && a.size === "64x64");
    assert.equal(a.usage.input_tokens_details.image_tokens, 16);
    const b = await c.images.edit({ image: [await image()], prompt: "a", model: "gpt-image-1",
      input_fidelity: "high", quality: "low", background: "opaque", output_format: "jpeg" });
    assert.equal(Buffer.from(b.data[0].b64_json, "base64").subarray(0, 2).toString("hex"), "ffd8");
    // A mask with nothing transparent says nothing.
    await assert.rejects(async () => c.images.edit({ image: await image(), mask: await image(), prompt: "a" }),
      (e) => e instanceof OpenAI.BadRequestError && e.param === "mask");
    await assert.rejects(async () => c.images.edit({ image: [await image(), await image()], prompt: "a" }),
      (e) => e instanceof OpenAI.BadRequestError && e.param === "image");
    await assert.rejects(async () => c.images.edit({ image: await toFile(Buffer.from("no"), "a.png"), prompt: "a" }),
      (e) => e instanceof OpenAI.BadRequestError && e.param === "image");
    assert.equal(await s.stop(), 0);
  },

  async editAsStream() {
    const s = await serve();
    const c = client(s);
    const first = await c.images.generate({ prompt: "a", size: "256x256" });
    const image = await toFile(Buffer.from(first.data[0].b64_json, "base64"), "image.png");
    const types = [];
    for await (const event of await c.images.edit({ image, prompt: "a", stream: true, partial_images: 2 })) {
      types.push(event.type);
      assert.ok(png(event.b64_json));
    }
    assert.deepEqual(types, ["image_edit.partial_image", "image_edit.partial_image", "image_edit.completed"]);
    assert.equal(await s.stop(), 0);
  },

  async variation() {
    const s = await serve();
    const c = client(s);
    const first = await c.images.generate({ prompt: "a", size: "64x64" });
    const image = () => toFile(Buffer.from(first.data[0].b64_json, "base64"), "image.png");
    const a = await c.images.createVariation({ image: await image(), n: 2, size: "256x256" });
    assert.equal(a.data.length, 2);
    assert.equal((await fetch(a.data[1].url)).headers.get("content-type"), "image/png");
    const b = await c.images.createVariation({ image: await image(), response_format: "b64_json" });
    assert.ok(png(b.data[0].b64_json));
    assert.equal(await s.stop(), 0);
  },

  async retriesWithRetryAfter() {
    const s = await serve({ FAKE_STEP_MS: "30", FAKE_SLOTS: "1" }, "--queue-limit", "1");
    const c = client(s, { maxRetries: 8 });
    const jobs = Array.from({ length: 4 }, () => c.images.generate({ prompt: "a", size: "64x64" }));
    for (const job of await Promise.all(jobs)) assert.ok(png(job.data[0].b64_json));
    const none = client(s, { maxRetries: 0 });
    const refused = [];
    s.hold();
    const rest = Array.from({ length: 6 }, () => none.images.generate({ prompt: "a", size: "64x64" })
      .catch((error) => refused.push(error)));
    await eventually(() => refused.length >= 4, "one drawn, one waiting, four refused");
    s.release();
    await Promise.all(rest);
    assert.ok(refused.length && refused.every((e) => e instanceof OpenAI.RateLimitError));
    assert.ok(Number(refused[0].headers.get("retry-after")) >= 1);
    assert.equal(await s.stop(), 0);
  },

  async abortFreesTheSlot() {
    const s = await serve({ FAKE_STEP_MS: "20", FAKE_SLOTS: "1" });
    for (const stream of [false, true]) {
      const abort = new AbortController();
      s.hold(); // it cannot end by itself
      const job = client(s, { maxRetries: 0 }).images.generate(
        { prompt: "a", size: "64x64", steps: 900, stream }, { signal: abort.signal });
      job.catch(() => {});
      await eventually(async () => (await s.json("/v1/capabilities")).running === 1, "running");
      abort.abort();
      await eventually(async () => (await s.json("/v1/capabilities")).running === 0, "a free slot");
      s.release();
    }
    assert.equal(await s.stop(), 0);
  },
});
