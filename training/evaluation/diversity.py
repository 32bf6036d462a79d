"""How much pictures of one caption differ from seed to seed, beside exact renders of the same objects
in whatever else the world may choose.

Objects are placed and lit as the world does. A caption that names neither place nor time is compared with
scenes whose own captions name neither.
"""

import collections
import dataclasses
import math

import torch

from sheet import to_bytes
from world import scene as worlds
from world.language import GROUNDS
from world.render import render

from .engine import tensor

# caption, the object it means, and the place when it names one
CAPTIONS = [("a red ball", ("sphere", "red"), None), ("a blue cube", ("cube", "blue"), None),
            ("a white house", ("house", "white"), None), ("a yellow star", ("star", "yellow"), None),
            ("a purple mushroom on the grass", ("mushroom", "purple"), "grass"),
            ("a green cone on a wooden table", ("cone", "green"), "table")]


def exact_scenes(context, wanted, place, count):
    """Scenes as the world draws them, with the caption's object put in."""
    found, seed = [], context.seed
    while len(found) < count:
        s = worlds.sample(seed, context.mix, "single", None)
        seed += 1
        fits = s.ground == place and s.time == "day" if place else not s.names_place and not s.names_time
        if fits and not s.objects[0].size:
            s.objects = [dataclasses.replace(s.objects[0], shape=wanted[0], colour=wanted[1], pattern="plain")]
            found.append(s)
    return found


def effective_number(names):
    """exp of the entropy: N equally frequent names count as N."""
    shares = [n / len(names) for n in collections.Counter(names).values()]
    return math.exp(-sum(p * math.log(p) for p in shares))


def deviation(values):
    return torch.tensor(values).std().item() if len(values) > 1 else 0.


def measure(context, pictures):
    """places: effective number of (place, time); x, radius: standard deviation in pixels of 64;
    pixels: root mean square difference between two pictures, in 0..1; grounds: how often each is seen."""
    seen = context.see(pictures)
    largest = [max(d["objects"], key=lambda f: f["r"]) for d in seen if d["objects"]]
    flat = tensor(pictures).flatten(1) / 2
    pairs = torch.pdist(flat) / flat.shape[1] ** .5
    return {"places": effective_number([(d["ground"], d["time"]) for d in seen]),
            "x": 64 * deviation([f["x"] for f in largest]), "radius": 64 * deviation([f["r"] for f in largest]),
            "pixels": pairs.pow(2).mean().sqrt().item(), "grounds": collections.Counter(d["ground"] for d in seen)}


def run(context):
    each = max(8, context.count // 4)
    rows = {}
    for number, (caption, wanted, place) in enumerate(CAPTIONS):
        pictures = context.engine.draw([caption] * each, context.seed + 1000 * number)
        exact = to_bytes(render(exact_scenes(context, wanted, place, each), 64))
        rows[caption] = {"drawn": measure(context, pictures), "exact": measure(context, exact)}
        context.add_to_sheet(caption, pictures, [caption] * each)
    names = ("places", "x", "radius", "pixels")
    rows["mean"] = {kind: {n: sum(rows[c][kind][n] for c, _, _ in CAPTIONS) / len(CAPTIONS) for n in names}
                    for kind in ("drawn", "exact")}
    lines = ["| caption, %d seeds | places and times (effective number) | x, deviation in px | "
             "radius, deviation in px | pixels, RMS difference |" % each, "|---|---|---|---|---|"]
    for caption, r in rows.items():
        lines.append("| %s | %s |" % (caption, " | ".join(
            "%.*f (exact %.*f)" % (d, r["drawn"][n], d, r["exact"][n]) for n, d in zip(names, (1, 1, 1, 2)))))
    lines += ["", "| ground, where it is left open | drawn | exact |", "|---|---|---|"]
    free = [rows[caption] for caption, _, place in CAPTIONS if not place]
    for ground in GROUNDS:
        shares = [sum(r[kind]["grounds"][ground] for r in free) / each / len(free) for kind in ("drawn", "exact")]
        lines.append("| %s | %.2f | %.2f |" % (ground, *shares))
    return {"seeds": each, "captions": rows}, lines
