"""Nouns in pictures: sprites of an atlas, with contact, shadow and the light of the time of day.

Like a solid, a sprite is drawn in a window around it, from the level of the atlas that is as large as it is
shown or the next larger one, so that any size and any window of a picture agree.
"""

import math

import torch
import torch.nn.functional as F

from atlas.recolour import recolour

from .language import AFLOAT

SHADOW_LENGTH = {"day": .45, "sunset": .9, "night": .6}
# the light that falls on a drawing, which has its own shading, relative to day
TINT = {"day": (1., 1., 1.), "sunset": (1.05, .86, .74), "night": (.62, .66, .84)}
PLACE_TINT = {"underwater": (.78, .92, 1.), "forest": (.94, .98, .93)}
IMMERSED = .13          # share of the height of what floats that is below the water
GLOW = (1., .82, .48)
FAR = 1.3               # half a window's side, in halves of a sprite's side: room for tilt and stretch


def column(values, device, dim=3):
    return torch.tensor(values, dtype=torch.float32, device=device).view(-1, *[1] * (dim - 1))


class Sprites:
    """Some objects of one layer as tensors: rows of the atlas, places and sizes."""

    def __init__(self, atlas, batch, rows):
        self.atlas, self.batch, self.rows = atlas, batch, rows
        objs = [o for _, o in rows]
        scenes = [batch.scenes[i] for i, _ in rows]
        self.row = torch.tensor([int(atlas.drawings[o.noun, o.drawing, o.variant]) for o in objs])
        info = atlas.info.cpu()[self.row]
        self.left, self.right, self.top, self.bottom, self.foot, self.foot_width = info[:, :6].unbind(1)
        height = torch.tensor([2 * o.r for o in objs])
        self.side = height / (self.top - self.bottom)
        self.stretch = torch.tensor([o.stretch for o in objs])
        self.sign = torch.tensor([-1. if o.mirror else 1. for o in objs])
        self.tilt = torch.tensor([math.radians(o.tilt) for o in objs])
        self.x, self.y = (torch.tensor([getattr(o, k) for o in objs]) for k in "xy")
        water = [s.ground == "sea" and not o.floating and not o.resting for s, o in zip(scenes, objs)]
        drawn_wet = ["w" in atlas.nouns[o.noun].flags for o in objs]
        self.wet = torch.tensor(water)
        self.sunk = torch.tensor([IMMERSED * w * (not d) for w, d in zip(water, drawn_wet)]) * height
        self.scenes, self.height = scenes, height

    def centre(self):
        """Middle of the square, and where its foot is from left to right."""
        return self.y + self.sunk - self.side / 2, self.x + (self.foot - .5) * self.side * self.sign * self.stretch

    def tint(self, device):
        rows = []
        for s in self.scenes:
            place = PLACE_TINT.get(s.ground, (1., 1., 1.))
            rows.append([a * b for a, b in zip(TINT[s.time], place)])
        return torch.tensor(rows, device=device)[:, None, None]


def shadow(image, batch, rows, atlas, Window):
    """A soft shadow as wide as the foot, longer to the left, away from the light; foam on water."""
    rows = [(i, o) for i, o in rows if not o.resting and batch.scenes[i].ground != "space"
            and not (o.floating and batch.scenes[i].ground in AFLOAT)]
    if not rows:
        return
    s, device = Sprites(atlas, batch, rows), image.device
    length = torch.tensor([SHADOW_LENGTH[c.time] for c in s.scenes])
    flying = torch.tensor([float(o.floating) for _, o in rows])
    width = (s.foot_width * .65 + (s.right - s.left) * .35) * s.side * s.stretch / 2 + .008
    _, foot = s.centre()
    cx = torch.where(flying > 0, s.x, foot - .30 * length * width)
    cy = torch.where(flying > 0, torch.full_like(s.y, .90), s.y - .010)
    rx, ry = width * (1.15 + .4 * length), (width * .24).clamp(min=.014)
    window = Window(image, batch, rows, list(zip(cx.tolist(), cy.tolist())), float(rx.max()) * 1.6,
                    float(ry.max()) * 1.7)
    if not len(window.keep):
        return

    def view(v):
        return v.to(device)[window.keep][:, None, None]
    q = ((window.X - view(cx)) / view(rx)) ** 2 + ((window.Y - view(cy)) / view(ry)) ** 2
    strength = torch.where(view(flying) > 0, .22 * torch.exp(-q * 1.2), .52 * torch.exp(-q * q * 1.1))
    strength = strength * torch.where(view(s.wet.float()) > 0, torch.full_like(q, .6), torch.ones_like(q))
    window.write(window.read() * (1 - strength[..., None]))


