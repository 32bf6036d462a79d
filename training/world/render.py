"""Scenes to pictures: batched, resolution-independent, antialiased, on any torch device. Solids are shaded
here, nouns come from an atlas, and both stand in the same light, which falls from the right.

A picture is rendered at `res` pixels for the full side, or any window of it: crops of the 1024 px
picture cost what their area costs. Everything is computed per pixel from the pixel's own place, so a
window equals the same part of the full picture.
"""

import math

import torch

from . import backdrop, places, shapes, sprites
from .language import BACKDROPS, COLOURS, GROUNDS, PATTERNS, SHAPES, TIMES, WEATHERS
from .scene import depth_order, outdoors

# light on objects by time of day: (key, ambient); nights are bright enough to keep colours apart
OBJECT_LIGHT = {"day": ((1., .98, .93), (.50, .52, .56)), "sunset": ((1.05, .80, .58), (.50, .42, .44)),
                "night": ((.80, .84, 1.0), (.34, .36, .46))}
LIGHT_FROM = {"day": (.55, -.62, .62), "sunset": (.70, -.42, .62), "night": (.55, -.62, .62)}
SHADOW_LENGTH = {"day": .45, "sunset": .9, "night": .6}


class Batch:
    """The scenes as tensors, and the pixel grid they are drawn on."""

    def __init__(self, scenes, res, origins, size, device):
        def table(rows):
            return torch.tensor(rows, dtype=torch.float32, device=device)
        self.scenes, self.res, self.device = scenes, res, device
        height, width = size
        self.px = 1. / res
        origins = origins if origins is not None else [(0, 0)] * len(scenes)
        self.x0 = table([o[0] for o in origins])[:, None]
        self.y0 = table([o[1] for o in origins])[:, None]
        self.X = ((self.x0 + torch.arange(width, device=device) + .5) * self.px)[:, None, :]
        self.Y = ((self.y0 + torch.arange(height, device=device) + .5) * self.px)[:, :, None]
        self.ground = table([GROUNDS.index(s.ground) for s in scenes])
        self.time = table([TIMES.index(s.time) for s in scenes])
        self.horizon = table([s.horizon for s in scenes])
        self.mountains = table([float(s.mountains) for s in scenes])
        self.outdoors = table([float(outdoors(s)) for s in scenes])
        self.backdrop = table([BACKDROPS[s.backdrop] for s in scenes])
        self.random = table([s.random for s in scenes])
        self.weather = table([WEATHERS.index(s.weather) for s in scenes])


def render(scenes, res, origins=None, size=None, device="cpu", atlas=None, kept=None, trace=None):
    """[N, 3, H, W] in 0..1. origins: (x, y) of each window in pixels of the full picture. atlas: what nouns
    look like. kept: Surroundings that are drawn already. trace: takes down what is where."""
    batch = Batch(scenes, res, origins, size or (res, res), device)
    image = kept.take(scenes, device) if kept else behind(batch)
    layers = _object_layers(scenes)
    for layer in layers:
        for rows in _chunks([(i, o) for i, o in layer if o.noun < 0]):
            _shadow(image, batch, rows)
        for rows in _chunks([(i, o) for i, o in layer if o.noun >= 0]):
            sprites.shadow(image, batch, rows, atlas, Window)
    for layer in layers:
        for shape in SHAPES:
            rows = [(i, o) for i, o in layer if o.shape == shape]
            for part in _chunks(rows):
                _draw(image, batch, shape, part, trace)
        nouns = [(i, o) for i, o in layer if o.noun >= 0]
        for side, rows in sprites.by_level(atlas, nouns, res).items() if nouns else ():
            sprites.draw(image, batch, rows, atlas, Window, side, trace)
    places.weather(image, batch, places.BEFORE)
    return image.clamp(0, 1).permute(0, 3, 1, 2)


def behind(batch):
    """What is behind all objects."""
    image = backdrop.draw(batch)
    places.weather(image, batch, places.BEHIND)
    return image.clamp(0, 1)


class Surroundings:
    """Pictures of surroundings that are kept, as bytes, for the views that scenes of nouns have. They take
    most of the time that a small picture costs, and there are few of them."""

    def __init__(self, res, most=6000):
        self.res, self.most, self.place = res, most, {}
        self.images = torch.zeros(0, res, res, 3, dtype=torch.uint8)

    def _add(self, scenes):
        if len(self.place) + len(scenes) > self.most:
            self.place = {}
        need = len(self.place) + len(scenes)
        if need > len(self.images):
            more = torch.zeros(max(need, min(self.most, 2 * need)) - len(self.images), self.res, self.res, 3,
                               dtype=torch.uint8)
            self.images = torch.cat([self.images, more])
        drawn = behind(Batch(scenes, self.res, None, (self.res, self.res), "cpu"))
        for scene, image in zip(scenes, (drawn * 255).round().byte()):
            self.images[len(self.place)] = image
            self.place[scene.view] = len(self.place)

    def take(self, scenes, device):
        """[N, res, res, 3] in 0..1; what has no view is drawn anew."""
        missing = {s.view: s for s in scenes if s.view and s.view not in self.place}
        if missing:
            self._add(list(missing.values()))
            for s in scenes:                    # the keep may have been emptied for them
                if s.view and s.view not in self.place:
                    self._add([s])
        out = torch.zeros(len(scenes), self.res, self.res, 3)
        viewed = [i for i, s in enumerate(scenes) if s.view]
        if viewed:
            out[viewed] = self.images[[self.place[scenes[i].view] for i in viewed]].float() / 255
        others = [i for i, s in enumerate(scenes) if not s.view]
        if others:
            out[others] = behind(Batch([scenes[i] for i in others], self.res, None, (self.res, self.res), "cpu"))
        return out.to(device)


