// The web page in headless Chromium at each of the given addresses, which are behind proxies:
// behind.mjs ADDRESS... Names end in .test and resolve to this machine; certificates are not checked.
import assert from "node:assert/strict";
import { openBrowser, patience } from "./server.mjs";

const browser = await openBrowser("--host-resolver-rules=MAP *.test 127.0.0.1");
for (const address of process.argv.slice(2)) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  context.setDefaultTimeout(patience);
  const page = await context.newPage();
  const failed = [];
  page.on("response", (r) => { if (r.status() >= 400) failed.push(r.status() + " " + r.url()); });
  page.on("pageerror", (error) => failed.push(String(error)));
  await page.goto(address);
  await page.waitForSelector("#server.ready");
  await page.fill("#prompt", "a red sphere");
  await page.selectOption("#size", "64");
  await page.click("#draw");
  await page.waitForFunction(() => document.querySelector(".card img")?.naturalWidth === 64);
  await page.waitForSelector(".card .download:not([hidden])");
  await page.goto(new URL("docs", address).href);
  await page.waitForSelector("main.docs h2");
  assert.equal(await page.evaluate(() => document.styleSheets[0].cssRules.length > 0), true);
  await page.click('a[href="./"]');
  await page.waitForSelector("#server.ready");
  assert.equal(page.url(), address);
  assert.deepEqual(failed.filter((f) => !f.endsWith("/favicon.ico")), [], address);
  await context.close();
  console.log("drawn at " + address);
}
await browser.close();
