// The AI SDK and LangChain, unmodified, with the calls of their own documentation.
import assert from "node:assert/strict";
import { need, run, serve } from "./server.mjs";

for (const name of ["ai", "@ai-sdk/openai", "@langchain/openai"]) need(name);
const { APICallError, generateImage, NoImageGeneratedError } = await import("ai");
const { createOpenAI } = await import("@ai-sdk/openai");
const { DallEAPIWrapper } = await import("@langchain/openai");

globalThis.AI_SDK_LOG_WARNINGS = false;
const prompt = "Santa Claus driving a Cadillac";
const apiKey = "none";
const isPng = (bytes) => Buffer.from(bytes).subarray(1, 4).toString() === "PNG";
const openai = (server) => createOpenAI({ apiKey, baseURL: server.url + "/v1" });
const dalle = (server, fields) => new DallEAPIWrapper({ apiKey, baseUrl: server.url + "/v1", ...fields });

async function fetchPng(url) {
  const file = await fetch(url);
  assert.equal(file.status, 200);
  assert.equal(file.headers.get("content-type"), "image/png");
  assert.ok(isPng(await file.arrayBuffer()));
}

await run({
  async aiSdkModels() {
    const s = await serve();
    for (const name of ["dall-e-2", "dall-e-3", "gpt-image-1", "gpt-image-1-mini", "gpt-image-1.5",
      "gpt-image-2", "gpt-image-2-2026-04-21", "gpt-image-2.5-sunburst", "chatgpt-image-latest", "fake"]) {
      const { image, warnings, responses, usage } = await generateImage({
        model: openai(s).image(name), prompt });
      assert.ok(isPng(image.uint8Array) && isPng(Buffer.from(image.base64, "base64")), name);
      assert.equal(image.mediaType, "image/png");
      assert.deepEqual(warnings, []);
      assert.ok(usage.totalTokens > 0 && responses[0].headers["x-request-id"], name);
    }
    assert.equal(await s.stop(), 0);
  },

  async aiSdkSettings() {
    const s = await serve();
    const model = openai(s).image("gpt-image-1");
    for (const settings of [
      { size: "1024x1024" }, { size: "512x512" }, { size: "512x768" }, { n: 4 }, { n: 10, maxImagesPerCall: 5 },
      { headers: { "X-Custom-Header": "custom-value" } }, { abortSignal: AbortSignal.timeout(60000) },
      { seed: 1234567890 }, { aspectRatio: "16:9" }, // the SDK warns of these two by itself
      { providerOptions: { openai: { quality: "high", outputFormat: "png", moderation: "low" } } },
      { providerOptions: { openai: { style: "vivid", quality: "hd" } } },
      { providerOptions: { openai: { quality: "max", background: "opaque", user: "u" } } },
    ]) {
      const { images, providerMetadata } = await generateImage({ model, prompt, ...settings });
      assert.equal(images.length, settings.n ?? 1);
      assert.ok(images.every((image) => isPng(image.uint8Array)));
      assert.equal(providerMetadata.openai.images.length, images.length);
      assert.equal(providerMetadata.openai.images[0].size, settings.size ?? "1024x1024");
    }
    const { image } = await generateImage({ model, prompt,
      providerOptions: { openai: { outputFormat: "webp", outputCompression: 80 } } });
    assert.equal(image.mediaType, "image/webp");
    assert.equal(await s.stop(), 0);
  },

  async aiSdkErrors() {
    const s = await serve();
    await assert.rejects(generateImage({ model: openai(s).image("sdxl"), prompt, maxRetries: 0 }), (e) =>
      APICallError.isInstance(e) && e.statusCode === 404 && /"sdxl" does not exist/.test(e.message));
    await assert.rejects(generateImage({ model: openai(s).image("dall-e-3"), prompt, maxRetries: 0,
      size: "1536x1024" }), (e) => e.statusCode === 400 && !e.isRetryable && /1024/.test(e.message));
    await assert.rejects(generateImage({ model: openai(s).image("dall-e-3"), prompt: "[fail]",
      maxRetries: 0 }), (e) => e.statusCode === 500 && !NoImageGeneratedError.isInstance(e));
    assert.equal(await s.stop(), 0);
  },

  async langchainUrl() {
    const s = await serve();
    for (const fields of [{}, { n: 1, model: "dall-e-3" }, { model: "dall-e-2", size: "256x256" },
      { model: "gpt-image-1", quality: "high" }, { style: "natural", quality: "hd", user: "u" }]) {
      const url = await dalle(s, fields).invoke("a painting of a cat");
      await fetchPng(url);
    }
    assert.equal(await s.stop(), 0);
  },

  async langchainMany() {
    const s = await serve();
    const urls = await dalle(s, { n: 3 }).invoke("a painting of a cat");
    assert.equal(urls.length, 3);
    for (const item of urls) await fetchPng(item.image_url);
    const data = await dalle(s, { dallEResponseFormat: "b64_json" }).invoke("a painting of a cat");
    assert.ok(isPng(Buffer.from(data, "base64")));
    assert.equal(await s.stop(), 0);
  },
});
