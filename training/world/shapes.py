"""The eleven shapes and the six surfaces, shaded analytically.

Every shape works in units of its radius: x to the right, y downwards, the foot at y = .95, and p is
the size of a pixel. A shape returns its coverage, its normal, surface coordinates for patterns and
lines of extra light; parts with colours of their own (a trunk, walls, windows) it paints at once.
"""

import collections
import math

import torch

from .language import PATTERNS
from .noise import noise

Place = collections.namedtuple("Place", "x y p skew phase")
Light = collections.namedtuple("Light", "key ambient direction night")
WHITE = (.97, .97, .95)


class Surface:
    """What a shape function hands to the shading."""

    def __init__(self, cover, nx=0., ny=0., nz=1., u=None, v=None, lines=None, spots=None, base=None,
                 gloss=.38):
        self.cover, self.nx, self.ny, self.nz = cover, nx, ny, nz
        self.u, self.v, self.lines, self.spots, self.base, self.gloss = u, v, lines, spots, base, gloss


class Painter:
    """The picture behind the shape, and the means to paint parts on it."""

    def __init__(self, view, place, light, base, warm):
        self.view, self.light, self.base, self.warm = view, light, base, warm
        self.p = place.p

    def cover(self, distance):
        return (.5 - distance / self.p).clamp(0, 1)

    def paint(self, cover, colour):
        self.view = self.view + cover[..., None] * (colour - self.view)

    def lit(self, rgb, key=.6):
        """A matt part of its own colour; key: its share of the direct light."""
        key = key[..., None] if isinstance(key, torch.Tensor) else key
        return self.view.new_tensor(rgb) * (self.light.ambient + self.light.key * key)


def _bump(x, centre, width):
    return torch.exp(-((x - centre) / width) ** 2)


def _safe_sqrt(x, least=0.):
    return x.clamp(min=least).sqrt()


def _sphere(g, brush):
    rho = (g.x * g.x + g.y * g.y).sqrt() / .97
    nx, ny, nz = g.x / .97, g.y / .97, _safe_sqrt(1 - rho * rho)
    return Surface(brush.cover((rho - 1) * .97), nx, ny, nz, u=torch.atan2(nx, nz + .15) * .8,
                   v=torch.asin((ny * .9 + .25 * nz).clamp(-1, 1)) * .9)


def _cube(g, brush):
    a, b, top, height = .88, .30, -.64, 1.26
    edge = g.skew * a
    slope = torch.where(g.x < edge, (g.x + a) / (edge + a), (a - g.x) / (a - edge)).clamp(0, 1)
    back = torch.where(g.x < -edge, (g.x + a) / (a - edge), (a - g.x) / (a + edge)).clamp(0, 1)
    rim = top + b * slope
    outside = torch.maximum(g.x.abs() - a, torch.maximum(g.y - rim - height, top - b * back - g.y) * .95)
    upper = (.5 - (g.y - rim) / g.p).clamp(0, 1)
    left = (.5 - (g.x - edge) / g.p).clamp(0, 1) * (1 - upper)
    right = 1 - left - upper
    lines = _bump(g.y, rim, .035) * .25 + _bump(g.x, edge, .03) * (1 - upper) * .2
    return Surface(brush.cover(outside), .72 * (right - left), -.9 * upper, .69 * (1 - upper) + .43 * upper,
                   u=g.x * 1.15, v=torch.where(upper > .5, (g.y - top) * 1.5, g.y - b * slope), lines=lines)


def _cylinder(g, brush):
    a, e, top, foot = .72, .22, -.82, .72
    round_ = _safe_sqrt(1 - (g.x / a) ** 2)
    outside = torch.maximum(g.x.abs() - a, torch.maximum(g.y - (foot + e * round_), top - e * round_ - g.y))
    upper = (.5 - (g.y - (top + e * round_)) / g.p).clamp(0, 1)
    return Surface(brush.cover(outside), g.x / a * (1 - upper), -.9 * upper,
                   round_ * (1 - upper) + .43 * upper, u=torch.asin((g.x / a).clamp(-1, 1)) * .75,
                   v=g.y - e * round_, lines=_bump(g.y, top + e * round_, .04) * .22 * round_)


