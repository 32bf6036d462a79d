"""Everything behind the objects: sky, sun, moon, stars, mountains and the six grounds.

Works on images [n, h, w, 3]. Detail finer than a pixel fades out instead of aliasing, so the same
scene at 64 and at 1024 px agrees. Each ground is painted only for the pictures that stand on it.
"""

import torch

from .language import GROUNDS, TIMES
from .noise import cell_hash, fractal, noise

SKY = {"day": ((.20, .46, .88), (.48, .72, .96), (.86, .93, .98)),
       "sunset": ((.28, .19, .48), (.88, .40, .37), (1., .76, .42)),
       "night": ((.02, .03, .11), (.05, .08, .22), (.14, .17, .36))}
GROUND_LIGHT = {"day": ((1., .98, .93), (.50, .52, .56)), "sunset": ((1.0, .74, .50), (.50, .40, .44)),
                "night": ((.55, .62, .85), (.30, .33, .48))}
WALLS = ((.86, .80, .70), (.70, .79, .82), (.84, .72, .68), (.76, .80, .70))
SEA = {"day": (.10, .45, .68), "sunset": (.55, .34, .42), "night": (.05, .10, .26)}
FLOWERS = ((1., .95, .5), (1., 1., 1.), (.95, .6, .8))


class Part:
    """The rows of a batch that share something, with their own coordinates and random numbers."""

    def __init__(self, batch, rows):
        self.rows, self.px, self.device = rows, batch.px, batch.device
        self.X, self.Y = batch.X[rows], batch.Y[rows]
        self.horizon = batch.horizon[rows][:, None, None]
        self.time = batch.time[rows]
        self.random = batch.random[rows]
        self.backdrop = batch.backdrop[rows][:, None, None]
        self.mountains = batch.mountains[rows][:, None, None]

    def free(self, k):
        """The k-th free number of every scene, [n, 1, 1] in 0..1."""
        return self.random[:, k, None, None]

    def by_time(self, choice):
        table = torch.tensor([choice[t] for t in TIMES], device=self.device)
        return table[self.time.long()][:, None, None]

    def light(self, key=.62, ambient=1.):
        keys = self.by_time({t: v[0] for t, v in GROUND_LIGHT.items()})
        return keys * key + self.by_time({t: v[1] for t, v in GROUND_LIGHT.items()}) * ambient

    def rgb(self, *values):
        return torch.tensor(values, device=self.device)

    def fine(self, frequency):
        """1 where a wave of this many periods per picture can be drawn, falling to 0 at the limit."""
        return max(0., min(1., 2 - 3 * frequency * self.px))


def _mix(image, cover, colour):
    return image + cover[..., None] * (colour - image)


def _smooth(low, high, x):
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def draw(batch):
    n, h, w = len(batch.scenes), batch.Y.shape[1], batch.X.shape[2]
    image = torch.zeros(n, h, w, 3, device=batch.device)
    plain, walled = (sum(batch.ground == GROUNDS.index(name) for name in names) > 0
                     for names in (("plain",), ("table", "tiles", "room", "kitchen")))
    kinds = [(_draw_studio, plain), (_draw_room, walled & (batch.outdoors == 0)), (_draw_sky, batch.outdoors > 0)]
    for function, chosen in kinds:
        _apply(image, batch, function, chosen)
    _apply(image, batch, _draw_mountains, batch.mountains > 0)
    for name, function in GROUND_FUNCTIONS.items():
        _apply(image, batch, function, batch.ground == GROUNDS.index(name))
    return image


def _apply(image, batch, function, chosen):
    rows = chosen.nonzero()[:, 0]
    if len(rows):
        image[rows] = function(Part(batch, rows), image[rows])


def _draw_studio(g, image):
    wall = 1.06 - .56 * ((g.X - .5) ** 2 + (g.Y - .42) ** 2)
    floor = .80 + .22 * torch.exp(-((g.X - .5) ** 2 * 3 + (g.Y - .85) ** 2 * 9))
    seam = _smooth(g.horizon, g.horizon + .25, g.Y)
    return ((wall + seam * (floor - wall))[..., None] * g.backdrop + .02 * seam[..., None]).clamp(0, 1)


def _draw_room(g, image):
    shade = .80 + .35 * torch.exp(-((g.X - .8) ** 2 + (g.Y - .15) ** 2) * 4)
    colour = torch.tensor(WALLS, device=g.device)[(g.random[:, 0] * 4).long()][:, None, None]
    if g.fine(300) > 0:
        shade = shade * (1 + .02 * g.fine(300) * noise(g.X * 160 + 90 * g.free(1), g.Y * 160))
    return (shade[..., None] * colour).clamp(0, 1)


