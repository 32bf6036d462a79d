"""Scores of nouns: every noun of the vocabulary, pairs with a relation, numbers, colours, places and times,
combinations never trained on, other languages; beside what shuffled captions score (chance) and what exact
renders of the same scenes score (the checker's own errors).
"""

import dataclasses
import random

import sheet
from sheet import to_bytes
from world import foreign, staging
from world.language import COLOUR_NAMES, NUMBERS
from world.render import render
from world.staging import Wanted

from .judge import judge, mean
from .table import deranged

MIX = staging.NounMix(solids=0., mixed=0., weather=0., sized=0., polite=.1, placeless=.3, timeless=.3)
COLUMNS = ("shape", "grey", "count", "relation", "colour", "scene", "time", "whole")
RELATED = ("left", "right", "on top", "above", "front", "behind", "between", "next")
# row: (bar, the scores whose ratio to exact renders has to reach it)
BARS = {"one noun": (.90, ("shape",)), "two nouns, both": (.85, ("both",)),
        "two nouns, both and the relation": (.80, ("both and relation",)), "counting 2..5": (.85, ("counted",)),
        "colour of a noun": (.92, ("colour",)), "colours of two nouns": (.85, ("colour",)),
        "places and times": (.97, ("scene", "time")),
        "held out pair": (.65, ("whole",)), "held out colour": (.65, ("whole",)), "held out place": (.65, ("whole",)),
        "held out number": (.65, ("whole",))}
HELD_OUT = ("pair", "colour", "place", "number")
CATEGORY_BAR, LANGUAGE_BAR, SEEN_AS_KNOWN = .80, .80, .5


def extra(scene, scores):
    """Scores that need several attributes at once."""
    out = dict(scores)
    both = float(scores.get("shape", 0.) == 1.)
    if len({o.group for o in scene.objects}) > 1:
        out["both"] = both
        if "relation" in scores:
            out["both and relation"] = both * scores["relation"]
    if scene.layout == "count":
        out["counted"] = scores["count"] * scores["shape"]
    if scene.language != "en":
        out["told"] = float(all(scores.get(k, 1.) == 1. for k in ("shape", "count", "colour")))
    return out


