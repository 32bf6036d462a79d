// Starts a server for a client test, and a browser if requested.
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

// For what must happen at some time, in milliseconds; see tests/api/harness.py.
export const patience = 1000 * (process.env.TEST_PATIENCE ?? 60);

export const program = process.argv[2] || "build/tests/api/imagend-fake";

// Exit status 77 is a skipped test.
function skip(why) {
  console.log("skipped: " + why);
  process.exit(77);
}

export function need(name) {
  if (!existsSync(new URL("node_modules/" + name, import.meta.url)))
    skip("npm ci has not been run in tests/clients");
}

// The system's Chromium without a window, which also runs as root.
export async function openBrowser(...args) {
  need("playwright-core");
  const executablePath = ["/usr/bin/chromium", "/usr/bin/chromium-browser"].find(existsSync);
  if (!executablePath) skip("there is no chromium");
  const { chromium } = await import("playwright-core");
  return chromium.launch({ executablePath, args: ["--no-sandbox", ...args], timeout: 120000 });
}

// What a failed test left running ends with the tests.
const running = new Set();
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

export async function serve(env = {}, ...flags) {
  const folder = mkdtempSync(join(tmpdir(), "imagend-client-"));
  const held = join(folder, "held");
  const child = spawn(program, ["serve", "--listen", "127.0.0.1:0", "--data-dir",
    join(folder, "data"), ...flags],
    { env: { ...process.env, FAKE_HELD: held, ...env }, stdio: ["ignore", "ignore", "pipe"] });
  running.add(child);
  child.on("exit", () => running.delete(child));
  let log = "";
  const port = await new Promise((done, fail) => {
    createInterface({ input: child.stderr }).on("line", (line) => {
      log += line + "\n";
      const found = line.match(/listening on \w+:\/\/[^ ]*:(\d+)/);
      if (found) done(Number(found[1]));
    });
    child.on("exit", () => fail(new Error("the server did not start:\n" + log)));
  });
  const url = "http://127.0.0.1:" + port;
  while ((await fetch(url + "/readyz")).status !== 200) await pause(10);
  return {
    url, get log() { return log; },
    async json(path) { return (await fetch(url + path)).json(); },
    // The engine stands still at a step of the first stage: what runs goes on running.
    hold(step = 0) { writeFileSync(held, String(step)); },
    release() { rmSync(held); },
    async stop() {
      // Not at its "exit", when the end of the log may not have been read yet.
      const ended = new Promise((done) => child.on("close", done));
      child.kill("SIGTERM");
      const code = await ended;
      rmSync(folder, { recursive: true, force: true });
      return code;
    },
  };
}

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

export async function eventually(check, what, ms = patience) {
  for (const end = Date.now() + ms; Date.now() < end; await pause(20))
    if (await check()) return;
  throw new Error(what + " did not come true");
}

// Runs all tests, or the one that TEST_ONLY names; with TEST_STOPS_AT_FAILURE, the first failure is the last.
export async function run(tests) {
  const { TEST_ONLY: only, TEST_STOPS_AT_FAILURE: stops } = process.env;
  const wanted = Object.entries(tests).filter(([name]) => !only || name === only);
  if (!wanted.length) throw new Error("there is no test " + only);
  let passed = 0, failed = 0;
  for (const [name, test] of wanted) {
    if (failed && stops) break;
    try {
      await test();
      passed++;
    } catch (error) {
      failed++;
      console.log("FAILED " + name + "\n" + error.stack);
    }
  }
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed ? 1 : 0);
}