def _draw_sky(g, image):
    s = (g.Y / g.horizon).clamp(0, 1)[..., None]
    top, middle, low = (g.by_time({t: v[i] for t, v in SKY.items()}) for i in range(3))
    sky = torch.where(s < .5, top + (middle - top) * s * 2, middle + (low - middle) * (s * 2 - 1))
    image = sky.expand_as(image).clone()
    for index, function in enumerate((_clouds, _sun, _moon_and_stars)):
        rows = (g.time == index).nonzero()[:, 0]
        if len(rows):
            image[rows] = function(_Sub(g, rows), image[rows])
    return image


class _Sub(Part):
    def __init__(self, part, rows):
        self.rows, self.px, self.device = rows, part.px, part.device
        for name in ("X", "Y", "horizon", "time", "random", "backdrop", "mountains"):
            setattr(self, name, getattr(part, name)[rows])


def _clouds(g, image):
    octaves = 3 if g.px > 1 / 100 else 6
    n = fractal(g.X * 3.2 + 40 * g.free(3), g.Y * 9 + 30 * g.free(4), octaves)
    n = n - .15 + .5 * (g.free(5) - .5)
    cover = _smooth(.05, .75, n) * ((g.horizon - g.Y) / g.horizon * 1.8).clamp(0, 1) * .95
    white = .93 + .07 * _smooth(.2, 1., n)
    return _mix(image, cover, white[..., None] * g.rgb(1., 1., 1.))


def sun_x(g):
    return .84 - .22 * g.free(1)


def _sun(g, image):
    d2 = (g.X - sun_x(g)) ** 2 + (g.Y - g.horizon + .10) ** 2
    image = image + (torch.exp(-d2 * 22) * .38)[..., None] * g.rgb(1., .62, .25)
    if g.fine(60) > 0:
        streak = fractal(g.X * 2 + 30 * g.free(2), g.Y * 22 + 9 * g.free(3), 4)
        image = _mix(image, _smooth(.1, .9, streak) * .35, g.rgb(1., .62, .50))
    disc = (.5 - (d2.sqrt() - .065) / g.px).clamp(0, 1)
    return _mix(image.clamp(0, 1), disc, g.rgb(1., .97, .78))


def _moon_and_stars(g, image):
    for layer, (cells, chance) in enumerate(((11, .45), (23, .10))):
        image = image + _stars(g, layer, cells, chance)[..., None] * g.rgb(1., 1., .96)
    ux, uy = g.X - .85 + .05 * g.free(6), g.Y - .15
    d = (ux * ux + uy * uy).sqrt()
    image = image + (torch.exp(-d * d * 60) * .22)[..., None] * g.rgb(.8, .85, 1.)
    maria = _smooth(.0, .5, fractal(ux * 28 + 7, uy * 28 + 3, 2 if g.px > 1 / 100 else 4))
    face = (1 - .16 * maria)[..., None] * g.rgb(.97, .96, .88)
    return _mix(image, (.5 - (d - .058) / g.px).clamp(0, 1), face)


def _stars(g, layer, cells, chance):
    """One possible star in every cell of a grid, far enough from its border to be seen whole."""
    u, v = g.X * cells + 0 * g.Y, g.Y * cells + 0 * g.X
    i, j = u.floor(), v.floor()
    shift = (g.free(2) * 997).floor() + 13 * layer
    lit = cell_hash(i + shift, j, 1 + layer) < chance
    dx = (u - i - .3 - .4 * cell_hash(i + shift, j, 3)) / cells
    dy = (v - j - .3 - .4 * cell_hash(i + shift, j, 5)) / cells
    size = .0022 + .0028 * cell_hash(i + shift, j, 7)
    drawn = size.clamp(min=g.px * .5)
    return lit * torch.exp(-(dx * dx + dy * dy) / (drawn * drawn)) * (size / drawn) ** 2 * 1.3


def _ridge(g, layer, amp, base):
    x = g.X + 0 * g.Y
    a = ((x * (2.2 + 1.3 * g.free(10 + layer)) + g.free(12 + layer) * 3) % 1 - .5).abs() * 2
    b = ((x * (5.1 + 2 * g.free(14 + layer)) + g.free(16 + layer)) % 1 - .5).abs() * 2
    top = g.horizon - base - amp * (.8 * a + .25 * b)
    return top - .012 * fractal(x * 22 + 50 * g.free(12 + layer), 0 * x + layer, 3 if g.px > 1 / 100 else 5)