class Maker:
    """Scenes for every row, each a pure function of the seed."""

    def __init__(self, context):
        self.cast, self.seed, self.count = context.cast, context.seed, context.count
        self.rng = random.Random(context.seed)
        self.numbers = [i for i, n in enumerate(self.cast.nouns) if not context.waves or n.wave in context.waves]
        self.deck = []
        self.at = 0

    def noun(self, suits=lambda i: True):
        """Nouns in turn, shuffled, so that all are asked for about equally often."""
        for _ in range(4 * len(self.numbers)):
            if not self.deck:
                self.deck = self.rng.sample(self.numbers, len(self.numbers))
            noun = self.deck.pop()
            if suits(noun):
                return noun
        raise SystemExit("no noun of these waves suits a row of the table")

    def scene(self, layout, wanted, held_out=False, **mix):
        self.at += 1
        return staging.sample(self.seed + self.at, dataclasses.replace(MIX, **mix), self.cast, layout, held_out, wanted)

    def many(self, make):
        return [make() for _ in range(self.count)]

    def single(self, repeats):
        return [self.scene("single", Wanted((i,)), None, colour=0., plain_caption=.5) for i in self.numbers * repeats]

    def related(self):
        layout = RELATED[self.at % len(RELATED)]
        above = layout == "above"
        first = self.noun(lambda i: not above or "f" in self.cast.nouns[i].flags)
        others = [first]
        while len(others) < (3 if layout == "between" else 2):
            others.append(self.noun(lambda i: i not in others))
        return self.scene(layout, Wanted(tuple(others)), None, colour=0.)

    def numbered(self, noun, count, held_out):
        """A row of a noun whose caption tells how many, not only that they are many."""
        while True:
            s = self.scene("count", Wanted((noun,), count=count), held_out, colour=0.)
            text = " ".join(s.words)
            if any(w in text for w in NUMBERS[count]):
                return s

    def counted(self):
        return self.numbered(self.noun(lambda i: staging.countable(self.cast.nouns[i])), 2 + self.at % 4, None)

    def coloured(self, layout):
        nouns = [self.noun(lambda i: self.cast.variants[i])]
        if layout != "single":
            nouns.append(self.noun(lambda i: self.cast.variants[i] and i != nouns[0]))
        variants = tuple(self.rng.choice(self.cast.variants[i]) for i in nouns)
        return self.scene(layout, Wanted(tuple(nouns), variants), None)

    def placed(self):
        while True:
            s = self.scene("single", Wanted((self.noun(),)), None, colour=0., placeless=0.)
            if s.names_place:
                return s

    def held_out(self, kind):
        kept, known = staging.held_out_nouns(), {self.cast.nouns[i].id for i in self.numbers}
        number = self.cast.number
        if kind == "pair":
            pairs = sorted(tuple(sorted(p)) for p in kept.pair if p <= known)
            wanted = [(("left", "right", "next")[i % 3], Wanted((number[a], number[b]))) for i, (a, b) in enumerate(pairs)]
        elif kind == "colour":
            wanted = [("single", Wanted((number[a],), (1 + COLOUR_NAMES.index(c),))) for a, c in sorted(kept.colour) if a in known]
        elif kind == "place":
            wanted = [("single", Wanted((number[a],), ground=g)) for a, g in sorted(kept.place) if a in known]
        else:
            counts = [(number[a], n) for a, n in sorted(kept.number) if a in known]
            return [self.numbered(*counts[i % len(counts)], True) for i in range(self.count)] if counts else []
        colour = {} if kind == "colour" else {"colour": 0.}
        return [self.scene(layout, want, True, placeless=0., **colour)
                for layout, want in (wanted[i % len(wanted)] for i in range(self.count))] if wanted else []

    def foreign(self, language):
        told = foreign.table().get(language, {})
        suits = [i for i in self.numbers if self.cast.nouns[i].id in told and self.cast.variants[i]
                 and staging.countable(self.cast.nouns[i])]
        out = []
        for k in range(self.count if suits else 0):
            noun = suits[self.rng.randrange(len(suits))]
            want = Wanted((noun,), (self.rng.choice(self.cast.variants[noun]),)) if k % 2 else \
                Wanted((noun,), (0,), count=2 + k // 2 % 4)
            out.append(self.scene("single" if k % 2 else "count", want, None, languages={language: 1.}))
        return [s for s in out if s.language == language]

    def rows(self, repeats=2):
        rows = {"one noun": self.single(repeats), "two nouns": self.many(self.related),
                "counting 2..5": self.many(self.counted), "colour of a noun": self.many(lambda: self.coloured("single")),
                "colours of two nouns": self.many(lambda: self.coloured(self.rng.choice(("left", "right")))),
                "places and times": self.many(self.placed)}
        for kind in HELD_OUT:
            rows["held out " + kind] = self.held_out(kind)
        for language in foreign.LANGUAGES:
            rows["in " + language] = self.foreign(language)
        return {name: scenes for name, scenes in rows.items() if scenes}


def scores(entries):
    """entries: (scene, another's scene, what is seen in the drawn picture, in the exact render)."""
    rows = {"drawn": mean([extra(s, judge(s, d)) for s, _, d, _ in entries]),
            "chance": mean([extra(o, judge(o, d)) for _, o, d, _ in entries]),
            "exact": mean([extra(s, judge(s, e)) for s, _, _, e in entries])}
    rows["ratio"] = {k: v / rows["exact"][k] for k, v in rows["drawn"].items() if rows["exact"].get(k)}
    return dict({k: {n: round(v, 3) for n, v in r.items()} for k, r in rows.items()}, pictures=len(entries))


def by_noun(entries, cast):
    """{noun: (category, share of its pictures in which it is recognised, the same of exact renders, what it is
    taken for)}"""
    out = {}
    for s, _, d, e in entries:
        noun = cast.nouns[s.objects[0].noun]
        row = out.setdefault(noun.id, {"category": noun.category, "drawn": [], "exact": [], "grey": [], "seen": []})
        for kind, seen in (("drawn", d), ("exact", e)):
            row[kind].append(judge(s, seen)["shape"])
        row["grey"].append(judge(s, d)["grey"])
        row["seen"] += [f["shape"].split(":")[-1] for f in d["objects"][:1]]
    for row in out.values():
        for kind in ("drawn", "exact", "grey"):
            row[kind] = sum(row[kind]) / len(row[kind])
    return out


def _bars(results, nouns):
    out = {}
    for row, (bar, names) in BARS.items():
        entry = results.get("two nouns" if row.startswith("two nouns") else row)
        if entry:
            out[row] = {"ratio": min(entry["ratio"].get(n, 0.) for n in names), "bar": bar}
    for name, entry in results.items():
        if name.startswith("in "):
            out[name] = {"ratio": entry["ratio"].get("told", 0.), "bar": LANGUAGE_BAR}
    for category in sorted({n["category"] for n in nouns.values()}):
        rows = [n for n in nouns.values() if n["category"] == category]
        exact = sum(n["exact"] for n in rows)
        out["category: " + category] = {"ratio": sum(n["drawn"] for n in rows) / max(exact, 1e-9), "bar": CATEGORY_BAR}
    return out


def _cells(row):
    return " | ".join("%.2f" % row[c] if c in row else "" for c in COLUMNS)


def markdown(results):
    lines = ["| row | pictures | %s |" % " | ".join(COLUMNS), "|---" * (2 + len(COLUMNS)) + "|"]
    for name, r in results["rows"].items():
        lines += ["| %s | %d | %s |" % (name, r["pictures"], _cells(r["drawn"])),
                  "| chance (shuffled captions) | | %s |" % _cells(r["chance"]),
                  "| exact renders | | %s |" % _cells(r["exact"])]
    lines += ["", "| row | drawn / exact | bar | |", "|---|---|---|---|"]
    for name, bar in results["bars"].items():
        met = "met" if bar["ratio"] >= bar["bar"] else "missed"
        lines.append("| %s | %.3f | %.2f | %s |" % (name, bar["ratio"], bar["bar"], met))
    weak = results["weak"]
    lines += ["", "%d of %d nouns are recognised in under half of their pictures: %s" % (
        len(weak), len(results["nouns"]), ", ".join("%s (as %s)" % w for w in weak) or "none")]
    return lines


def run(context):
    made, seen, results = Maker(context).rows(), {}, {}
    for number, (name, scenes) in enumerate(made.items()):
        pictures = context.engine.draw([s.caption for s in scenes], context.seed + number * 10 ** 6)
        exact = [p for i in range(0, len(scenes), 64)
                 for p in to_bytes(render(scenes[i:i + 64], 64, atlas=context.atlas))]
        seen[name] = list(zip(scenes, deranged(scenes, number), context.see(pictures), context.see(exact)))
        context.add_to_sheet(name, pictures, [s.caption for s in scenes])
        if name == "one noun":
            sheet.save(context.out / "every_noun.jpg", pictures, [s.caption for s in scenes], 16, 96)
        results[name] = scores(seen[name])
        context.say("%s: %s" % (name, results[name]["drawn"]))
    nouns = by_noun(seen["one noun"], context.cast)
    weak = [(name, n["seen"][0] if n["seen"] else "nothing") for name, n in nouns.items() if n["drawn"] < SEEN_AS_KNOWN]
    results = {"rows": results, "bars": _bars(results, nouns), "nouns": nouns, "weak": weak}
    return results, markdown(results)
