// What the tests of the web page share: an open page, its problems, screenshots and axe-core.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { need, openBrowser, patience } from "./server.mjs";

need("axe-core");
export const browser = await openBrowser();
const shots = process.argv[3];
const axe = readFileSync(new URL("node_modules/axe-core/axe.min.js", import.meta.url), "utf8");

export async function open(server, options = {}) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(patience);
  const page = await context.newPage();
  const problems = [];
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("console", (m) => {
    if (m.type() === "error" && !m.text().includes("status of")) problems.push(m.text());
  });
  // What another model could do.
  if (options.can)
    await page.route("**/v1/capabilities", async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, json: { ...await response.json(), ...options.can } });
    });
  await page.goto(server.url);
  if (!options.locked) await ready(page);
  return { page, problems, context };
}

// What the page last said to those who do not see it; the last thing that an event does.
export const said = (page, start) => page.waitForFunction((text) =>
  document.getElementById("status").textContent.startsWith(text), start);

export const ready = (page) => page.waitForSelector("#server.ready");

// Checks what the page looks like now, and keeps a picture of it.
export async function look(page, name) {
  if (shots) await page.screenshot({ path: `${shots}/${name}.png`, fullPage: true });
  await page.evaluate(axe);
  const found = await page.evaluate(() => window.axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a",
    "wcag21aa", "best-practice"], resultTypes: ["violations"] }));
  assert.deepEqual(found.violations.map((v) => v.id + ": " + v.nodes.map((n) =>
    n.html + " " + n.failureSummary).join("; ")), [], name);
}

export async function draw(page, prompt, size = "256") {
  await page.fill("#prompt", prompt);
  await page.selectOption("#size", size);
  await page.click("#draw");
}

export const done = (page, n = 1) => page.waitForFunction((count) =>
  document.querySelectorAll(".card .download:not([hidden])").length === count, n);
