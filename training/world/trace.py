"""Where things are in composed pictures, for what a net is taught beside the picture."""

import torch
import torch.nn.functional as F

from .language import COLOUR_NAMES, SHAPES

GRID = 16
COVERED = .35           # share of a cell from which on it shows an object


class Trace:
    """mask [N, 1, res, res]: how much of a pixel is an object. maps [N, 3, GRID, GRID] per cell, of the
    frontmost object: its kind (1 and up; 0 for none), its colour (0: its own) and its row in the atlas
    (-1: a solid, or none)."""

    def __init__(self, count, res, device="cpu"):
        self.res = res
        self.mask = torch.zeros(count, 1, res, res, device=device)
        self.maps = torch.zeros(count, 3, GRID, GRID, dtype=torch.int16, device=device)
        self.maps[:, 2] = -1

    def _cover(self, window, cover, kinds, colours, rows):
        pictures = window.pictures
        at = (pictures[:, None, None], 0, window.rows, window.cols)
        self.mask[at] = torch.maximum(self.mask[at], cover)
        device = cover.device
        whole = torch.zeros(len(pictures), self.res, self.res, device=device)
        whole[(torch.arange(len(pictures), device=device)[:, None, None], window.rows, window.cols)] = cover
        n, row, col = (F.avg_pool2d(whole[:, None], self.res // GRID)[:, 0] > COVERED).nonzero().t()
        for k, values in enumerate((kinds, colours, rows)):
            values = torch.as_tensor(values, device=device).to(torch.int16)
            self.maps[pictures[n], k, row, col] = values[n]

    def sprite(self, window, objects, rows, cover):
        self._cover(window, cover, [1 + len(SHAPES) + o.noun for o in objects], [o.variant for o in objects], rows)

    def solid(self, window, objects, place):
        q = place.x ** 2 + ((place.y + .03) / 1.1) ** 2
        cover = (.5 - (q.sqrt() - 1) / place.p.clamp(min=.02)).clamp(0, 1)
        self._cover(window, cover, [1 + SHAPES.index(o.shape) for o in objects],
                    [1 + COLOUR_NAMES.index(o.colour) for o in objects], [-1] * len(objects))
