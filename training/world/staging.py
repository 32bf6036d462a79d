"""Scenes with nouns: which of them, where, how large, in what surroundings.

As in scene.py a scene is plain data and a pure function of (seed, mix, cast). Its surroundings are one of a
limited number of views, so that a composer can keep them. An object's `r` is half its height, as that of a
solid nearly is, and both kinds share one picture.
"""

import dataclasses
import functools
import json
import math
import pathlib
import random

from . import scene as worlds
from . import sentences
from .cast import pick
from .language import AFLOAT, BACKDROPS, LAYOUTS, OUTDOORS, SOLIDS, TIMELESS, TIMES, WEATHER_GROUNDS
from .scene import Object, Scene

NOUN_LAYOUTS = LAYOUTS + ["count next"]
HELDOUT_FILE = pathlib.Path(__file__).resolve().parent.parent / "heldout_nouns.json"
VIEWS = 40              # of every combination of place, time and weather
PLACES = {"table": 3, "grass": 3, "beach": 2, "snow": 2, "tiles": 1, "plain": 2.5, "sea": .8, "road": 1.2,
          "forest": 1.2, "city": 1, "room": 1.5, "kitchen": .6, "space": .5, "underwater": .3}


@dataclasses.dataclass
class NounMix:
    """How often everything happens."""

    solids: float = .2          # share of scenes of today's world, drawn from solid_mix
    solid_mix: dict = dataclasses.field(default_factory=dict)
    layouts: dict = dataclasses.field(default_factory=lambda: {
        "empty": .3, "single": 6, "count": 2.2, "left": 1.3, "right": 1.3, "next": 1.6, "above": .6, "on top": .8,
        "front": .6, "behind": .6, "between": .5, "list": .6, "count next": .5})
    places: dict = dataclasses.field(default_factory=lambda: dict(PLACES))
    nouns: list = None          # ids of the nouns that are shown; all without it
    favoured: dict = dataclasses.field(default_factory=dict)    # id: how much more often than others
    mixed: float = .1           # chance that one of several objects is a solid
    colour: float = .25         # chance of a colour word, where the noun has variants
    sized: float = .12
    weather: float = .08
    flying: float = 1.          # chance that what may fly does
    spread: float = 0.          # how far positions, sizes and angles vary; 0: a caption settles them
    mirror: float = 0.
    plain_caption: float = .1
    placeless: float = .25
    timeless: float = .3
    terse: float = .15
    polite: float = .2          # chance of words that mean nothing, before or after
    languages: dict = dataclasses.field(default_factory=lambda: {"en": 1.})

    @staticmethod
    def load(path):
        return NounMix(**json.loads(pathlib.Path(path).read_text())) if path else NounMix()


@dataclasses.dataclass
class Wanted:
    """What a scene is to show, instead of what chance brings."""

    nouns: tuple = ()           # numbers, in the order of the groups
    variants: tuple = ()        # colour words of these; 0 for none
    ground: str = None
    time: str = None
    count: int = None


class HeldOutNouns:
    """Combinations of nouns that training never sees: see heldout_nouns.json."""

    def __init__(self, path=HELDOUT_FILE):
        data = json.loads(pathlib.Path(path).read_text()) if pathlib.Path(path).exists() else {}
        self.pair = {frozenset(p) for p in data.get("pair", [])}
        self.colour = {tuple(p) for p in data.get("colour", [])}
        self.place = {tuple(p) for p in data.get("place", [])}
        self.number = {tuple(p) for p in data.get("number", [])}

    def hits(self, scene, cast):
        """Which held-out combinations a scene contains."""
        groups = {}
        for o in scene.objects:
            if o.noun >= 0:
                groups.setdefault(o.group, []).append(o)
        ids = {g: cast.nouns[objs[0].noun].id for g, objs in groups.items()}
        found = []
        for g, objs in groups.items():
            found += [("colour",) + k for k in [(ids[g], objs[0].colour)] if k in self.colour]
            found += [("place",) + k for k in [(ids[g], scene.ground)] if k in self.place]
            found += [("number",) + k for k in [(ids[g], len(objs))] if k in self.number]
            found += [("pair", ids[g], ids[other]) for other in groups
                      if other > g and frozenset((ids[g], ids[other])) in self.pair]
        return found