def _cone(g, brush):
    a, e, top, foot = .84, .2, -1.12, .74
    k = ((g.y - top) / (foot - top)).clamp(.001, 1.3)
    half = a * k
    across = (g.x / (half + 1e-4)).clamp(-1, 1)
    round_ = _safe_sqrt(1 - (g.x / a) ** 2)
    outside = torch.maximum((g.x.abs() - half) * .9, torch.maximum(g.y - (foot + e * round_), top - g.y))
    bend = _safe_sqrt(1 - across * across)
    return Surface(brush.cover(outside), across * .88, torch.full_like(g.x + g.y, -.42), bend * .85,
                   u=torch.asin(across) * .7, v=g.y - e * bend * k)


def _pyramid(g, brush):
    a, b, top, foot = .97, .26, -1.04, .68
    edge = g.skew * a
    slope = torch.where(g.x < edge, (g.x + a) / (edge + a), (a - g.x) / (a - edge)).clamp(0, 1)
    k = (g.y - top) / (foot - top)
    outside = torch.maximum((g.x.abs() - a * k) * .87, (g.y - (foot + b * slope)) * .95)
    ridge = edge * (g.y - top) / (foot + b - top)
    left = (.5 - (g.x - ridge) / g.p).clamp(0, 1)
    return Surface(brush.cover(torch.maximum(outside, top - g.y)), .70 * (1 - 2 * left),
                   torch.full_like(left, -.40), torch.full_like(left, .60), u=g.x, v=g.y - b * slope,
                   lines=_bump(g.x, ridge, .03) * .22)


def _ring(g, brush):
    rho = (g.x * g.x + g.y * g.y).sqrt()
    tube = (rho - .68) / .28
    t, inverse = tube.clamp(-1, 1), 1 / (rho + 1e-4)
    return Surface(brush.cover((tube.abs() - 1) * .28), t * g.x * inverse, t * g.y * inverse,
                   _safe_sqrt(1 - t * t), u=t * .25 + .25, v=torch.atan2(g.x, -g.y) * 1.25)


def _star_distance(x, y, r):
    k = math.pi / 5
    rho = (x * x + y * y).sqrt()
    angle = ((torch.atan2(x, -y) + k) % (2 * k) - k).abs()
    px, py = rho * torch.cos(angle), rho * torch.sin(angle)
    ex, ey = .46 * r * math.cos(k) - r, .46 * r * math.sin(k)
    return ((px - r) * ey - py * ex) / math.hypot(ex, ey)


def _heart_distance(x, y, r):
    s = r * .93
    x, y = x.abs() / s * .56, (1 - y / s) * .56
    lobe = ((x - .25) ** 2 + (y - .75) ** 2).sqrt() - math.sqrt(2) / 4
    m = .5 * (x + y).clamp(min=0)
    tip = torch.minimum(x * x + (y - 1) ** 2, (x - m) ** 2 + (y - m) ** 2).sqrt() * torch.sign(x - y)
    return torch.where(y + x > 1, lobe, tip) * s / .56


def _pillow(distance, x, y, r, step=.02):
    """Distance and its direction by central differences."""
    d = distance(x, y, r)
    gx = distance(x + step, y, r) - distance(x - step, y, r)
    gy = distance(x, y + step, r) - distance(x, y - step, r)
    length = (gx * gx + gy * gy).sqrt() + 1e-5
    return d, gx / length, gy / length


def _star(g, brush):
    d, gx, gy = _pillow(_star_distance, g.x + 0 * g.y, g.y + 0 * g.x, 1.1)
    flat = torch.full_like(d, .72)
    return Surface(brush.cover(d), gx * .68, gy * .68, flat, u=g.x + 0 * g.y, v=g.y + 0 * g.x)


def _heart(g, brush):
    d, gx, gy = _pillow(_heart_distance, g.x + 0 * g.y, g.y - .08 + 0 * g.x, 1.02)
    k = (1 + d / .55).clamp(0, 1) ** 1.3
    return Surface(brush.cover(d), gx * k, gy * k, _safe_sqrt(1 - k * k, .02), u=g.x + 0 * g.y,
                   v=g.y + 0 * g.x)


