"""From a drawing's pixels to sprites: cropped, squared, measured, coded."""

import numpy
import torch
import torch.nn.functional as F

from . import INFO, SIDES
from .recolour import to_lab

WORKING = 192       # a multiple of every side in SIDES: colour variants are made at this size
CODE = 96           # numbers in a visual code
THUMBNAIL = 16


def resized(planes, height, width):
    return F.interpolate(planes[None], size=(height, width), mode="bilinear", align_corners=False,
                         antialias=True)[0].clamp(0, 1)


def cropped(pixels):
    """uint8 [h, w, 4] straight RGBA to float [4, h', w'] premultiplied, without its empty margin."""
    planes = torch.from_numpy(numpy.ascontiguousarray(pixels)).permute(2, 0, 1).float() / 255
    planes = torch.cat((planes[:3] * planes[3:], planes[3:]))
    rows = (planes[3] > .1).any(1).nonzero()[:, 0]
    columns = (planes[3] > .1).any(0).nonzero()[:, 0]
    if not len(rows):
        raise ValueError("the drawing is empty")
    return planes[:, rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]


def squared(planes, side):
    """[4, side, side]: the longer side fills the square; in the middle, on the lower edge."""
    height, width = planes.shape[1:]
    scale = side / max(height, width)
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    out = torch.zeros(4, side, side)
    left = (side - width) // 2
    out[:, side - height:, left:left + width] = resized(planes, height, width)
    return out


def sized(square):
    """{side: [4, side, side]} for the sides of the atlas, from one of WORKING pixels."""
    return {side: F.avg_pool2d(square[None], WORKING // side)[0] for side in SIDES}


def to_bytes(planes):
    return (planes.clamp(0, 1) * 255).round().byte()


def info(square):
    """The numbers of INFO, float [8]."""
    alpha = square[3]
    side = alpha.shape[0]
    rows = (alpha > .1).any(1).nonzero()[:, 0]
    columns = (alpha > .1).any(0).nonzero()[:, 0]
    left, right = columns[0].item() / side, (columns[-1].item() + 1) / side
    top, bottom = 1 - rows[0].item() / side, 1 - (rows[-1].item() + 1) / side
    lowest = max(1, round(.1 * (top - bottom) * side))
    foot = (alpha[rows[-1] + 1 - lowest:rows[-1] + 1] > .4).any(0).nonzero()[:, 0]
    ends = (foot[0].item() / side, (foot[-1].item() + 1) / side) if len(foot) else (left, right)
    values = dict(left=left, right=right, top=top, bottom=bottom, foot=sum(ends) / 2,
                  foot_width=ends[1] - ends[0], cover=alpha.mean().item(),
                  aspect=(right - left) / (top - bottom))
    return torch.tensor([values[name] for name in INFO])


def glow(square, windows):
    """[side, side] in 0..1: what is bright and warm; with `windows` also what is bright and blue, which is
    how the drawings show glass by day."""
    rgb = square[None, :3] / square[None, 3:].clamp(min=1 / 512)
    lab = to_lab(rgb.clamp(0, 1))[0]
    chroma, angle = lab[1:].norm(dim=0), torch.rad2deg(torch.atan2(lab[2], lab[1]))
    warm = (angle > 50) & (angle < 112) & (lab[0] > .74)
    if windows:
        warm = warm & (lab[0] > .8) | (angle < -85) & (angle > -160) & (lab[0] > .6)
    return square[3] * ((chroma - .04) / .03).clamp(0, 1) * warm.float()


def thumbnails(levels):
    """float [rows, 1024] of the uint8 level of 16 pixels: colours about grey, outlines at half weight."""
    planes = levels.float() / 255
    alpha = planes[:, 3:]
    return torch.cat((planes[:, :3] - .5 * alpha, .5 * alpha), 1).flatten(1)


def code_basis(images, weights):
    """(mean, axes [CODE, 1024], scale [CODE]) of weighted thumbnails: their principal components."""
    weights = weights / weights.sum()
    mean = (images * weights[:, None]).sum(0)
    centred = (images - mean) * weights.sqrt()[:, None]
    _, size, axes = torch.linalg.svd(centred, full_matrices=False)
    axes, size = axes[:CODE], size[:CODE]
    if len(axes) < CODE:        # a very small atlas
        axes = F.pad(axes, (0, 0, 0, CODE - len(axes)))
        size = F.pad(size, (0, CODE - len(size)), value=1.)
    size = size.clamp(min=1e-3)
    codes = centred @ axes.T / size.sqrt()
    return mean, axes, size.sqrt() * codes.pow(2).sum(0).mean().sqrt()


def codes(images, basis):
    mean, axes, scale = basis
    return (images - mean) @ axes.T / scale