@functools.lru_cache(1)
def held_out_nouns():
    return HeldOutNouns()


@functools.lru_cache(20000)
def surroundings(view):
    """(horizon, random numbers) of a view."""
    rng = random.Random("%s" % (view,))
    return .46 + .04 * rng.uniform(-1, 1), [rng.random() for _ in range(24)]


def _view(rng, mix, ground, time, objects):
    shown = {o.colour for o in objects}         # nothing black on black
    backdrop = rng.choice([b for b in BACKDROPS if b not in shown] or ["gray"]) if ground == "plain" else "gray"
    weather = None
    if rng.random() < mix.weather:
        weather = pick(rng, {"rain": 2, "snowfall": 2, "fog": 1, "rainbow": 1})
        if ground not in WEATHER_GROUNDS[weather] or (weather == "rainbow" and time != "day"):
            weather = None
    mountains = ground == "snow" or (ground == "grass" and rng.random() < .25)
    return ground, time, backdrop, mountains, weather, rng.randrange(VIEWS)


def scene_of(view, layout, objects):
    ground, time, backdrop, mountains, weather, _ = view
    horizon, numbers = surroundings(view)
    return Scene(0, layout, ground, time, backdrop, horizon, mountains, objects, numbers, weather=weather, view=view)


# A network learns what a noun looks like many times faster where a caption settles how it stands (NounMix.spread 0):
# heights are on this scale, feet on a grid of GRID steps, which is 4 pixels at 64, and no drawing is turned or stretched.
STEP = 2 ** (1 / 3)
HEIGHTS = [.8 * STEP ** -k for k in range(9)]
GRID = 16
SINGLE = .635                                   # how tall a single object is
SEVERAL = {2: (.48, .25), 3: (.38, .20)}        # how tall the largest of several, and the least that any is
SIZED = {None: 1., "small": 1 / STEP, "large": STEP}


def on_scale(height, most):
    """The nearest of HEIGHTS that hardly exceeds `most`."""
    return min((h for h in HEIGHTS if h < 1.07 * most), key=lambda h: abs(math.log(h / height)), default=HEIGHTS[-1])


def on_grid(place, grid=GRID):
    return round(place * grid) / grid