def _sampled(atlas, row, side, grid):
    """Sprites of rows of the atlas at the places of grid, [n, h, w, 4]. Large ones are kept in their own
    colours only; what is seen of them is coloured here, which is less than the whole."""
    if side in atlas.levels:
        sprite = atlas.sprites(row, side).to(grid.device)
        return F.grid_sample(sprite, grid, align_corners=False).permute(0, 2, 3, 1)
    store, drawing = atlas.large[side], atlas.drawing_of[row]
    out = torch.cat([F.grid_sample(store[d:d + 1].to(grid.device).float() / 255, grid[i:i + 1], align_corners=False)
                     for i, d in enumerate(drawing.tolist())])
    variant = atlas.variant_of[row]
    coloured = (variant > 0).nonzero()[:, 0]
    if len(coloured):
        out[coloured] = recolour(out[coloured], atlas.recolouring[drawing[coloured]].to(grid.device), variant[coloured])
    return out.permute(0, 2, 3, 1)


def draw(image, batch, rows, atlas, Window, side, trace=None):
    """Draws the sprites of one atlas level on the pictures. trace: takes down what is where."""
    s, device = Sprites(atlas, batch, rows), image.device
    cy, _ = s.centre()
    most = float((s.side * s.stretch.clamp(min=1.)).max()) / 2
    window = Window(image, batch, rows, list(zip(s.x.tolist(), cy.tolist())), most * FAR, most * FAR)
    keep = window.keep
    if not len(keep):
        return

    def view(v):
        return v.to(device)[keep][:, None, None]
    half = view(s.side / 2)
    u, v = torch.broadcast_tensors((window.X - view(s.x)) / half, (window.Y - view(cy)) / half)
    cos, sin, v = view(s.tilt.cos()), view(s.tilt.sin()), v - 1        # tilted about the foot
    across, down = (u * cos + v * sin) * view(s.sign / s.stretch), v * cos - u * sin + 1
    grid = torch.stack((across, down), -1)
    row = s.row.to(device)[keep]
    out = _sampled(atlas, row, side, grid)
    tint = s.tint(device)[keep]
    night = torch.tensor([c.time == "night" for c in s.scenes], device=device)[keep]
    glowing = night & (atlas.glow_of[atlas.drawing_of[row]] >= 0)
    if glowing.any():
        lit = torch.zeros(len(keep), *out.shape[1:3], device=device)
        lit[glowing] = F.grid_sample(atlas.glow(row[glowing], side).to(device), grid[glowing], align_corners=False)[:, 0]
        tint = tint + lit[..., None] * (1.12 - tint)
    cover, colour = out[..., 3], out[..., :3] * tint
    if s.wet.any():
        line = view(s.y) + .004 * torch.sin(window.X * 90)
        above = (.5 - (window.Y - line) / max(batch.px, .004)).clamp(0, 1)
        keep_all = 1 - view(s.wet.float())
        above = torch.maximum(above, keep_all + 0 * above)
        colour, cover = colour * above[..., None], cover * above
    under = window.read()
    if glowing.any():
        reach = half * 1.5
        d2 = (u * half / reach) ** 2 + ((v + 1) * half / reach) ** 2
        halo = torch.exp(-d2 * 3.2) * .20 * glowing[:, None, None]
        under = under + halo[..., None] * torch.tensor(GLOW, device=device)
    window.write((under * (1 - cover[..., None]) + colour).clamp(max=1.))
    if trace is not None:
        trace.sprite(window, [rows[k][1] for k in keep.tolist()], row, cover)


def by_level(atlas, rows, res):
    """The rows by the level of the atlas that they are drawn from: the least that is not enlarged."""
    sides = sorted(list(atlas.levels) + list(atlas.large))
    out = {}
    for i, o in rows:
        row = int(atlas.drawings[o.noun, o.drawing, o.variant])
        shown = 2 * o.r * res / float(atlas.info[row, 2] - atlas.info[row, 3])
        level = next((side for side in sides if side >= shown * .95), sides[-1])
        out.setdefault(level, []).append((i, o))
    return out
