"""A small atlas of drawings made here: what the atlas builder would write, without anything fetched."""

import pathlib
import tempfile

import torch

from atlas import LARGE, Atlas, build, sprites
from atlas.nouns import Noun

ROWS = ["disc\ttools\t1\t3\t\tmade:disc\tdisc,dish",
        "post\tbuildings\t1\t5\tg\tmade:post\tpost,pole",
        "leaf\tplants\t1\t2\tn\tmade:leaf\tleaf/leaves",
        "bird\tbirds\t1\t2\tf\tmade:bird\tbird,sparrow",
        "boat\tvehicles\t1\t5\tt\tmade:boat\tboat,ship",
        "bread\tfood\t1\t2\t\tmade:bread\tbread/-,loaf/loaves",
        "glasses\tclothes\t2\t1\t\tmade:glasses\t/glasses"]
COLOURS = {"disc": (.8, .2, .2), "post": (.3, .4, .7), "leaf": (.2, .7, .2), "bird": (.7, .5, .1), "boat": (.6, .2, .5),
           "bread": (.8, .6, .3), "glasses": (.2, .6, .7)}


def _shape(name, x, y):
    """Where the drawing is opaque, x and y in -1..1 with y downwards."""
    return {"disc": x * x + y * y < .8, "post": (x.abs() < .2) & (y.abs() < .95), "leaf": x.abs() + y.abs() < .9,
            "bird": (x * x + (y * 2) ** 2 < .8), "boat": (y > 0) & (x.abs() < .9 - y * .4) & (y < .5),
            "bread": (x.abs() < .9) & (y.abs() < .5), "glasses": ((x.abs() - .5) ** 2 + y * y < .16)}[name]


def _drawing(name, side):
    step = (torch.arange(side * 4) + .5) / side / 2 - 1
    inside = _shape(name, step[None].expand(side * 4, -1), step[:, None].expand(-1, side * 4)).float()
    alpha = torch.nn.functional.avg_pool2d(inside[None], 4)[0]
    shade = .75 + .25 * torch.linspace(0, 1, side).expand(side, side)
    rgb = torch.tensor(COLOURS[name])[:, None, None] * shade
    return torch.cat([rgb, alpha[None]])


def write(folder):
    """Builds the atlas in the folder."""
    nouns = [Noun.from_row(row) for row in ROWS]
    planes = {n.sources[0]: sprites.cropped((_drawing(n.id, 256).permute(1, 2, 0) * 255).round().byte().numpy())
              for n in nouns}
    ready = {source: {side: sprites.to_bytes(sprites.squared(p, side)).numpy() for side in LARGE + (sprites.WORKING,)}
             for source, p in planes.items()}
    build.build(folder, nouns, ready)


def atlas():
    """A synthetic atlas, built once per process."""
    global _kept
    if _kept is None:
        folder = tempfile.TemporaryDirectory()
        path = pathlib.Path(folder.name) / "atlas"
        write(path)
        _kept = (Atlas(path), folder)
    return _kept[0]


_kept = None