class Stage:
    """One scene in the making."""

    def __init__(self, rng, mix, cast, wanted):
        self.rng, self.mix, self.cast, self.wanted = rng, mix, cast, wanted
        self.used = set()

    def noun(self, group, suits=None):
        if group <= len(self.wanted.nouns):
            return self.wanted.nouns[group - 1]
        numbers = _allowed(self.cast, tuple(self.mix.nouns) if self.mix.nouns else None)
        weights = _weights(self.cast, numbers, self.mix)
        for _ in range(200):
            noun = self.rng.choices(numbers, weights)[0] if weights else self.rng.choice(numbers)
            if noun not in self.used and (suits is None or suits(self.cast.nouns[noun])):
                break
        return noun

    def actor(self, group, suits=None, solid=0., shapes=None):
        """An object of the group; a solid by chance `solid`."""
        if group > len(self.wanted.nouns) and self.rng.random() < solid:
            return worlds._sample_object(self.rng, SOLID_ACTORS, group, shapes or worlds.SHAPES)
        noun = self.noun(group, suits)
        self.used.add(noun)
        colours = self.cast.variants[noun]
        variant = self.rng.choice(colours) if colours and self.rng.random() < self.mix.colour else 0
        if group <= len(self.wanted.variants):
            variant = self.wanted.variants[group - 1]
        size = self.rng.choice(("small", "large")) if self.rng.random() < self.mix.sized else None
        obj = Object("noun:" + self.cast.nouns[noun].id, worlds.COLOUR_NAMES[variant - 1] if variant else "",
                     size=size, group=group, names_colour=variant > 0, noun=noun, variant=variant,
                     drawing=self.cast.drawing(self.rng, noun, variant))
        return self.vary(obj)

    def vary(self, obj):
        """Small differences, other ones for every object of a row."""
        if obj.noun >= 0:
            rng, spread = self.rng, self.mix.spread
            obj.tilt = spread * rng.uniform(-5, 5)
            obj.stretch = 1 + spread * rng.uniform(-.07, .07)
            obj.mirror = rng.random() < self.mix.mirror and "t" not in self.cast.nouns[obj.noun].flags
        return obj

    def height(self, obj):
        """Compressed real height in a mixed scene; of a solid that of a middling thing."""
        return self.cast.heights[obj.noun] if obj.noun >= 0 else .30

    def aspect(self, obj):
        return self.cast.aspect[obj.noun] if obj.noun >= 0 else 1.

    def fit(self, obj, extent, width, height=.62):
        """Sets r for about the extent, within width and height: wide things are lower than tall ones."""
        aspect = self.aspect(obj)
        tall = extent * SIZED[obj.size] * max(1., aspect) ** -.5
        obj.r = on_scale(tall, min(width / aspect, height)) / 2 * (1 + self.mix.spread * self.rng.uniform(-.06, .06))
        return obj

    def put(self, obj, x, y, grid=GRID):
        obj.x = on_grid(x, grid) + self.mix.spread * self.rng.uniform(-.03, .03)
        obj.y = on_grid(y, grid) + self.mix.spread * self.rng.uniform(-.015, .015)
        obj.phase, obj.skew = self.rng.random(), self.rng.uniform(.15, .35) * self.rng.choice((-1, 1))
        return obj

    def zoom(self, objects, width):
        """Sizes several objects so that the largest is large enough, and the least not lost."""
        most, least = SEVERAL[min(3, max(2, len(objects)))]
        scale = most / max(self.height(o) for o in objects)
        for o in objects:
            self.fit(o, max(least, self.height(o) * scale), width, most * 1.25)
        return objects

    def single(self):
        a = self.actor(1)
        self.fit(a, SINGLE, .88, .8)
        self.put(a, .5, .92)
        return [a]

    def row(self, first, places, extent, width):
        self.fit(first, extent, width, extent * 1.15)
        return [self.put(self.vary(dataclasses.replace(first)), x, y) for x, y in places]

    def count(self):
        n = self.wanted.count or self.rng.choice((2, 2, 3, 3, 4, 5))
        first = self.actor(1, countable)
        first.size = None if n > 2 else first.size
        return self.row(first, *ROWS[n])

    def sides(self, layout):
        pair = [self.actor(1, solid=self.mix.mixed), self.actor(2)]
        self.zoom(pair, .45)
        places = (.74, .26) if layout == "right" else (.26, .74)
        return [self.put(o, x, .87) for o, x in zip(pair, places)]

    def above(self):
        a = self.actor(1, lambda n: "f" in n.flags, .2, SOLIDS)
        b = self.actor(2, lambda n: "f" not in n.flags)
        self.zoom([a, b], .6)
        a.r, b.r = min(a.r, HEIGHTS[4] / 2), min(b.r, HEIGHTS[3] / 2)
        self.put(b, .5, .92)
        self.put(a, b.x, .37)
        a.floating = True
        return [a, b]

    def on_top(self):
        a = self.actor(1, lambda n: "f" not in n.flags and n.size < 6)
        b = self.actor(2, lambda n: "f" not in n.flags and n.size > 1, .25, ["cube", "cylinder"])
        self.zoom([a, b], .6)
        b.r = max(min(b.r, HEIGHTS[3] / 2), HEIGHTS[4] / 2)
        a.r = min(a.r, HEIGHTS[4] / 2)
        self.put(b, .5, .92)
        self.put(a, b.x, b.y - b.r * (worlds.TOP[b.shape] if b.noun < 0 else 1.88), 2 * GRID)
        a.resting = True
        return [a, b]

    def depth(self):
        near, far = self.actor(1), self.actor(2, solid=self.mix.mixed)
        self.fit(near, .30, .42, .34)
        self.fit(far, .50, .60, .50)
        self.put(near, .65, .94)
        self.put(far, .38, .74)
        return [near, far]

    def three(self, order):
        objs = [self.actor(1, solid=self.mix.mixed), self.actor(2), self.actor(3)]
        self.zoom(objs, .32)
        return [self.put(o, (.18, .5, .82)[place], .87) for o, place in zip(objs, order)]

    def count_next(self):
        n = 2 if (self.wanted.count or self.rng.choice((2, 2, 3))) == 2 else 3
        first, other = self.actor(1, countable), self.actor(2)
        first.size = None
        row = self.row(first, [((.15, .41)[i] if n == 2 else (.13, .34, .55)[i], .87) for i in range(n)],
                       .29 if n == 2 else .24, .25 if n == 2 else .20)
        self.fit(other, .36, .32, .42)
        return row + [self.put(other, .81, .87)]

    def objects(self, layout):
        if layout == "empty":
            return []
        if layout in ("left", "right", "next"):
            return self.sides(layout)
        if layout == "between":
            return self.three((1, 0, 2))
        if layout == "list":
            return self.three((0, 1, 2))
        return {"single": self.single, "count": self.count, "above": self.above, "on top": self.on_top,
                "front": self.depth, "behind": self.depth, "count next": self.count_next}[layout]()