def _tree(g, brush):
    trunk = torch.maximum(g.x.abs() - .13 - .05 * g.y.clamp(0, 1), torch.maximum(g.y - .95, -g.y - .2))
    bark = 1 + .25 * noise(g.x * 30, g.y * 6) if float(g.p.max()) < .02 else 1.
    side = (.5 + g.x * 3).clamp(0, 1) * .5 + .35 + 0 * g.y
    brush.paint(brush.cover(trunk), brush.lit((.44, .28, .15), side * bark))
    nx = ny = torch.zeros_like(trunk)
    cover, height = torch.zeros_like(trunk), torch.full_like(trunk, -9.)
    for cx, cy, r in ((-.40, -.22, .50), (.40, -.25, .50), (0, -.62, .60), (0, -.12, .47)):
        dx, dy = (g.x - cx) / r, (g.y - cy) / r
        q = dx * dx + dy * dy
        z = torch.where(q < 1, _safe_sqrt(1 - q) * r, torch.full_like(q, -1.))
        nearer = z > height
        height = torch.maximum(height, z)
        nx, ny = torch.where(nearer, dx, nx), torch.where(nearer, dy, ny)
        cover = torch.maximum(cover, brush.cover((q.sqrt() - 1) * r))
    nx, ny = nx.clamp(-1, 1), ny.clamp(-1, 1)
    leaves = .16 * noise(g.x * 9 + g.phase * 50, g.y * 9)
    if float(g.p.max()) < .03:
        bend = .05 * leaves
        u, v = g.x * .8 - g.y * .6 + bend, g.x * .6 + g.y * .8 - bend     # turned, so that no grid shows
        tufts = noise(u * 18 + g.phase * 30, v * 18) + .7 * noise(v * 41, u * 41 + 7)
        leaves = leaves + .17 * tufts
        if float(g.p.max()) < .012:
            leaves = leaves + .12 * noise(u * 97, v * 60)
    return Surface(cover, nx, ny, _safe_sqrt(1 - nx * nx - ny * ny, .02), lines=leaves, gloss=.05)


def _house(g, brush):
    x, y = torch.broadcast_tensors(g.x, g.y)
    wall = torch.maximum(x.abs() - .74, torch.maximum(y - .95, -y - .15))
    colour = brush.base * (brush.light.ambient + brush.light.key * .62)
    bricks = 1 + .05 * torch.sin(y * 60) * (.02 / g.p).clamp(0, 1)
    brush.paint(brush.cover(wall), colour * bricks[..., None])
    glow = brush.light.night[..., None]
    pane = brush.lit((.62, .80, .92), .5) * (1 - glow) + glow * brush.view.new_tensor((1., .86, .45))
    frame = brush.lit((.97, .95, .90), .5)
    for cx in (-.42, .42):
        ax, ay = (x - cx).abs(), (y - .25).abs()
        brush.paint(brush.cover(torch.maximum(ax - .20, ay - .20)), frame)
        inner = torch.maximum(torch.maximum(ax, ay) - .155, .02 - torch.minimum(ax, ay))
        brush.paint(brush.cover(inner), pane)
    brush.paint(brush.cover(torch.maximum(x.abs() - .155, torch.maximum(y - .95, .45 - y))),
                brush.lit((.38, .23, .13)))
    roof = torch.maximum(x.abs() - .98, torch.maximum((x.abs() * .92 - (y + 1.05)) * .74, y + .12))
    tiles = .14 * torch.sin(y * 32) * (.06 / g.p).clamp(0, 1)
    red, slate = brush.view.new_tensor((.48, .20, .15)), brush.view.new_tensor((.33, .33, .40))
    base = torch.where(brush.warm[..., None] > 0, slate, red)
    return Surface(brush.cover(roof), torch.zeros_like(x), torch.full_like(x, -.55), torch.full_like(x, .8),
                   lines=tiles, base=base, gloss=.05)


def _mushroom(g, brush):
    stem = torch.maximum(g.x.abs() - .25 - .08 * g.y.clamp(0, 1) ** 2, torch.maximum(g.y - .95, -g.y - .1))
    bend = (g.x / .3).clamp(-1, 1)
    brush.paint(brush.cover(stem), brush.lit((.95, .90, .80), .49 + .17 * bend + 0 * g.y))
    a, h = .97, .98
    ey = g.y - .05
    q = (g.x / a) ** 2 + (ey / h) ** 2
    cap = torch.maximum((q.sqrt() - 1) * .9, ey - .12 * _safe_sqrt(1 - (g.x / a) ** 2))
    spots = torch.zeros_like(q)
    for cx, cy, r in ((-.46, -.25, .16), (.08, -.58, .19), (.52, -.2, .15), (-.02, -.10, .12)):
        spots = torch.maximum(spots, brush.cover(((g.x - cx) ** 2 + (g.y - cy) ** 2).sqrt() - r))
    return Surface(brush.cover(cap), g.x / a + 0 * ey, ey / h + 0 * g.x, _safe_sqrt(1 - q, .02), spots=spots,
                   gloss=.12)


