"""More places, and weather: the surroundings that nouns brought with them.

As in backdrop.py all is computed per pixel from the pixel's own place, and what is finer than a pixel fades.
"""

import torch

from . import backdrop
from .backdrop import SEA, Floor, _mix, _smooth, sun_x
from .language import WEATHERS
from .noise import cell_hash, fractal, noise

ASPHALT = (.33, .34, .37)
RUGS = ((.62, .22, .22), (.22, .36, .52), (.80, .70, .52), (.30, .46, .36))
HOUSES = ((.62, .50, .44), (.50, .54, .62), (.70, .64, .54), (.46, .42, .48))
SPECTRUM = ((.86, .20, .22), (.96, .58, .16), (.96, .90, .28), (.30, .72, .34), (.22, .46, .86), (.50, .26, .66))


def _triangle(x):
    """0 at whole numbers, 1 half-way."""
    return 1 - ((x % 1) - .5).abs() * 2


def _draw_sea(g, image):
    f = Floor(g)
    swell = .5 + .5 * torch.sin(f.far * 13 + 2 * torch.sin(f.x * 3 + 6 * g.free(20)) + 1.5 * torch.sin(f.x * 7 + 1))
    swell = .5 + (swell - .5) * (.012 / (g.px * f.far * f.far)).clamp(0, 1)
    if g.fine(60) > 0:
        swell = swell + .35 * noise(f.x * 14, f.far * 22 + 30 * g.free(21)) * g.fine(60)
    sea = g.by_time(SEA) * (.86 + .32 * swell[..., None]) * (1.15 - .35 * f.depth[..., None])
    night = (g.time == 2)[:, None, None]
    shine = torch.where(night, .9 - .05 * g.free(6), sun_x(g))
    path = torch.exp(-((g.X - shine) / (.05 + .06 * f.depth)) ** 2) * swell * (g.time > 0)[:, None, None]
    light = torch.where(night[..., None], g.rgb(.30, .32, .36), g.rgb(.6, .42, .21))
    return f.lay(image, sea + path[..., None] * light)


def _draw_road(g, image):
    f = Floor(g)
    verge = backdrop._draw_grass(g, image)
    grain = 1 + .05 * fractal(f.x * 9 + 9 * g.free(20), f.far * 8, 2)
    if g.fine(250) > 0:
        grain = grain + .05 * g.fine(250) * noise(g.X * 400, g.Y * 400)
    road = grain[..., None] * g.rgb(*ASPHALT) * g.light(.75) * (.9 + .25 * f.depth[..., None])
    soft = g.px * f.far
    dash = (.5 + (_triangle(f.far * 1.1 + g.free(22)) - .5) / (g.px * f.far * f.far * 3 + .02)).clamp(0, 1)
    centre = (.5 - (f.x.abs() - .012) / soft).clamp(0, 1) * dash
    edge = (.5 - ((f.x.abs() - .40).abs() - .010) / soft).clamp(0, 1)
    paint = torch.maximum(centre, edge)
    road = _mix(road, paint * .9, g.rgb(.93, .93, .88) * g.light(.6))
    on = (.5 - (f.x.abs() - .44) / soft).clamp(0, 1) * f.cover
    return _mix(verge, on, road)


def _trunks(g, cells, layer, top, foot, width):
    """Cover of tree trunks, one per cell, and which cell it is."""
    u = g.X * cells + 7 * g.free(10 + layer) + 0 * g.Y
    cell = u.floor()
    dice = cell_hash(cell, 0 * cell + layer, 3)
    across = (u - cell - .3 - .4 * dice) / cells
    wide = width * (.6 + .8 * cell_hash(cell, 0 * cell + layer, 5)) * (1 + .5 * ((g.Y - foot + .06) / .06).clamp(0, 1) ** 2)
    cover = (.5 - (across.abs() - wide) / g.px).clamp(0, 1) * (.5 - (g.Y - foot) / g.px).clamp(0, 1)
    return cover * (g.Y > top), across / wide


