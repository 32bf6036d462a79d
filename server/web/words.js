// Texts of the page: sizes, times, and errors next to the field that caused them.
import { $, key } from "./api.js";

// Maps the API's field names to element ids.
const FIELDS = { model: "model", prompt: "prompt", negative_prompt: "negative", size: "size", n: "count",
  preset: "preset", seed: "seed", picture: "picture", steps: "steps", guidance_scale: "guidance",
  sampler: "sampler", strength: "strength", loras: "loras" };

export const sides = (size) => String(size).includes("x") ? size.split("x").map(Number) : [size, size];
export const sizeText = (size) => sides(size)[0] === sides(size)[1] ? sides(size)[0] + " px"
  : sides(size).join(" × ") + " px";
export const seconds = (s) => s < 90 ? Math.max(1, Math.round(s)) + " s" : Math.round(s / 60) + " min";
export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1).replace(/\.?$/, ".");

// Words for the effect of a strength, each up to its value.
const STRENGTHS = [[.25, "subtle"], [.45, "gentle"], [.65, "balanced"], [.85, "strong"],
  [.99, "almost new"], [1, "all new"]];
export const strengthWord = (strength) => STRENGTHS.find(([most]) => strength <= most)[1];

// Announces to screen readers.
export function say(text) { $("status").textContent = text; }

const field = (error) => $(FIELDS[error.param]);

export function words(error) {
  if (error.status === 401) {
    $("key-field").hidden = false;
    return key.get() ? "This API key is not valid." : "This server requires an API key.";
  }
  if (error.status === 429)
    return sentence(error.message) + " Try again in " + error.retry + " s.";
  if (error.status === 503) return "The server is not ready: " + sentence(error.message);
  if (error.local) return sentence(error.message);
  if (!error.status) return "Cannot reach the server.";
  if (adviceOn(error)) return sentence(error.message) + " " + adviceOn(error);
  const own = field(error), label = own && (own.labels ? own.labels[0] : own.querySelector("legend"));
  return sentence(label ? error.message.replace('"' + error.param + '"', label.textContent) : error.message);
}

function adviceOn(error) {
  if (error.status === 413) return "Choose a smaller image.";
  return { image: "Choose another image, or save it as PNG or JPEG first.",
    mask: "Clear the marks and mark the area again.", scale: "Choose a smaller factor." }[error.param];
}

// Shows the error next to the button and focuses the field that caused it.
export function complain(error) {
  $("message").textContent = words(error);
  let wrong = error.status === 401 ? $("key") : field(error);
  if (wrong && !wrong.labels) wrong = wrong.querySelector("input"); // of a group
  if (!wrong) {
    $("message").scrollIntoView({ block: "nearest" });
    return;
  }
  if ($("more").contains(wrong)) $("more").open = true;
  wrong.setAttribute("aria-invalid", "true");
  wrong.setAttribute("aria-describedby", "message");
  wrong.focus();
  $("message").scrollIntoView({ block: "nearest" });
}

export function settle() {
  $("message").textContent = "";
  for (const wrong of document.querySelectorAll("[aria-invalid]")) {
    wrong.removeAttribute("aria-invalid");
    wrong.removeAttribute("aria-describedby");
  }
  $("seed").setAttribute("aria-describedby", "seed-help");
}

// An error detected by the page itself, with advice.
export function fault(message) {
  return Object.assign(new Error(message), { local: true });
}