def _draw_mountains(g, image):
    for layer, (amp, base, rgb) in enumerate(((.16, .05, (.46, .54, .70)), (.10, .02, (.34, .42, .58)))):
        top = _ridge(g, layer, amp, base)
        cover = (.5 + (g.Y - top) / g.px * .8).clamp(0, 1) * (g.Y < g.horizon)
        rough = noise(g.X * 40 + 20 * g.free(17), g.Y * 60 + 3 * layer)
        if g.fine(200) > 0:
            rough = rough + .7 * g.fine(200) * noise(g.X * 130, g.Y * 170 + 8 * layer)
        rock = (1 + .12 * rough)[..., None] * g.rgb(*rgb) * g.light(.45, .8)
        line = top + amp * .30 + .022 * rough
        snow = _smooth(-.012, .012, line - g.Y)
        colour = rock + snow[..., None] * (g.rgb(.95, .96, 1.) * g.light(.5, .7) - rock)
        image = _mix(image, cover, colour)
    return image


class Floor:
    """Perspective of the ground: depth 0 at the horizon to 1 at the lower edge."""

    def __init__(self, g):
        self.cover = (.5 + (g.Y - g.horizon) / g.px).clamp(0, 1)
        self.depth = ((g.Y - g.horizon) / (1 - g.horizon)).clamp(0, 1) + .02
        self.far = 1 / (self.depth + .12)
        self.x = (g.X - .5) * self.far

    def lay(self, image, colour):
        return _mix(image, self.cover, colour)


def _draw_table(g, image):
    f = Floor(g)
    plank = f.x * 2.1 + g.free(22)
    index = plank.floor()
    within = plank - index
    tone = .90 + .12 * torch.sin(index * 12.9 + 5 * g.free(23))
    wave = torch.sin(f.x * 9 + 6 * g.free(20) + .6 * torch.sin(f.far * 1.3 + f.x * 1.7 + 6 * g.free(21)))
    value = 1 + .05 * wave
    if g.fine(25) > 0:
        rings = noise(plank * 4 + 7 * index, f.far * 1.6 + index * 3.7)
        grain = torch.sin((plank * 16 + 3.2 * rings) * 6.28) * (.02 / (g.px * f.far)).clamp(0, 1)
        fibre = noise(plank * 90, f.far * 5 + 11 * index) * (.005 / (g.px * f.far)).clamp(0, 1)
        value = value + .07 * grain + .08 * fibre
    gap = (1 - torch.minimum(within, 1 - within) / (.02 + g.px * f.far * 1.2)).clamp(0, 1) * .35
    colour = (tone * value * (1 - gap))[..., None] * g.rgb(.62, .38, .20)
    return f.lay(image, colour * g.light() * (.92 + .25 * f.depth[..., None]))


def _draw_grass(g, image):
    for amp, base, rgb, k in ((.03, .035, (.36, .60, .38), 10), (.02, .012, (.26, .55, .24), 11)):
        top = g.horizon - base - amp * torch.sin(g.X * (5 + 4 * g.free(k)) + 6 * g.free(k + 8))
        image = _mix(image, (.5 + (g.Y - top) / g.px).clamp(0, 1), g.rgb(*rgb) * g.light(.5))
    f = Floor(g)
    value = .93 + .10 * fractal(f.x * 3 + 30 * g.free(20), f.far * 2.2 + 20 * g.free(21), 2)
    value = value + .10 * noise(g.X * 34 + 60 * g.free(21), g.Y * 40) * f.depth
    if g.fine(90) > 0:
        sway = 1.3 * noise(f.x * 12, f.far * 9)
        blades = noise(f.x * 95 + sway + 80 * g.free(22), f.far * 16)
        value = value + .30 * blades * (.004 / (g.px * f.far * f.far)).clamp(0, 1) * g.fine(90)
        blades = noise(f.x * 230 + sway * 2, f.far * 34 + 40 * g.free(22))
        value = value + .30 * blades * (.0014 / (g.px * f.far * f.far)).clamp(0, 1)
    colour = value[..., None] * g.rgb(.25, .58, .18) * g.light() * (.8 + .35 * f.depth[..., None])
    colour = _flowers(g, f, colour)
    return f.lay(image, colour)


def _flowers(g, f, colour):
    v = torch.log(f.depth) * 6
    i, j = (f.x * 3.3).floor(), v.floor() + 0 * f.x
    dice = cell_hash(i, j, 9)
    dx = (f.x * 3.3 - i - .3 - .4 * dice) / 3.3 / f.far
    dy = (v - j - .5) / 6 * f.depth * (1 - g.horizon)
    radius = .008 * (f.depth + .3)
    cover = (.5 - ((dx * dx + dy * dy).sqrt() - radius) / g.px).clamp(0, 1)
    cover = cover * (dice < .3) * (g.free(23) < .4)
    tint = torch.tensor(FLOWERS, device=g.device)[(g.random[:, 19] * 3).long()][:, None, None]
    return _mix(colour, cover, tint * g.light(.5))


