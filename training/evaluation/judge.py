"""Whether a picture shows what its caption says, from what the checker sees in it.

"grey" says how many nouns are right to an eye without colours, and does not count for the whole. Only what
the caption says is judged: a place that it does not name, a size that it leaves open, are
free. Scores are 0..1 per attribute; an attribute of which the caption says nothing is absent.
"""

import itertools

from world.scene import RADII

MOST_FOUND = 7
SIZED_LAYOUTS = {"single": "single", "left": "pair", "right": "pair", "next": "pair"}


def relation_holds(layout, a, b, c=None):
    """Of the objects that a caption names first, second and third."""
    def foot(o):
        return o["y"] + o["half"]
    if layout == "left":
        return a["x"] < b["x"] - .05
    if layout == "right":
        return a["x"] > b["x"] + .05
    if layout == "next":
        return abs(a["x"] - b["x"]) > .1 and abs(foot(a) - foot(b)) < .15
    if layout in ("front", "behind"):        # "b behind a" says the same as "a in front of b"
        return foot(a) > foot(b) + .03
    if layout == "between":
        return (b["x"] + .05 < a["x"] < c["x"] - .05) or (c["x"] + .05 < a["x"] < b["x"] - .05)
    return a["y"] < b["y"] - .05              # above, on top


RELATIONS = ("left", "right", "next", "front", "behind", "between", "above", "on top", "count above")


def size_fits(kind, size, r):
    middle, small, large = RADII[kind]
    return r < (small + middle) / 2 if size == "small" else r > (middle + large) / 2


def assign(objects, found):
    """For every object of the caption what was found in its place, or None: the assignment in which
    the most attributes are right."""
    found = sorted(found, key=lambda f: -f["score"])[:MOST_FOUND]
    found += [None] * (len(objects) - len(found))

    def fit(picks):
        return sum((f["shape"] == o.shape) + (f["colour"] == o.colour) + .5 * (f["pattern"] == o.pattern)
                   + .01 * f["score"] for o, f in zip(objects, picks) if f)
    return max(itertools.permutations(found, len(objects)), key=fit)


def judge(scene, seen):
    """Scores per attribute, and "whole": everything that the caption says is right at once."""
    objects, found = scene.objects, seen["objects"]
    picks = assign(objects, found)
    pairs = list(zip(objects, picks))
    out = {"count": float(len(found) == len(objects))}

    def score(name, rows, right):
        if rows:
            out[name] = sum(float(f is not None and right(o, f)) for o, f in rows) / len(rows)
    score("shape", pairs, lambda o, f: f["shape"] == o.shape)
    score("colour", [p for p in pairs if p[0].names_colour], lambda o, f: f["colour"] == o.colour)
    score("pattern", [p for p in pairs if p[0].pattern != "plain"], lambda o, f: f["pattern"] == o.pattern)
    if scene.layout in SIZED_LAYOUTS:
        kind = SIZED_LAYOUTS[scene.layout]
        score("size", [p for p in pairs if p[0].size and p[0].noun < 0], lambda o, f: size_fits(kind, o.size, f["r"]))
    if scene.layout in RELATIONS:
        named = [next(f for o, f in pairs if o.group == g) for g in sorted({o.group for o in objects})]
        out["relation"] = float(all(named) and relation_holds(scene.layout, *named))
    if scene.names_place:
        out["scene"] = float(seen["ground"] == scene.ground and (
            scene.ground != "plain" or seen["backdrop"] == scene.backdrop))
    if scene.names_time:
        out["time"] = float(seen["time"] == scene.time)
    patterns = all(f and f["pattern"] == o.pattern for o, f in pairs)
    out["whole"] = float(patterns and all(v == 1. for v in out.values()))
    score("grey", [p for p in pairs if p[0].noun >= 0], lambda o, f: f["grey"] == o.shape)
    return out


def mean(rows):
    """Per attribute the mean over the pictures that have it."""
    names = sorted({k for r in rows for k in r})
    return {k: sum(r[k] for r in rows if k in r) / sum(k in r for r in rows) for k in names}
