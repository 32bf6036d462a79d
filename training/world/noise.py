"""Value noise in torch: the same everywhere, at any resolution, on CPU and GPU."""

import torch
import torch.nn.functional as F

_TABLES = {}
_SIZE = 256


def _table(device):
    if device not in _TABLES:
        values = torch.rand(_SIZE, _SIZE, generator=torch.Generator().manual_seed(11)) * 2 - 1
        values = F.pad(values[None, None], (0, 1, 0, 1), mode="circular")
        _TABLES[device] = values.to(device)
    return _TABLES[device]


def noise(x, y):
    """Smooth noise in [-1, 1] with one random value per unit cell; x and y have equal shape."""
    def fold(v):
        cell = v.floor()
        f = v - cell
        return (cell % _SIZE + f * f * (3 - 2 * f)) * (2 / _SIZE) - 1
    x, y = torch.broadcast_tensors(x, y)
    grid = torch.stack((fold(x), fold(y)), -1).reshape(1, 1, -1, 2)
    return F.grid_sample(_table(x.device), grid, mode="bilinear", align_corners=True).view(x.shape)


def cell_hash(i, j, k=0):
    """A number in [0, 1) for every integer cell (i, j); k picks another set."""
    table = _table(i.device)[0, 0]
    return table[((j * 7 + k * 31) % _SIZE).long(), ((i + 57 * j + 101 * k) % _SIZE).long()] * .5 + .5


def fractal(x, y, octaves):
    """Sum of octaves of noise, each half as strong and twice as fine."""
    total = 0
    for octave in range(octaves):
        total = total + .5 ** octave * noise(x * 2 ** octave + 17.3 * octave, y * 2 ** octave + 5.9 * octave)
    return total
