"""Colour words: the main hue of a sprite moved to another colour, its shading and everything else kept.

In OKLab, where equal steps look equal. What is coloured follows from a pixel's own colour and a few
numbers measured once per drawing, so that a sprite can be coloured at any resolution. By itself a colourful
drawing changes where its hue is near its commonest one, and a grey or white drawing where it is not dark; the
table of nouns may ask for all of it instead, without or with what is dark (flags c and d).
"""

import math

import torch

from world.language import COLOUR_NAMES, COLOURS

# The columns of recolour.npy; share is the part of the opaque area that changes.
MEASURED = ("colourful", "hue", "light", "green_red", "blue_yellow", "share", "spread", "breadth")

_LMS = torch.tensor([[.4122214708, .5363325363, .0514459929], [.2119034982, .6806995451, .1073969566],
                     [.0883024619, .2817188376, .6299787005]])
_LAB = torch.tensor([[.2104542553, .7936177850, -.0040720468], [1.9779984951, -2.4285922050, .4505937099],
                     [.0259040371, .7827717662, -.8086757660]])
_NEAR, _SOFT = math.radians(62), math.radians(18)       # hues this near change; over this the change fades
_COLOURFUL = .045                                       # mean chroma from which a drawing has a hue
_BINS = 72
_GLASS, _GLASS_NEAR = math.radians(-122), math.radians(38)      # the blues of windows and water
OWN_HUE, WHOLE, WHOLE_AND_DARK = 0, 1, 2


def _mix(matrix, planes):
    return torch.einsum("ij,njhw->nihw", matrix.to(planes.device), planes)


def to_lab(rgb):
    """[n, 3, h, w] sRGB in 0..1 to OKLab."""
    linear = torch.where(rgb <= .04045, rgb / 12.92, ((rgb.clamp(min=.04045) + .055) / 1.055) ** 2.4)
    return _mix(_LAB, _mix(_LMS, linear).clamp(min=1e-9) ** (1 / 3))


def to_rgb(lab):
    linear = _mix(torch.inverse(_LMS), _mix(torch.inverse(_LAB), lab) ** 3).clamp(0, 1)
    return torch.where(linear <= .0031308, linear * 12.92,
                       1.055 * linear.clamp(min=.0031308) ** (1 / 2.4) - .055)


def _plain_colours(sprites):
    alpha = sprites[:, 3:]
    return (sprites[:, :3] / alpha.clamp(min=1 / 512)).clamp(0, 1), alpha


def _mask(lab, measured):
    """How far each pixel takes the new colour, [n, 1, h, w] in 0..1."""
    colourful, hue, breadth = (measured[:, i, None, None, None] for i in (0, 1, 7))
    chroma = lab[:, 1:].norm(dim=1, keepdim=True)
    angle = torch.atan2(lab[:, 2:], lab[:, 1:2])
    away = ((angle - hue + math.pi) % (2 * math.pi) - math.pi).abs()
    hued = ((_NEAR - away) / _SOFT).clamp(0, 1) * ((chroma - .025) / .03).clamp(0, 1)
    bright = ((lab[:, :1] - .38) / .15).clamp(0, 1)
    grey = bright * ((.14 - chroma) / .05).clamp(0, 1)
    own = torch.where(colourful > .5, hued, grey)
    if not breadth.any():
        return own
    from_glass = ((angle - _GLASS + math.pi) % (2 * math.pi) - math.pi).abs()
    whole = bright * torch.maximum(((from_glass - _GLASS_NEAR) / .2).clamp(0, 1), ((.08 - chroma) / .03).clamp(0, 1))
    return torch.where(breadth > 1.5, torch.ones_like(own), torch.where(breadth > .5, whole, own))


def measure(sprites, breadth=OWN_HUE):
    """float [n, 8]: see MEASURED."""
    rgb, alpha = _plain_colours(sprites)
    lab = to_lab(rgb)
    chroma = lab[:, 1:].norm(dim=1, keepdim=True)
    area = alpha.flatten(1).sum(1).clamp(min=1e-6)
    weight = alpha * chroma
    angle = torch.atan2(lab[:, 2:], lab[:, 1:2])
    cell = ((angle + math.pi) / (2 * math.pi) * _BINS).long() % _BINS
    counts = torch.zeros(len(sprites), _BINS, device=sprites.device)
    counts.scatter_add_(1, cell.flatten(1), weight.flatten(1))
    smooth = sum(counts.roll(step, 1) for step in range(-4, 5))
    out = torch.zeros(len(sprites), 8, device=sprites.device)
    out[:, 0] = (weight.flatten(1).sum(1) / area > _COLOURFUL).float()
    out[:, 1] = (smooth.argmax(1) + .5) / _BINS * 2 * math.pi - math.pi
    out[:, 7] = breadth
    changed = _mask(lab, out) * alpha
    total = changed.flatten(1).sum(1)
    out[:, 2:5] = (lab * changed).flatten(2).sum(2) / total.clamp(min=1e-6)[:, None]
    out[:, 5] = total / area
    off = ((lab[:, :1] - out[:, 2, None, None, None]) ** 2 * changed).flatten(1).sum(1)
    out[:, 6] = (off / total.clamp(min=1e-6)).sqrt()
    return out


def recolour(sprites, measured, variants):
    """Premultiplied sprites [n, 4, h, w] in the colours of `variants` (int64 [n]; 0 leaves them alone)."""
    chosen = (variants > 0).nonzero()[:, 0]
    if not len(chosen):
        return sprites
    sprites = sprites.clone()
    part, measured = sprites[chosen], measured[chosen]
    rgb, alpha = _plain_colours(part)
    lab = to_lab(rgb)
    mask = _mask(lab, measured)
    targets = torch.tensor([COLOURS[c] for c in COLOUR_NAMES], device=sprites.device)
    target = to_lab(targets[variants[chosen] - 1][:, :, None, None])
    middle = measured[:, 2:5, None, None]
    shade = lab[:, :1] - middle[:, :1]
    light = (target[:, :1] + .8 * shade).clamp(.05, .99)
    hue = target[:, 1:] * (1 + .6 * shade).clamp(.4, 1.3) + .12 * (lab[:, 1:] - middle[:, 1:])
    new = to_rgb(lab * (1 - mask) + torch.cat((light, hue), 1) * mask)
    sprites[chosen] = torch.cat((new * alpha, alpha), 1)
    return sprites