# where the objects of a row stand, how tall about, how wide at most
ROWS = {2: ([(.27, .87), (.73, .87)], .42, .44), 3: ([(.18, .87), (.5, .87), (.82, .87)], .33, .31),
        4: ([(.27, .62), (.73, .62), (.27, .95), (.73, .95)], .31, .40),
        5: ([(.18, .61), (.5, .61), (.82, .61), (.34, .95), (.67, .95)], .30, .30)}
SOLID_ACTORS = worlds.Mix(pattern=.3, sized=.1)


def countable(noun):
    return any(name.kind != "mass" for name in noun.names)


@functools.lru_cache(8)
def _allowed(cast, ids):
    return [cast.number[i] for i in ids] if ids else list(range(len(cast.nouns)))


def _weights(cast, numbers, mix):
    return [mix.favoured.get(cast.nouns[n].id, 1.) for n in numbers] if mix.favoured else None


def _float(stage, scene):
    """What flies, swims or drifts leaves the ground."""
    rng = stage.rng
    for o in scene.objects:
        flags = stage.cast.nouns[o.noun].flags if o.noun >= 0 else ""
        category = stage.cast.nouns[o.noun].category if o.noun >= 0 else ""
        if o.floating or o.resting or scene.layout in ("above", "on top", "front", "behind"):
            o.floating = o.floating or (scene.ground in AFLOAT and not o.resting and scene.ground == "space")
            continue
        if scene.ground == "space":
            o.floating, o.y = True, on_grid(min(.95, o.y - max(0., .5 - o.r) * .55))
        elif scene.ground == "underwater" and ("u" in flags or category == "sea animals"):
            o.floating, o.y = True, on_grid(o.y - max(0., .5 - o.r) * .4)
        elif scene.layout == "single" and "f" in flags and rng.random() < stage.mix.flying:
            o.floating, o.y = True, on_grid(max(.30 + o.r, .04 + 2 * o.r))
    return scene


def sample(seed, mix, cast, layout=None, held_out=False, wanted=Wanted()):
    """One scene with its caption. held_out: False never, True always, None does not care."""
    rng = random.Random(seed)
    if layout is None and not wanted.nouns and rng.random() < mix.solids:
        return worlds.sample(seed, worlds.Mix(**mix.solid_mix), held_out=held_out)
    while True:
        scene = _sample(rng, mix, cast, layout or pick(rng, mix.layouts), wanted)
        hits = bool(held_out_nouns().hits(scene, cast) or worlds.HELDOUT.hits(scene))
        if held_out is None or hits == held_out:
            break
    scene.seed, scene.language = seed, pick(rng, mix.languages)
    sentences.describe(rng, mix, scene, cast)
    return scene


def _sample(rng, mix, cast, layout, wanted):
    stage = Stage(rng, mix, cast, wanted)
    objects = stage.objects(layout)
    places = mix.places
    leader = next((o.noun for o in objects if o.noun >= 0), None)
    if leader is not None:
        places = cast.place_weights(leader, places)
    ground = wanted.ground or pick(rng, places)
    while layout == "empty" and ground == "plain":
        ground = pick(rng, places)
    time = "day" if ground in TIMELESS else wanted.time or rng.choices(TIMES, (4, 2, 2))[0]
    scene = scene_of(_view(rng, mix, ground, time, objects), layout, objects)
    return _float(stage, scene)


def outdoors(scene):
    return scene.ground in OUTDOORS
