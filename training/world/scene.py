"""Sampling of scenes: which objects, where, how large, in what surroundings.

A scene is plain data and a pure function of (seed, mix). Positions are fractions of the picture,
x to the right and y downwards; `y` of an object is where it touches the ground, `r` its radius.
The light always comes from the right, so no mirrored picture has the same caption. This is the world of the
eleven solids; staging.py plays nouns in it.
"""

import dataclasses
import json
import pathlib
import random

from . import captions
from .language import (BACKDROPS, COLOUR_NAMES, GROUNDS, LAYOUTS, OUTDOORS, PATTERNS, SHAPES, SOLIDS,
                       TIMES)

HELDOUT_FILE = pathlib.Path(__file__).resolve().parent.parent / "heldout.json"


@dataclasses.dataclass
class Object:
    shape: str
    colour: str
    pattern: str = "plain"
    size: str = None
    group: int = 1             # which phrase of the caption names it
    x: float = .5
    y: float = .85
    r: float = .2
    phase: float = 0.
    skew: float = 0.
    floating: bool = False
    resting: bool = False      # stands on another object
    names_colour: bool = True  # whether the caption tells the colour
    noun: int = -1             # an object of the atlas (shape: "noun:" and its id): its number in a cast,
    variant: int = 0           # colour word 1..10, or 0 for its own colours,
    drawing: int = 0           # which of its drawings,
    tilt: float = 0.           # degrees,
    stretch: float = 1.        # how much wider than drawn,
    mirror: bool = False


@dataclasses.dataclass
class Scene:
    seed: int
    layout: str
    ground: str
    time: str
    backdrop: str
    horizon: float
    mountains: bool
    objects: list
    random: list               # free numbers for the surroundings: cloud offsets and the like
    words: list = None
    groups: list = None        # for every word the group it describes, 0 for none
    caption: str = ""
    names_place: bool = False  # whether the caption tells the place; and the time, where there is one:
    names_time: bool = False   # a place without a time is a place by day
    weather: str = None
    view: tuple = None         # which surroundings these are, of those that a composer may keep
    language: str = "en"


@dataclasses.dataclass
class Mix:
    """How often everything happens. The defaults are the full world."""

    layouts: dict = dataclasses.field(default_factory=lambda: {
        "empty": .4, "single": 5, "count": 4, "count above": 1.5, "left": 2.5, "right": 2.5, "above": 2,
        "on top": 2.5, "front": 1.5, "behind": 1.5, "next": 1.5, "between": 1.5, "list": 1})
    grounds: dict = dataclasses.field(default_factory=lambda: {
        "table": 3, "grass": 3, "beach": 2, "snow": 2, "tiles": 2, "plain": 2})
    pattern: float = .4        # chance that a solid is not plain
    sized: float = .4          # chance that a size is named
    spread: float = 1.         # how far positions and radii vary
    plain_caption: float = 0.  # chance of the plainest wording
    placeless: float = .12     # chance that another caption leaves out the place
    timeless: float = .3       # chance that one of these leaves out the time of day as well
    colourless: float = 0.     # chance that the caption leaves out an object's colour

    @staticmethod
    def load(path):
        return Mix(**json.loads(pathlib.Path(path).read_text())) if path else Mix()


def _choose(rng, weights):
    names = list(weights)
    return rng.choices(names, [weights[n] for n in names])[0]


def _sample_object(rng, mix, group, shapes=SHAPES, sizes=("small", "large")):
    shape = rng.choice(shapes)
    colour = rng.choice(COLOUR_NAMES)
    if shape == "tree" and rng.random() < .35:
        colour = "green"
    pattern = "plain"
    if shape in SOLIDS and rng.random() < mix.pattern:
        pattern = rng.choice(PATTERNS[1:])
        if colour == "white" and pattern in ("striped", "dotted", "checkered"):
            pattern = "plain"
    size = rng.choice(sizes) if rng.random() < mix.sized else None
    return Object(shape, colour, pattern, size, group)