def _object_layers(scenes):
    """layers[k] = (picture, object) for the k-th object from the back of every picture."""
    orders = [depth_order(s) for s in scenes]
    deepest = max((len(o) for o in orders), default=0)
    return [[(i, scenes[i].objects[o[k]]) for i, o in enumerate(orders) if len(o) > k]
            for k in range(deepest)]


def _chunks(rows):
    """Groups of similar radius, so that no small object pays for a large object's window."""
    rows = sorted(rows, key=lambda row: row[1].r)
    while rows:
        limit = max(rows[0][1].r * 1.35, .08)
        n = sum(1 for _, o in rows if o.r <= limit)
        yield rows[:n]
        rows = rows[n:]


class Window:
    """A rectangle of pixels around each of some objects, cut from the pictures that show them."""

    def __init__(self, image, batch, rows, centres, half_w, half_h):
        _, height, width, _ = image.shape
        self.image, res, device = image, batch.res, image.device
        pictures = torch.tensor([i for i, _ in rows], device=device)
        cx = torch.tensor([c[0] for c in centres], device=device)
        cy = torch.tensor([c[1] for c in centres], device=device)
        span_w, span_h = 2 * math.ceil(half_w * res) + 3, 2 * math.ceil(half_h * res) + 3
        w, h = min(span_w, width), min(span_h, height)
        left = (cx * res - span_w / 2 - batch.x0[pictures, 0]).round()
        top = (cy * res - span_h / 2 - batch.y0[pictures, 0]).round()
        seen = (left > -span_w) & (left < width) & (top > -span_h) & (top < height)
        self.keep = seen.nonzero()[:, 0]
        left, top = left[seen].clamp(0, width - w).long(), top[seen].clamp(0, height - h).long()
        self.pictures = pictures[seen]
        self.rows = (top[:, None] + torch.arange(h, device=device))[:, :, None]
        self.cols = (left[:, None] + torch.arange(w, device=device))[:, None, :]
        x0, y0 = batch.x0[self.pictures][:, None], batch.y0[self.pictures][:, None]
        self.X = ((self.cols + x0 + .5) * batch.px)
        self.Y = ((self.rows + y0 + .5) * batch.px)

    def read(self):
        return self.image[self.pictures[:, None, None], self.rows, self.cols]

    def write(self, values):
        self.image[self.pictures[:, None, None], self.rows, self.cols] = values


def _column(values, device):
    return torch.tensor(values, dtype=torch.float32, device=device).view(len(values), 1, 1)


def _shadow(image, batch, rows):
    """Soft ground shadow, to the left, away from the light."""
    rows = [(i, o) for i, o in rows if not o.resting and batch.scenes[i].ground != "space"]
    if not rows:
        return
    length = [SHADOW_LENGTH[batch.scenes[i].time] for i, _ in rows]
    centres = [(o.x - (0 if o.floating else n * o.r), .88 if o.floating else o.y - .05 * o.r)
               for (_, o), n in zip(rows, length)]
    widest = max(o.r for _, o in rows)
    window = Window(image, batch, rows, centres, widest * 3.2, widest * .62)
    if not len(window.keep):
        return
    pick, device = window.keep, image.device
    cx, cy = (_column([c[k] for c in centres], device)[pick] for k in (0, 1))
    rx = _column([o.r * (1.2 + .5 * n) for (_, o), n in zip(rows, length)], device)[pick]
    ry = _column([o.r * .27 for _, o in rows], device)[pick]
    flying = _column([float(o.floating) for _, o in rows], device)[pick]
    q = ((window.X - cx) / rx) ** 2 + ((window.Y - cy) / ry) ** 2
    dark = torch.where(flying > 0, .28 * torch.exp(-q * 1.2), .58 * torch.exp(-q * q * 1.1))
    window.write(window.read() * (1 - dark[..., None]))


def _draw(image, batch, shape, rows, trace=None):
    if not rows:
        return
    device = image.device
    centres = [(o.x, o.y - o.r * (1.05 if shape in ("tree", "house") else .95)) for _, o in rows]
    widest = max(o.r for _, o in rows)
    window = Window(image, batch, rows, centres, widest * 1.22, widest * 1.4)
    if not len(window.keep):
        return
    rows = [rows[i] for i in window.keep.tolist()]
    r = _column([o.r for _, o in rows], device)
    place = shapes.Place(
        x=(window.X - _column([o.x for _, o in rows], device)) / r,
        y=(window.Y - _column([o.y for _, o in rows], device)) / r + .95,
        p=batch.px / r, skew=_column([o.skew for _, o in rows], device),
        phase=_column([o.phase for _, o in rows], device))

    def per_time(choice):
        return torch.tensor([choice[batch.scenes[i].time] for i, _ in rows], device=device)
    light = shapes.Light(
        key=per_time({t: v[0] for t, v in OBJECT_LIGHT.items()})[:, None, None],
        ambient=per_time({t: v[1] for t, v in OBJECT_LIGHT.items()})[:, None, None],
        direction=torch.nn.functional.normalize(per_time(LIGHT_FROM), dim=1)[:, :, None, None],
        night=_column([float(batch.scenes[i].time == "night") for i, _ in rows], device))
    base = torch.tensor([COLOURS[o.colour] for _, o in rows], device=device)[:, None, None]
    pattern = _column([PATTERNS.index(o.pattern) for _, o in rows], device)
    patterns = {o.pattern for _, o in rows}
    warm = _column([float(o.colour in ("red", "orange", "pink")) for _, o in rows], device)
    pale = _column([float(o.colour == "white") for _, o in rows], device)
    view = shapes.paint(shape, window.read(), place, light, base, pattern, patterns, warm, pale)
    window.write(view)
    if trace is not None:
        trace.solid(window, [o for _, o in rows], place)
