"""Edits by the engine of exact renders: an object replaced, added or recoloured in place, a rough painting with its
caption, and enlargement; beside what shuffled captions score (chance) and what exact renders of the edited scenes
score (the checker's own errors). Images are edited at 256 px and judged at 64 px.
"""

import copy
import dataclasses
import random

import torch
import torch.nn.functional as F
from PIL import Image

from sheet import to_bytes
from world import captions
from world import scene as worlds
from world.language import BACKDROPS, COLOUR_NAMES, COLOURS, SHAPES
from world.render import render

from .engine import tensor
from .judge import judge, mean
from .sr import psnr
from .table import deranged

SIDE, SEEN = 256, 64            # pixels that are edited, and judged
PAINTING_STRENGTH = .75
NEAR = .08                      # of the image: how far a mask reaches beyond what it covers
# What a hand at the page's paint tool has: the colour words, browns and a sky.
PALETTE = list(COLOURS.values()) + list(BACKDROPS.values()) + [(.55, .36, .2), (.85, .75, .5), (.5, .7, .95)]
COLUMNS = ("shape", "colour", "count", "relation", "scene", "whole")
UPSCALED = {"64 to 256 px": (64, 256, 100), "256 to 1024 px": (256, 1024, 24)}     # pictures for every 100 prompts
PAIRS = 24                      # before and after, on the sheet


def shown(scenes, side=SIDE):
    return [p for s in scenes for p in to_bytes(render([s], side))]


def told(rng, mix, scene):
    """The scene with a caption of its own, which always tells the place."""
    captions.describe(rng, dataclasses.replace(mix, placeless=0.), scene)
    return scene


def without(scene, number):
    out = copy.deepcopy(scene)
    del out.objects[number]
    return out


def covered(scene, number):
    """The box (left, top, right, bottom) in pixels that an object and its shadow change, and some more."""
    one, other = render([scene, without(scene, number)], SIDE)
    changed = (one - other).abs().amax(0) > .05
    columns, rows = changed.any(0).nonzero()[:, 0], changed.any(1).nonzero()[:, 0]
    near = round(NEAR * SIDE)
    return (max(0, int(columns[0]) - near), max(0, int(rows[0]) - near),
            min(SIDE, int(columns[-1]) + 1 + near), min(SIDE, int(rows[-1]) + 1 + near))


def mask(box):
    """White, which is drawn anew, inside the box."""
    out = Image.new("L", (SIDE, SIDE), 0)
    out.paste(255, box)
    return out


def another(rng, names, name):
    return rng.choice([n for n in names if n != name])


# ---- cases: (image to edit or None, its mask or None, scene that is asked for) --------------------

def replaced(rng, mix, seed):
    """An object gives way to one of another shape and colour."""
    before = worlds.sample(seed, mix, "single", None)
    after = copy.deepcopy(before)
    o = after.objects[0]
    o.shape, o.colour, o.pattern = another(rng, SHAPES, o.shape), another(rng, COLOUR_NAMES, o.colour), "plain"
    return shown([before])[0], mask(covered(before, 0)), told(rng, mix, after)


def added(rng, mix, seed):
    """One object beside another, where there is none yet."""
    after = worlds.sample(seed, mix, ("left", "right")[seed % 2], None)
    return shown([without(after, 0)])[0], mask(covered(after, 0)), told(rng, mix, after)


def recoloured(rng, mix, seed):
    before = worlds.sample(seed, mix, "single", None)
    after = copy.deepcopy(before)
    for scene in (before, after):
        scene.objects[0].pattern = "plain"
    after.objects[0].colour = another(rng, COLOUR_NAMES, before.objects[0].colour)
    return shown([before])[0], None, told(rng, mix, after)


def daub(colour):
    """The colour of the palette that is nearest to a mean colour."""
    return min(PALETTE, key=lambda p: sum((a - float(b)) ** 2 for a, b in zip(p, colour)))


def painted(rng, mix, seed):
    """Two to four daubs: above and below the horizon, and an ellipse for each object."""
    scene = worlds.sample(seed, mix, ("single", "left", "right")[seed % 3], None)
    exact = render([scene], SIDE)[0]
    horizon = round(scene.horizon * SIDE)
    canvas = torch.zeros(3, SIDE, SIDE)
    for rows in (slice(0, horizon), slice(horizon, SIDE)):
        canvas[:, rows] = torch.tensor(daub(exact[:, rows].mean((1, 2))))[:, None, None]
    y, x = torch.meshgrid(torch.arange(SIDE) / SIDE, torch.arange(SIDE) / SIDE, indexing="ij")
    for o in scene.objects:
        inside = ((x - o.x) / o.r) ** 2 + ((y - o.y + .95 * o.r) / (.95 * o.r)) ** 2 < 1
        canvas[:, inside] = torch.tensor(daub(COLOURS[o.colour]))[:, None]
    return to_bytes(canvas[None])[0], None, told(rng, mix, scene)