RADII = {   # per layout: unnamed, small, large
    "single": (.225, .145, .30), "pair": (.165, .115, .205), "three": (.125, .105, .15),
}


def _radius(rng, mix, obj, kind):
    middle = RADII[kind][(None, "small", "large").index(obj.size)]
    return middle * (1 + mix.spread * rng.uniform(-.08, .08))


def _place(rng, mix, obj, x, y, r, sx=.02, sy=.02):
    obj.x = x + mix.spread * rng.uniform(-sx, sx)
    obj.y = y + mix.spread * rng.uniform(-sy, sy)
    obj.r = r
    obj.phase = rng.random()
    obj.skew = rng.uniform(.15, .35) * rng.choice((-1, 1))
    return obj


GROUND_Y = .86


def _layout_single(rng, mix):
    a = _sample_object(rng, mix, 1)
    _place(rng, mix, a, .5, GROUND_Y + .04 * (a.size == "large"), _radius(rng, mix, a, "single"), .07)
    return [a]


def _row(rng, mix, count, group, shapes, y, widest):
    sizes = ("small", "large") if count < 3 else ("small",)
    first = _sample_object(rng, mix, group, shapes, sizes)
    r = min(_radius(rng, mix, first, "pair" if count < 3 else "three"), .41 / count, widest)
    row = []
    for i in range(count):
        x = .5 + (i - (count - 1) / 2) * (.94 / count if count > 2 else .42)
        row.append(_place(rng, mix, dataclasses.replace(first), x, y, r, .012))
    return row


def _layout_count(rng, mix):
    return _row(rng, mix, rng.choice((2, 3, 4, 5)), 1, SHAPES, GROUND_Y, .2)


def _layout_count_above(rng, mix):
    row = _row(rng, mix, rng.choice((2, 3, 4, 5)), 1, SOLIDS, .29, .115)
    for obj in row:
        obj.floating = True
    below = _sample_object(rng, mix, 2)
    _place(rng, mix, below, .5, GROUND_Y + .04, min(_radius(rng, mix, below, "pair"), .18), .06)
    return row + [below]


def _layout_side(rng, mix, side):
    a, b = _sample_object(rng, mix, 1), _sample_object(rng, mix, 2)
    xa, xb = (.26, .74) if side == "left" else (.74, .26)
    _place(rng, mix, a, xa, GROUND_Y, _radius(rng, mix, a, "pair"), .035)
    _place(rng, mix, b, xb, GROUND_Y, _radius(rng, mix, b, "pair"), .035)
    return [a, b]


def _layout_above(rng, mix):
    a = _sample_object(rng, mix, 1, SOLIDS, ("small",))
    b = _sample_object(rng, mix, 2)
    _place(rng, mix, b, .5, .92, min(_radius(rng, mix, b, "pair"), .19), .06)
    _place(rng, mix, a, b.x, .36, min(_radius(rng, mix, a, "pair"), .155), .05)
    a.floating = True
    return [a, b]


TOP = {"cube": 1.62, "cylinder": 1.72}     # height of the upper face above the foot, in radii


def _layout_on_top(rng, mix):
    a = _sample_object(rng, mix, 1, SHAPES, ("small",))
    b = _sample_object(rng, mix, 2, ["cube", "cylinder"], ("large",))
    _place(rng, mix, b, .5, .92, min(_radius(rng, mix, b, "pair") * 1.1, .2), .06)
    ra = min(_radius(rng, mix, a, "pair"), b.r * .85)
    _place(rng, mix, a, b.x, b.y - b.r * TOP[b.shape], ra, .012, 0)
    a.resting = True
    return [a, b]


def _layout_depth(rng, mix):
    near = _sample_object(rng, mix, 1, SHAPES, ("small",))
    far = _sample_object(rng, mix, 2, SHAPES, ("large",))
    side = rng.choice((-1, 1))
    _place(rng, mix, near, .5 + .13 * side, .94, min(_radius(rng, mix, near, "pair") * .9, .15), .03)
    _place(rng, mix, far, .5 - .09 * side, .75, _radius(rng, mix, far, "pair") * 1.08, .03)
    return [near, far]