def _draw_beach(g, image):
    f = Floor(g)
    shore = .20 + .018 * torch.sin(g.X * 7 + 6 * g.free(20)) + .008 * torch.sin(g.X * 19 + 6 * g.free(21))
    ripple = torch.sin(f.far * 7 + 1.2 * torch.sin(f.x * 2 + 6 * g.free(22)))
    value = .96 + .04 * ripple
    if g.fine(60) > 0:
        value = value + .05 * fractal(f.x * 7 + 9 * g.free(22), f.far * 8, 4)
        grains = noise(g.X * 420, g.Y * 420) + noise(g.X * 250 + 31, g.Y * 250)
        value = value + .05 * grains * g.fine(250) * f.depth
    sand = value[..., None] * g.rgb(.93, .80, .56) * g.light(.55)
    swell = .5 + .5 * torch.sin(f.far * 16 + 2 * torch.sin(f.x * 3) + 1.5 * torch.sin(f.x * 7 + 1))
    swell = .5 + (swell - .5) * (.012 / (g.px * f.far * f.far)).clamp(0, 1)
    if g.fine(60) > 0:
        swell = swell + .35 * noise(f.x * 14, f.far * 22 + 30 * g.free(21)) * g.fine(60)
    sea = g.by_time(SEA) * (.9 + .3 * swell[..., None]) * (1.15 - .4 * f.depth[..., None])
    glitter = torch.exp(-((g.X - sun_x(g)) / .07) ** 2) * swell * .6 * (g.time == 1)[:, None, None]
    sea = sea + glitter[..., None] * g.rgb(1., .7, .35)
    edge = f.depth - shore
    land = (.5 + edge * (1 - g.horizon) / g.px).clamp(0, 1)
    colour = _mix(sea, land, sand)
    ragged = edge if g.fine(60) == 0 else edge + .008 * noise(g.X * 60 + 8 * g.free(20), 0 * g.Y)
    foam = torch.exp(-(ragged / .02) ** 2) * .85
    return f.lay(image, _mix(colour, foam, g.rgb(1., 1., 1.) * g.light(.4, .8)))


def _draw_snow(g, image):
    f = Floor(g)
    value = .90 + .09 * fractal(f.x * 1.6 + 20 * g.free(21), f.far * 1.1 + 20 * g.free(22), 3)
    if g.fine(120) > 0:
        value = value + .03 * g.fine(120) * fractal(g.X * 60, g.Y * 90 + 9 * g.free(20), 3)
    colour = value[..., None] * g.rgb(.93, .96, 1.) * g.light(.50, 1.05)
    if g.fine(200) > 0:
        u, v = g.X * 260 + 0 * g.Y, g.Y * 260 + 0 * g.X
        i, j = u.floor(), v.floor()
        glint = torch.exp(-((u - i - .5) ** 2 + (v - j - .5) ** 2) * 16)
        spark = (cell_hash(i, j, 11) < .03) * glint * .5 * g.fine(200) * f.depth
        colour = colour + spark[..., None] * g.light(.5, .5)
    return f.lay(image, colour)


def _draw_tiles(g, image):
    f = Floor(g)
    a, c = f.x * 3 + g.free(20), f.far * 1.1 + g.free(21)

    def wave(u, width):
        fade = (2 - 2.2 * width).clamp(0, 1)
        return ((((u % 2) - 1).abs() - .5) / width.clamp(min=1e-6)).clamp(-.5, .5) * 2 * fade
    check = .5 + .5 * wave(a, g.px * f.far * 3) * wave(c, g.px * f.far * f.far * 2.2)
    dark, pale = g.rgb(.30, .34, .42), g.rgb(.88, .88, .86)
    colour = dark + check[..., None] * (pale - dark)
    if g.fine(60) > 0:
        vein = 1 - fractal(f.x * 4 + 9 * g.free(20), f.far * 4, 4).abs() * 2
        colour = colour * (1 - .07 * g.fine(60) * vein.clamp(min=0) ** 3)[..., None]
    return f.lay(image, colour * (.85 + .25 * f.depth[..., None]))


GROUND_FUNCTIONS = {"table": _draw_table, "grass": _draw_grass, "beach": _draw_beach, "snow": _draw_snow,
                    "tiles": _draw_tiles}