CASES = {"replace an object": (replaced, []), "add an object": (added, []),
         "recolour at strength .5": (recoloured, ["--strength", ".5"]),
         "recolour at strength .8": (recoloured, ["--strength", ".8"]),
         "a rough painting": (painted, ["--strength", str(PAINTING_STRENGTH)])}


def seen(context, pictures):
    return context.see([p.resize((SEEN, SEEN), Image.BOX) for p in pictures])


def kept_as_they_were(before, after, hole):
    """Whether every pixel that the mask keeps is the input's own: an infinite PSNR."""
    a, b, keep = tensor([before]), tensor([after]), tensor([hole.convert("RGB")]) < 0
    return bool((a == b)[keep].all())


def scores(scenes, others, found, exact):
    return {"edited": mean([judge(s, f) for s, f in zip(scenes, found)]),
            "chance": mean([judge(o, f) for o, f in zip(others, found)]),
            "exact": mean([judge(s, e) for s, e in zip(scenes, exact)])}


def edits(context, number, name):
    make, options = CASES[name]
    rng = random.Random(context.seed + number)
    cases = [make(rng, context.mix, context.seed + number * 10 ** 6 + i) for i in range(context.count)]
    scenes = [scene for _, _, scene in cases]
    after = [context.engine.edit(image, hole, s.caption, i, SIDE, options)
             for i, (image, hole, s) in enumerate(cases)]
    row = scores(scenes, deranged(scenes, number), seen(context, after), seen(context, shown(scenes)))
    row["before"] = mean([judge(s, f) for s, f in zip(scenes, seen(context, [image for image, _, _ in cases]))])
    if name == "a rough painting":
        plain = context.engine.draw([s.caption for s in scenes], 0, SIDE)
        row["without the painting"] = mean([judge(s, f) for s, f in zip(scenes, seen(context, plain))])
    holes = [kept_as_they_were(image, a, hole) for (image, hole, _), a in zip(cases, after) if hole]
    for (image, _, s), a in list(zip(cases, after))[:PAIRS // len(CASES)]:
        context.add_to_sheet(name, [image, a], ["before", s.caption])
    out = {k: {n: round(v, 3) for n, v in r.items()} for k, r in row.items()}
    return dict(out, pictures=len(cases), **({"kept pixels unchanged": sum(holes)} if holes else {}))


def upscaled(context, low, high, count):
    """(PSNR of the stages, PSNR of bicubic), means over exact renders."""
    rows = []
    for i in range(count):
        s = worlds.sample(context.seed + 2 * 10 ** 9 + i, context.mix, None, True)
        small, large = (to_bytes(render([s], side))[0] for side in (low, high))
        drawn = context.engine.upscale(small, s.caption, i)
        bicubic = F.interpolate(tensor([small]), size=(high, high), mode="bicubic", align_corners=False).clamp(-1, 1)
        rows.append((psnr(tensor([drawn]), tensor([large])), psnr(bicubic, tensor([large]))))
    return [sum(r[k] for r in rows) / count for k in (0, 1)]


def cells(row):
    return " | ".join("%.2f" % row[c] if c in row else "" for c in COLUMNS)


LABELS = {"edited": "", "chance": "chance (shuffled captions)", "exact": "exact renders", "before": "before the edit",
          "without the painting": "the caption without the painting"}


def markdown(results):
    lines = ["| edit | pictures | %s |" % " | ".join(COLUMNS), "|---" * (2 + len(COLUMNS)) + "|"]
    for name, r in results["edits"].items():
        for label, title in LABELS.items():
            if label in r:
                lines.append("| %s | %s | %s |" % (title or name, "" if title else r["pictures"], cells(r[label])))
    lines.append("")
    for name, r in results["edits"].items():
        if "kept pixels unchanged" in r:
            lines.append("%s: all kept pixels are the input's own in %d of %d images." % (
                name, r["kept pixels unchanged"], r["pictures"]))
    lines += ["", "| upscale | pictures | PSNR | bicubic | gain |", "|---|---|---|---|---|"]
    for name, r in results["upscale"].items():
        lines.append("| %s | %d | %.2f dB | %.2f dB | %+.2f dB |" % (
            name, r["pictures"], r["psnr"], r["bicubic"], r["psnr"] - r["bicubic"]))
    return lines


def run(context):
    results = {"edits": {}, "upscale": {}}
    for number, name in enumerate(CASES):
        results["edits"][name] = edits(context, number, name)
        context.say("%s: %s" % (name, results["edits"][name]))
    for name, (low, high, pictures) in UPSCALED.items():
        count = max(1, pictures * context.count // 100)
        mine, bicubic = upscaled(context, low, high, count)
        results["upscale"][name] = {"pictures": count, "psnr": round(mine, 2), "bicubic": round(bicubic, 2)}
        context.say("%s: %s" % (name, results["upscale"][name]))
    return results, markdown(results)
