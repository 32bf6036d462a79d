"""How well pictures show what their captions say, per task and attribute, on held-out combinations.

    evaluate.py RUNS --checker CHECKER --out results.json            pictures drawn here, in torch
    evaluate.py RUNS --checker CHECKER --exact ...                   exact renders: the checker's own score

Every score stands beside its chance row: the same pictures judged against shuffled captions.
"""

import threads  # noqa: F401  (before torch)

import argparse
import json
import pathlib
import random

import torch

import checker as checking
import sheet
from nets import unet
from sample import Cascade
from world import scene as worlds
from world.render import render

TASKS = {"single object": ["single"], "two objects": ["next", "left"], "counting": ["count"],
         "position": ["left", "right", "above", "on top"], "attribution": ["list", "between"]}
WHOLE = ("shape", "colour", "count", "relation", "scene", "time")




def relation_holds(layout, a, b):
    if layout in ("left", "next"):
        return a["x"] < b["x"] - .05
    if layout == "right":
        return a["x"] > b["x"] + .05
    return a["y"] < b["y"] - .05                    # above, on top


def match(group, found):
    """The found objects that best fit a phrase: most attributes first, then confidence."""
    def fit(f):
        return (f["shape"] == group[0].shape) + (f["colour"] == group[0].colour) + .01 * f["score"]
    return sorted(found, key=fit, reverse=True)[:len(group)]


def judge(scene, seen):
    """Scores 0..1 per attribute for one picture."""
    found, ground, time = seen
    groups = [[o for o in scene.objects if o.group == g] for g in sorted({o.group for o in scene.objects})]
    out = {"scene": float(ground == scene.ground), "time": float(time == scene.time),
           "count": float(len(found) == len(scene.objects))}
    shape, colour, pattern, left, picks = [], [], [], list(found), []
    for group in groups:
        best = match(group, left)
        picks.append(best)
        left = [f for f in left if f not in best]
        missing = [0.] * (len(group) - len(best))
        shape += [float(f["shape"] == group[0].shape) for f in best] + missing
        colour += [float(f["colour"] == group[0].colour) for f in best] + missing
        pattern += [float(f["pattern"] == group[0].pattern) for f in best] + missing
    out.update(shape=sum(shape) / len(shape), colour=sum(colour) / len(colour),
               pattern=sum(pattern) / len(pattern))
    if scene.layout in ("left", "right", "next", "above", "on top"):
        both = picks[0] and picks[1]
        out["relation"] = float(bool(both) and relation_holds(scene.layout, picks[0][0], picks[1][0]))
    out["whole"] = float(all(out.get(k, 1.) == 1. for k in WHOLE))
    return out


def mean(rows):
    names = sorted({k for r in rows for k in r})
    return {k: round(sum(r[k] for r in rows if k in r) / sum(k in r for r in rows), 3) for k in names}


def prompts_for(layouts, count, mix, held_out, seed):
    return [worlds.sample(seed + i, mix, layouts[i % len(layouts)], held_out) for i in range(count)]


def pictures(opt, cascade, scenes):
    if opt.exact:
        return render(scenes, 64) * 2 - 1
    out = []
    for i in range(0, len(scenes), 16):
        text = cascade.encode([s.caption for s in scenes[i:i + 16]])
        noise = torch.randn(len(text), 3, 64, 64, generator=torch.Generator().manual_seed(opt.seed + i))
        out.append(cascade.base(text, noise, opt.steps, opt.guidance))
    return torch.cat(out)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    args.add_argument("runs", type=pathlib.Path)
    args.add_argument("--checker", type=pathlib.Path, required=True)
    args.add_argument("--out", type=pathlib.Path, required=True)
    args.add_argument("--count", type=int, default=100, help="prompts per task")
    args.add_argument("--mix", default=None)
    args.add_argument("--held-out", action="store_true", help="only combinations never trained on")
    args.add_argument("--exact", action="store_true")
    args.add_argument("--steps", type=int, default=20)
    args.add_argument("--guidance", type=float, default=3.)
    args.add_argument("--seed", type=int, default=4 * 10 ** 9)
    args.add_argument("--half", action="store_true")
    args.add_argument("--sheet", type=pathlib.Path, default=None)
    opt = args.parse_args()
    unet.HALF = opt.half
    net, cascade = checking.load(opt.checker), None if opt.exact else Cascade(opt.runs)
    mix, results, everything = worlds.Mix.load(opt.mix), {}, []
    for n, (task, layouts) in enumerate(TASKS.items()):
        scenes = prompts_for(layouts, opt.count, mix, opt.held_out, opt.seed + n * 10 ** 6)
        images = pictures(opt, cascade, scenes)
        seen = checking.detect(net, images)
        other = scenes[:]
        random.Random(n).shuffle(other)
        rows = [judge(s, d) for s, d in zip(scenes, seen)]
        results[task] = {"score": mean(rows), "chance": mean([judge(s, d) for s, d in zip(other, seen)])}
        everything += list(zip(scenes, images))[:16]
        print(task, json.dumps(results[task]), flush=True)
    opt.out.write_text(json.dumps({
        "samples": None if opt.exact else cascade.seen, "held_out": opt.held_out, "exact": opt.exact,
        "count": opt.count, "steps": opt.steps, "guidance": opt.guidance, "tasks": results}, indent=1) + "\n")
    if opt.sheet:
        sheet.save(opt.sheet, (torch.stack([i for _, i in everything]) + 1) / 2,
                   [s.caption for s, _ in everything], 10, 128)


if __name__ == "__main__":
    main()