def _draw_forest(g, image):
    light = g.light(.55, .85)
    far = 1 - .35 * fractal(g.X * 9 + 20 * g.free(13), g.Y * 9 + 9 * g.free(14), 3)
    image = far[..., None] * g.rgb(.34, .52, .36) * light
    for layer, (cells, width, shade) in enumerate(((17, .008, .8), (9, .016, .6))):
        foot = g.horizon + .01 + .02 * layer
        cover, across = _trunks(g, cells, layer, -1., foot, width)
        bark = shade * (.85 + .25 * across.clamp(-1, 1))
        if g.fine(120) > 0:
            bark = bark * (1 + .15 * g.fine(120) * noise(g.X * 220, g.Y * 30))
        image = _mix(image, cover, bark[..., None] * g.rgb(.50, .36, .24) * light)
        crown = fractal(g.X * 7 + 30 * g.free(15 + layer), g.Y * 8 + 5 * layer, 3 if g.px > 1 / 100 else 5)
        leaves = _smooth(-.1, .15, crown + (.20 + .06 * layer - g.Y) * 3.5)
        tone = .75 + .35 * fractal(g.X * 26 + layer * 9, g.Y * 26, 2 if g.px > 1 / 100 else 4)
        image = _mix(image, leaves * .95, tone[..., None] * g.rgb(.20 + .04 * layer, .46, .18) * light * (1.1 - .25 * layer))
    f = Floor(g)
    soil = .9 + .22 * fractal(f.x * 5 + 30 * g.free(20), f.far * 4, 2 if g.px > 1 / 100 else 4)
    if g.fine(120) > 0:
        soil = soil + .12 * g.fine(120) * noise(f.x * 60, f.far * 22) * f.depth
    moss = _smooth(-.2, .3, fractal(f.x * 2 + 9 * g.free(21), f.far * 2, 2))
    ground = _mix(soil[..., None] * g.rgb(.44, .33, .20), moss, soil[..., None] * g.rgb(.27, .45, .17)) * g.light(.6, .9)
    return f.lay(image, ground * (.85 + .3 * f.depth[..., None]))


def _houses(g, image, layer, cells, low, high):
    u = g.X * cells + 9 * g.free(10 + layer) + 0 * g.Y
    cell = u.floor()
    zero = 0 * cell + layer
    dice, tint = cell_hash(cell, zero, 3), cell_hash(cell, zero, 5)
    top = g.horizon - low - (high - low) * dice
    wall = (.5 + (g.Y - top) / g.px).clamp(0, 1) * (g.Y < g.horizon + .02)
    colours = torch.tensor(HOUSES, device=g.device)[(tint * 4).long().clamp(max=3)]
    side = .85 + .2 * (u - cell)
    wall_colour = side[..., None] * colours * g.light(.5, .8) * (1.12 - .2 * layer)
    across, down = (u - cell) * 4, (g.Y - top) / .045
    pane = ((across % 1 - .5).abs() < .28) & ((down % 1 - .55).abs() < .3) & (down > .4)
    lit = cell_hash((u * 4).floor(), down.floor() + 40 * layer, 7) < .55
    glass = torch.where((lit & (g.time == 2)[:, None, None])[..., None], g.rgb(1., .84, .45),
                        g.rgb(.42, .52, .62) * g.light(.5, .7))
    shown = pane * max(0., min(1., 1.6 - 100 * g.px)) * .9 + pane * .12
    return _mix(image, wall, _mix(wall_colour, shown.clamp(max=1.), glass))


def _draw_city(g, image):
    image = _houses(g, image, 0, 11, .10, .34)
    image = _houses(g, image, 1, 7, .06, .24)
    f = Floor(g)
    stone = 1 + .05 * fractal(f.x * 6 + 9 * g.free(20), f.far * 6, 2)
    slab = torch.maximum(_triangle(f.x * 1.6), _triangle(f.far * .8 + g.free(21)))
    gap = _smooth(.93, .99, slab) * (.012 / (g.px * f.far)).clamp(0, 1) * .25
    colour = (stone * (1 - gap))[..., None] * g.rgb(.60, .59, .58) * g.light(.6, .9)
    kerb = torch.exp(-((f.depth - .10) / .035) ** 2)
    street = (f.depth < .07).float()
    colour = _mix(colour, street, g.rgb(*ASPHALT) * g.light(.6, .8))
    return f.lay(image, _mix(colour, kerb * .6, g.rgb(.78, .77, .74) * g.light(.6, .8)))


def _window_frame(g, image):
    """A window on the left, through which the day is seen."""
    cx, half_w, top, low = .17, .13, .08, .36
    out = torch.maximum((g.X - cx).abs() - half_w, torch.maximum(top - g.Y, g.Y - low))
    cross = torch.minimum((g.X - cx).abs(), (g.Y - (top + low) / 2).abs()) - .008
    sky = g.rgb(.56, .78, .97) + (.30 * ((g.Y - top) / (low - top)).clamp(0, 1))[..., None] * g.rgb(1., .6, .1)
    image = _mix(image, (.5 - (out - .02) / g.px).clamp(0, 1), g.rgb(.96, .95, .92))
    image = _mix(image, (.5 - out / g.px).clamp(0, 1), sky)
    inside = (.5 - out / g.px).clamp(0, 1) * (.5 - cross / g.px).clamp(0, 1)
    return _mix(image, inside, g.rgb(.96, .95, .92))