SHAPE_FUNCTIONS = {"sphere": _sphere, "cube": _cube, "cylinder": _cylinder, "cone": _cone,
                   "pyramid": _pyramid, "ring": _ring, "star": _star, "heart": _heart, "tree": _tree,
                   "house": _house, "mushroom": _mushroom}


def _square_wave(x, width):
    return ((((x % 1) - .5).abs() - .25) / width).clamp(-.5, .5) * 2


def _figure(name, s, phase, p):
    """How white the pattern is at every pixel: 0..1."""
    if name == "striped":
        return .5 + .5 * _square_wave(s.v * 1.7 + phase, p * 1.7)
    if name == "dotted":
        a, c = (s.u * 1.8 + .5) % 1 - .5, (s.v * 1.8 + phase) % 1 - .5
        return (.5 - ((a * a + c * c).sqrt() - .28) / (p * 1.8)).clamp(0, 1)
    return .5 + .5 * _square_wave(s.u * 1.1 + .25, p * 1.1) * _square_wave(s.v * 1.1 + phase, p * 1.1)


def _matt(s, colour, diffuse, shine, light):
    out = colour * (light.ambient * .84 + light.key * (.82 * diffuse[..., None]))
    return out + (shine ** 20 * s.gloss)[..., None] * light.key


def _metal(s, g, colour, diffuse, shine, light):
    sky = .5 + .5 * torch.sin(2 * s.nz * s.ny * 4.2 + .8)
    sky = (sky * sky * 1.25).clamp(0, 1.2)
    brushed = 1.
    if float(g.p.max()) < .02:
        brushed = 1 + .10 * noise(g.x * 4, g.y * 90 + g.phase * 70)
    out = colour * ((.25 + .75 * sky + .25 * diffuse) * brushed)[..., None] * (
        light.ambient * .7 + light.key * .65)
    streak = torch.exp(-(((.15 - g.x + g.y * .6) % 1.1 - .5) / .13) ** 2) * .35 * (s.nz < .8)
    return out + (.30 * sky * sky)[..., None] + (shine ** 24 * .9 + streak)[..., None] * light.key


def _glass(s, g, view, colour, shine, light):
    rim = (1 - s.nz).clamp(0, 1) ** 1.5
    through = view * .62 * (.22 + colour)
    body = colour * (.20 + .45 * rim[..., None]) * (light.ambient + light.key * .6)
    glint = torch.exp(-(((g.x - .36) / .13) ** 2 + ((g.y + .33) / .2) ** 2)) * .65
    return through + body + (rim * .22 + shine ** 30 * .95 + glint)[..., None] * light.key


def paint(shape, view, place, light, base, pattern, patterns, warm, pale):
    """The window `view` [n, h, w, 3] with one shape drawn on each."""
    brush = Painter(view, place, light, base, warm)
    s = SHAPE_FUNCTIONS[shape](place, brush)
    view = brush.view
    colour = base if s.base is None else s.base
    if s.spots is not None:
        spot = torch.where(pale[..., None] > 0, view.new_tensor((.85, .15, .15)), view.new_tensor(WHITE))
        colour = colour + s.spots[..., None] * (spot - colour)
    for name in sorted(patterns & {"striped", "dotted", "checkered"}):
        white = _figure(name, s, place.phase, place.p) * (pattern == PATTERNS.index(name))
        colour = colour + white[..., None] * (view.new_tensor(WHITE) - colour)
    lx, ly, lz = light.direction.unbind(1)
    diffuse = (s.nx * lx + s.ny * ly + s.nz * lz).clamp(0, 1)
    shine = (2 * diffuse * s.nz - lz).clamp(0, 1)
    out = _matt(s, colour, diffuse, shine, light)
    if "metallic" in patterns:
        out = torch.where(pattern[..., None] == 4, _metal(s, place, colour, diffuse, shine, light), out)
    if "glass" in patterns:
        out = torch.where(pattern[..., None] == 5, _glass(s, place, view, colour, shine, light), out)
    if s.lines is not None:
        out = out * (1 + s.lines[..., None]) + (s.lines.clamp(min=0) * .22)[..., None]
    return view + s.cover[..., None] * (out.clamp(0, 1) - view)
