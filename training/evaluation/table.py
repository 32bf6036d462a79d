"""Scores per task and attribute on combinations that training never saw, beside what shuffled captions
score (chance) and what exact renders of the same scenes score (the checker's own errors)."""

import random

from sheet import to_bytes
from world import scene as worlds
from world.render import render

from .judge import judge, mean

COLUMNS = ("shape", "colour", "count", "relation", "pattern", "size", "scene", "time", "whole")
# Drawn tasks: the layouts of their scenes.
TASKS = {"single object": ["single"], "two objects": ["next", "left", "right"], "counting": ["count"],
         "position": ["left", "right", "above", "on top", "front", "behind", "between"],
         "colour attribution": ["list", "between"]}
# Tasks judged on those pictures of all drawn tasks whose captions are of their kind.
PICKED = {"patterns": lambda s: any(o.pattern != "plain" for o in s.objects),
          "scene": lambda s: s.names_place and s.names_time,
          "never-seen colour-shape pairs": lambda s: any(
              (o.colour, o.shape) in worlds.HELDOUT.colour_shape for o in s.objects)}
# What is to be reached, as fractions of the score of exact renders.
BARS = {"colour": .95, "shape": .90, "count": .90, "relation": .90, "scene": .98, "time": .98,
        "pattern": .75, "whole": .65}
PAIR_BAR = .50


def scenes_of(context, task, number):
    layouts = TASKS[task]
    return [worlds.sample(context.seed + number * 10 ** 6 + i, context.mix, layouts[i % len(layouts)], True)
            for i in range(context.count)]


def deranged(scenes, seed):
    """The scenes shuffled so that none stays in its place."""
    order, out = list(range(len(scenes))), list(scenes)
    random.Random(seed).shuffle(order)
    for at, other in zip(order, order[1:] + order[:1]):
        out[at] = scenes[other]
    return out


def scores(entries):
    """entries: (scene, another's scene, what is seen in the drawn picture, in the exact render)."""
    rows = {"drawn": mean([judge(s, d) for s, _, d, _ in entries]),
            "chance": mean([judge(o, d) for _, o, d, _ in entries]),
            "exact": mean([judge(s, e) for s, _, _, e in entries])}
    rows["ratio"] = {k: v / rows["exact"][k] for k, v in rows["drawn"].items() if rows["exact"].get(k)}
    return dict({k: {n: round(v, 3) for n, v in r.items()} for k, r in rows.items()}, pictures=len(entries))


def cells(row):
    return " | ".join("%.2f" % row[c] if c in row else "" for c in COLUMNS)


def markdown(results):
    lines = ["| task | pictures | %s |" % " | ".join(COLUMNS), "|---" * (2 + len(COLUMNS)) + "|"]
    for task, r in results["tasks"].items():
        lines += ["| %s | %d | %s |" % (task, r["pictures"], cells(r["drawn"])),
                  "| chance (shuffled captions) | | %s |" % cells(r["chance"]),
                  "| exact renders | | %s |" % cells(r["exact"]),
                  "| drawn / exact | | %s |" % cells(r["ratio"])]
    lines += ["", "| over all %d pictures | drawn / exact | bar | |" % results["tasks"]["all"]["pictures"],
              "|---|---|---|---|"]
    for name, bar in results["bars"].items():
        lines.append("| %s | %.3f | %.2f | %s |" % (name, bar["ratio"], bar["bar"],
                                                  "met" if bar["ratio"] >= bar["bar"] else "missed"))
    return lines


def run(context):
    drawn, results = {}, {}
    for number, task in enumerate(TASKS):
        scenes = scenes_of(context, task, number)
        pictures = context.engine.draw([s.caption for s in scenes], context.seed + number * 10 ** 6)
        others = deranged(scenes, number)
        exact = to_bytes(render(scenes, 64))
        drawn[task] = list(zip(scenes, others, context.see(pictures), context.see(exact)))
        context.add_to_sheet(task, pictures, [s.caption for s in scenes])
        results[task] = scores(drawn[task])
        context.say("%s: %s" % (task, results[task]["drawn"]))
    everything = [e for entries in drawn.values() for e in entries]
    for task, wanted in PICKED.items():
        results[task] = scores([e for e in everything if wanted(e[0])])
    results["all"] = scores(everything)
    bars = {k: {"ratio": results["all"]["ratio"].get(k, 0.), "bar": v} for k, v in BARS.items()}
    pairs = "never-seen colour-shape pairs"
    bars[pairs + ", whole"] = {"ratio": results[pairs]["ratio"].get("whole", 0.), "bar": PAIR_BAR}
    results = {"tasks": results, "bars": bars}
    return results, markdown(results)