def _layout_three(rng, mix, order):
    objs = [_sample_object(rng, mix, i + 1, SHAPES, ("small",)) for i in range(3)]
    for obj, place in zip(objs, order):
        _place(rng, mix, obj, (.19, .5, .81)[place], GROUND_Y, _radius(rng, mix, obj, "three"))
    return objs


def _objects(rng, mix, layout):
    if layout == "empty":
        return []
    if layout == "single":
        return _layout_single(rng, mix)
    if layout == "count":
        return _layout_count(rng, mix)
    if layout == "count above":
        return _layout_count_above(rng, mix)
    if layout in ("left", "right", "next"):
        side = layout if layout != "next" else "left"   # "a and b" reads from left to right
        return _layout_side(rng, mix, side)
    if layout == "above":
        return _layout_above(rng, mix)
    if layout == "on top":
        return _layout_on_top(rng, mix)
    if layout in ("front", "behind"):
        return _layout_depth(rng, mix)
    if layout == "between":
        return _layout_three(rng, mix, rng.choice(((1, 0, 2), (1, 2, 0))))
    return _layout_three(rng, mix, (0, 1, 2))


class HeldOut:
    """The combinations that training never sees: see heldout.json."""

    def __init__(self, path=HELDOUT_FILE):
        data = json.loads(pathlib.Path(path).read_text())
        self.colour_shape = {tuple(p) for p in data["colour_shape"]}
        self.shape_count = {tuple(p) for p in data["shape_count"]}
        self.pair_relation = {tuple(p) for p in data["pair_relation"]}

    def hits(self, scene):
        """Which held-out combinations a scene contains, as a list of tuples."""
        objs = scene.objects
        found = [(o.colour, o.shape) for o in objs if (o.colour, o.shape) in self.colour_shape]
        counted = [o for o in objs if o.group == 1]
        if scene.layout in ("count", "count above") and counted:
            key = (counted[0].shape, len(counted))
            found += [key] if key in self.shape_count else []
        if scene.layout in ("left", "right", "above", "on top", "front", "behind", "next"):
            first = objs[0].shape
            second = next(o.shape for o in objs if o.group == 2)
            key = (first, scene.layout, second)
            found += [key] if key in self.pair_relation else []
        return found


HELDOUT = HeldOut() if HELDOUT_FILE.exists() else None


def sample(seed, mix, layout=None, held_out=False):
    """One scene with its caption. held_out: False never, True always, None does not care."""
    rng = random.Random(seed)
    while True:
        scene = _sample(rng, mix, layout)
        if held_out is None or bool(HELDOUT.hits(scene)) == held_out:
            break
    scene.seed = seed
    captions.describe(rng, mix, scene)
    return scene


def _sample(rng, mix, layout):
    layout = layout or _choose(rng, mix.layouts)
    assert layout in LAYOUTS
    ground = _choose(rng, mix.grounds)
    if layout == "empty" and ground == "plain":
        ground = rng.choice(GROUNDS[:4])
    time = "day"
    if ground not in ("tiles", "plain"):
        time = rng.choices(TIMES, (4, 3, 3))[0]
    objects = _objects(rng, mix, layout)
    shown = {o.colour for o in objects}         # nothing black on black
    return Scene(0, layout, ground, time, rng.choice([b for b in BACKDROPS if b not in shown] or ["gray"]),
                 .46 + .04 * mix.spread * rng.uniform(-1, 1),
                 ground == "snow" or (ground == "grass" and rng.random() < .25),
                 objects, [rng.random() for _ in range(24)])


def depth_order(scene):
    """Indices of the objects from back to front; what stands on something comes after it."""
    objs = scene.objects
    return sorted(range(len(objs)), key=lambda i: (objs[i].floating, 9 if objs[i].resting else objs[i].y))


def outdoors(scene):
    return scene.ground in OUTDOORS or (scene.ground == "table" and scene.time != "day")
