// What the model knows: its things by category, which can be searched in every language that it
// understands, each with a prompt to begin with. Called by page.js.
import { $ } from "./api.js";

let things = [];

const plain = (text) => text.toLowerCase().normalize("NFD").replace(/\p{M}/gu, "");

// Everything that a thing may be called.
const wordsOf = ({ words, languages }) => [...words, ...Object.values(languages || {}).flat()].map(plain);

function makeButton({ name, example }) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = name;
  button.title = button.dataset.prompt = example || name;
  return button;
}

function makeGroup([category, members]) {
  const group = document.createElement("section"), title = document.createElement("h2");
  title.textContent = category;
  group.append(title, ...members.map(({ button }) => button));
  return group;
}

// Hides what does not match; several words must all be found.
function search() {
  const asked = plain($("known-search").value).split(/\s+/).filter(Boolean);
  let count = 0;
  for (const { button, words, category } of things) {
    const all = [...words, plain(category)];
    button.hidden = !asked.every((part) => all.some((word) => word.includes(part)));
    count += !button.hidden;
  }
  for (const group of $("known-list").children)
    group.hidden = !group.querySelector("button:not([hidden])");
  $("known-count").textContent = count === things.length ? "Choose one for an example."
    : count ? count + " found" : "The model knows nothing of this name.";
}

// vocabulary: of the capabilities; null: the model does not say.
export function showKnown(vocabulary) {
  $("known").hidden = !vocabulary;
  things = [];
  if (!vocabulary) return;
  const groups = new Map();
  for (const [list, category] of [[vocabulary.nouns || []], [vocabulary.shapes || [], "shapes"]])
    for (const thing of list) {
      const entry = { category: category || thing.category || "things", button: makeButton(thing), words: wordsOf(thing) };
      things.push(entry);
      groups.set(entry.category, [...groups.get(entry.category) || [], entry]);
    }
  $("known-list").replaceChildren(...[...groups].map(makeGroup));
  $("known-title").textContent = "What this model knows (" + things.length + ")";
  const more = [["Colors", vocabulary.colours], ["Places", vocabulary.places], ["Times", vocabulary.times],
    ["Weather", vocabulary.weather]].filter(([, words]) => words && Object.keys(words).length)
    .map(([title, words]) => title + ": " + Object.entries(words).map(([name, [first]]) => first || name).join(", ") + ".");
  $("known-more").textContent = more.join(" ");
  search();
}

$("known-search").addEventListener("input", search);
$("known-search").addEventListener("keydown", (event) => {
  if (event.key === "Enter") event.preventDefault(); // it is in the form
});