def _draw_living_room(g, image):
    image = _mix(image, (g.free(5) < .6).float() + 0 * image[..., 0], _window_frame(g, image))
    f = Floor(g)
    plank = f.x * 3.4 + g.free(22)
    tone = .92 + .10 * torch.sin(plank.floor() * 12.9 + 5 * g.free(23))
    gap = (1 - torch.minimum(plank % 1, 1 - plank % 1) / (.03 + g.px * f.far * 1.8)).clamp(0, 1) * .25
    wood = (tone * (1 - gap))[..., None] * g.rgb(.74, .56, .38) * (.86 + .25 * f.depth[..., None])
    rug_colour = torch.tensor(RUGS, device=g.device)[(g.random[:, 19] * 4).long().clamp(max=3)][:, None, None]
    q = (((g.X - .5) / .47) ** 2 + ((g.Y - .85) / .20) ** 2).sqrt()
    weave = 1 + .05 * noise(g.X * 150, g.Y * 220) * g.fine(200)
    ring = ((q - .82).abs() < .05).float() * .45
    rug = _mix(weave[..., None] * rug_colour, ring, g.rgb(.92, .88, .80))
    wood = _mix(wood, (.5 - (q - 1) * .2 / g.px).clamp(0, 1), rug * (.88 + .2 * f.depth[..., None]))
    image = f.lay(image, wood)
    board = (.5 - ((g.Y - g.horizon + .012).abs() - .014) / g.px).clamp(0, 1)
    return _mix(image, board, g.rgb(.93, .92, .89))


def _draw_kitchen(g, image):
    a, b = g.X * 9 + g.free(20), g.Y * 11
    width = g.px * 9
    joint = torch.maximum((1 - torch.minimum(a % 1, 1 - a % 1) / (.03 + width)).clamp(0, 1) + 0 * b,
                          (1 - torch.minimum(b % 1, 1 - b % 1) / (.03 + width * 1.2)).clamp(0, 1) + 0 * a)
    shade = .92 + .14 * torch.exp(-((g.X - .8) ** 2 + (g.Y - .15) ** 2) * 4)
    tint = torch.tensor(((.92, .93, .92), (.84, .91, .92), (.95, .90, .80)), device=g.device)[
        (g.random[:, 0] * 3).long().clamp(max=2)][:, None, None]
    image = (shade * (1 - .22 * joint))[..., None] * tint
    f = Floor(g)
    vein = fractal(f.x * 3 + 9 * g.free(21), f.far * 2.4, 3 if g.px > 1 / 100 else 5)
    stone = .93 - .10 * _smooth(.0, .06, .08 - vein.abs()) + .03 * vein
    counter = stone[..., None] * g.rgb(.80, .78, .76) * (.84 + .26 * f.depth[..., None])
    image = f.lay(image, counter)
    rim = (.5 - ((g.Y - g.horizon).abs() - .010) / g.px).clamp(0, 1)
    return _mix(image, rim, g.rgb(.56, .42, .30))


def _draw_space(g, image):
    cloud = fractal(g.X * 2.2 + 30 * g.free(3), g.Y * 2.2 + 30 * g.free(4), 3 if g.px > 1 / 100 else 5)
    hue = torch.stack((.20 + .3 * g.free(5), .10 + .1 * g.free(6), .34 + 0 * g.free(6)), -1)
    image = _smooth(-.3, 1., cloud)[..., None] * hue + g.rgb(.015, .02, .06)
    for layer, (cells, chance) in enumerate(((9, .5), (15, .4), (27, .12))):
        image = image + backdrop._stars(g, layer, cells, chance)[..., None] * g.rgb(1., 1., .96)
    return image


def _draw_underwater(g, image):
    deep = ((g.Y - .05) / .9).clamp(0, 1)[..., None]
    water = g.rgb(.36, .78, .86) + (g.rgb(.04, .26, .46) - g.rgb(.36, .78, .86)) * deep ** .7
    slant = (g.X + g.Y * .55) * 7 + 6 * g.free(20)
    rays = (.5 + .5 * torch.sin(slant + 1.2 * torch.sin(slant * 2.3))) * (1 - g.Y / .75).clamp(0, 1)
    water = water + (rays * .14)[..., None] + 0 * image
    floor_at = torch.full_like(g.horizon, .74)
    dune = floor_at + .02 * torch.sin(g.X * 8 + 6 * g.free(21))
    depth = ((g.Y - dune) / .26).clamp(0, 1)
    ripple = torch.sin((g.Y - dune) * 130 / (1 + 3 * depth) + 2 * torch.sin(g.X * 9 + 5 * g.free(22)))
    sand = (.92 + .06 * ripple + .08 * fractal(g.X * 12, g.Y * 20 + 9 * g.free(22), 2))[..., None] * g.rgb(.66, .72, .56)
    sand = water * .55 + (sand - water * .55) * (.45 + .5 * depth)[..., None]
    image = _mix(water, (.5 + (g.Y - dune) / g.px).clamp(0, 1), sand)
    u, v = g.X * 8 + 9 * g.free(2) + 0 * g.Y, g.Y * 8 + 0 * g.X
    i, j = u.floor(), v.floor()
    size = (.05 + .14 * cell_hash(i, j, 7)) / 8
    d = (((u - i - .5) / 8) ** 2 + ((v - j - .5) / 8) ** 2).sqrt()
    ring = (.5 - (d - size) / g.px).clamp(0, 1) * (.35 + .4 * _smooth(.5, 1., d / size))
    shown = (cell_hash(i, j, 9) < .12) & (g.Y < .72)
    return _mix(image, ring * shown, g.rgb(.80, .95, 1.))


backdrop.GROUND_FUNCTIONS.update(sea=_draw_sea, road=_draw_road, forest=_draw_forest, city=_draw_city,
                                 room=_draw_living_room, kitchen=_draw_kitchen, space=_draw_space,
                                 underwater=_draw_underwater)


def _light_of(g):
    """How bright haze is by the time of day."""
    return g.by_time({"day": (.80, .82, .84), "sunset": (.86, .66, .56), "night": (.22, .25, .36)})


def _fog(g, image):
    below = ((g.Y - g.horizon) / (1 - g.horizon)).clamp(0, 1)
    veil = .80 * (1 - .85 * below) + .06 * fractal(g.X * 3 + 9 * g.free(7), g.Y * 5, 2)
    return _mix(image, veil.clamp(0, 1), _light_of(g))


def _gloom(g, image):
    """The dull light of rain."""
    grey = image.mean(-1, keepdim=True) * g.rgb(.94, 1., 1.08)
    above = (.5 - (g.Y - g.horizon) / .04).clamp(0, 1) * .75 + 0 * g.X
    return _mix((image * .35 + grey * .65) * .80, above, _light_of(g) * (.72 - .18 * g.Y / g.horizon)[..., None])


def _rainbow(g, image):
    d = ((g.X - .45) ** 2 + ((g.Y - g.horizon - .06) * 1.0) ** 2).sqrt()
    at = (d - .37) / .075
    colours = torch.tensor(SPECTRUM, device=g.device).flip(0)
    place = (at * 6 - .5).clamp(0, 5)
    low = place.floor().long().clamp(max=4)
    colour = colours[low] + (colours[low + 1] - colours[low]) * (place - low)[..., None]
    band = (.5 + (.5 - (at - .5).abs()) * .075 / g.px).clamp(0, 1) * _smooth(0., .10, g.horizon - g.Y)
    return _mix(image, band * .62, colour)


def _rain(g, image):
    for layer, cells in enumerate((14, 22)):
        u, v = (g.X + .12 * g.Y) * cells + 7 * g.free(8), g.Y * cells * .32 + 0 * g.X
        v = v + 3 * cell_hash(u.floor(), 0 * u + layer, 5)
        i, j = u.floor(), v.floor()
        at = .2 + .6 * cell_hash(i, j, 3 + layer)
        width = .0022
        cover = (1 - ((u - i - at) / cells).abs() / max(width, g.px * .7)).clamp(0, 1) * min(1., width / (g.px * .7))
        cover = cover * ((v - j - .5).abs() < .32) * (cell_hash(i, j, 9) < .6)
        image = _mix(image, cover * .75, _light_of(g) * 1.1)
    return image


def _snowfall(g, image):
    for layer, (cells, size) in enumerate(((8, .011), (13, .008), (21, .005))):
        u, v = g.X * cells + 9 * g.free(8 + layer) + 0 * g.Y, g.Y * cells + 9 * g.free(9 + layer) + 0 * g.X
        i, j = u.floor(), v.floor()
        dx, dy = (u - i - .25 - .5 * cell_hash(i, j, 3)) / cells, (v - j - .25 - .5 * cell_hash(i, j, 5)) / cells
        drawn = max(size, g.px * .5)
        cover = (.5 - ((dx * dx + dy * dy).sqrt() - drawn) / max(g.px, .003)).clamp(0, 1) * (size / drawn) ** 2
        image = _mix(image, cover * (cell_hash(i, j, 7) < .55) * .95, g.rgb(1., 1., 1.) * (.4 + .6 * _light_of(g)))
    return image


BEHIND = {"fog": _fog, "rain": _gloom, "rainbow": _rainbow, "snowfall": _gloom}
BEFORE = {"rain": _rain, "snowfall": _snowfall}


def weather(image, batch, functions):
    """Weather behind the objects (BEHIND) or before them (BEFORE)."""
    for name, function in functions.items():
        backdrop._apply(image, batch, function, batch.weather == WEATHERS.index(name))
