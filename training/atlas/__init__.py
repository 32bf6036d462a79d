"""The atlas: what the nouns of vocabulary/nouns.tsv look like, in pixels, for the composer and the trainers.

    python3 -m atlas.build --out out/atlas --waves 1,2      # in training/; writes the folder
    atlas = Atlas("out/atlas", waves=(1,))                  # reads it, memory-mapped

A noun has one or more drawings (another artist's, another angle, another skin tone), and a drawing has up
to eleven variants: variant 0 in its own colours, 1 to 10 in the colours of world.language.COLOUR_NAMES. Each
drawing in each variant is one row of the atlas. Nouns come in the order of their waves, then of the table,
so that what is added later is appended.

A sprite is a premultiplied RGBA square, channels first. The object is cropped tight: the longer side of its
box fills the square, the box is centred from left to right, and its lowest point, where it touches the
ground, is the square's lower edge.

The folder:

| file            | type                          | content                                              |
|-----------------|-------------------------------|------------------------------------------------------|
| atlas.json      |                               | format, waves, sides, and all about nouns, drawings  |
| level_SIDE.npy  | uint8 [rows, 4, SIDE, SIDE]   | all rows, for SIDE in 16, 24, 32, 48, 64, 96         |
| large_SIDE.npy  | uint8 [drawings, 4, SIDE, SIDE] | own colours only, for SIDE in 256, 512             |
| glow_SIDE.npy   | uint8 [glowing, SIDE, SIDE]   | what shines at night, for SIDE in 96, 256            |
| index.npy       | int32 [nouns, most drawings, 11] | the row, or -1: no such drawing or variant        |
| info.npy        | float32 [rows, 8]             | see INFO                                             |
| code.npy        | float32 [rows, 96]            | visual code: what the text encoder learns to predict |
| recolour.npy    | float32 [drawings, 8]         | what atlas.recolour needs to colour a large sprite   |
"""

import dataclasses
import json
import pathlib

import numpy
import torch
import torch.nn.functional as F

from .nouns import Noun

FORMAT = 1
SIDES = (16, 24, 32, 48, 64, 96)
LARGE = (256, 512)
VARIANTS = 11
# Fractions of the square's side, x from its left edge and y from its lower edge upwards: the box of the
# object, the middle and the width of its foot (the columns that are opaque in the lowest tenth of the box);
# the share of the square that is opaque; and width / height of the box.
INFO = ("left", "right", "top", "bottom", "foot", "foot_width", "cover", "aspect")


@dataclasses.dataclass(frozen=True)
class Drawing:
    source: str     # "fluent:cat", "noto:orca", "sh3d:chair@45" (yaw in degrees)
    noun: int       # index into all nouns of the folder
    share: float    # how often it is shown, among the drawings of its noun
    glow: int       # row of glow_SIDE, or -1


class Atlas:
    """What is in a folder, restricted to the nouns of some waves (None: all).

    nouns     list of Noun; all first indices below are indices into it
    index     int64 [nouns, 11]: the row of the noun's first drawing in each variant, or -1
    drawings  int64 [nouns, most drawings, 11]: the same for all drawings; index is drawings[:, 0]
    shares    float [nouns, most drawings]: how often each drawing is shown; sums to 1
    levels    {side: uint8 [rows, 4, side, side]}, premultiplied RGBA
    info      float [rows, 8], columns named by INFO
    code      float [rows, 96]
    source    list of Drawing; drawing_of: int64 [rows], which of them a row shows
    variant_of int64 [rows]: 0 for own colours, 1 to 10 for a colour word

    All tensors but the levels and the large sprites are on `device`; `to(device)` moves levels as well.
    """

    def __init__(self, folder, waves=None, device="cpu", sides=SIDES):
        self.folder = pathlib.Path(folder)
        self.device = torch.device(device)
        about = json.loads((self.folder / "atlas.json").read_text())
        if about["format"] != FORMAT:
            raise ValueError("%s has format %r, but this reads format %d; run atlas.build again"
                             % (self.folder, about["format"], FORMAT))
        nouns = [Noun.from_dict(n) for n in about["nouns"]]
        kept = [i for i, n in enumerate(nouns) if waves is None or n.wave in waves]
        self.nouns = [nouns[i] for i in kept]
        self.number = {n.id: i for i, n in enumerate(self.nouns)}
        self.source = [Drawing(*d) for d in about["drawings"]]
        self.drawings = self._read("index").long()[kept].to(self.device)
        self.index = self.drawings[:, 0]
        self.info = self._read("info").to(self.device)
        self.code = self._read("code").to(self.device)
        self.recolouring = self._read("recolour").to(self.device)
        rows = self._read("rows").long().to(self.device)
        self.drawing_of, self.variant_of = rows[:, 0], rows[:, 1]
        self.shares = self._shares(len(kept))
        self.levels = {side: self._map("level_%d" % side) for side in sides}
        self.large = {side: self._map("large_%d" % side) for side in LARGE
                      if (self.folder / ("large_%d.npy" % side)).exists()}
        self.glows = {side: self._map("glow_%d" % side) for side in (96, 256)}
        self.glow_of = torch.tensor([d.glow for d in self.source], device=self.device)

    def _map(self, name):
        # copy-on-write: torch warns of read-only memory, and nothing here writes
        return torch.from_numpy(numpy.load(self.folder / (name + ".npy"), mmap_mode="c"))

    def _read(self, name):
        return torch.from_numpy(numpy.load(self.folder / (name + ".npy")))

    def _shares(self, count):
        share = torch.tensor([d.share for d in self.source], device=self.device)
        first = self.drawings[:, :, 0]
        there = share[self.drawing_of[first.clamp(min=0)]] * (first >= 0)
        return there / there.sum(1, keepdim=True)

    def to(self, device):
        """Moves everything but the large sprites; for a GPU that composes the base's pictures."""
        self.device = torch.device(device)
        for name in ("drawings", "index", "info", "code", "recolouring", "drawing_of", "variant_of", "shares",
                     "glow_of"):
            setattr(self, name, getattr(self, name).to(device))
        self.levels = {side: level.to(device) for side, level in self.levels.items()}
        self.glows = {side: glow.to(device) for side, glow in self.glows.items()}
        return self

    def colours(self, noun):
        """The variants in which a noun (its number here) can be shown: 0 and some of 1 to 10."""
        return [v for v in range(VARIANTS) if self.index[noun, v] >= 0]

    def sprites(self, rows, side):
        """float [n, 4, side, side] in 0..1, premultiplied: the sprites of rows (int64 [n]) of one side."""
        from .recolour import recolour
        if side in self.levels:
            level = self.levels[side]
            return level[rows.to(level.device)].to(self.device).float() / 255
        store = self.large[side]
        drawing = self.drawing_of[rows]
        plain = store[drawing.to(store.device)].to(self.device).float() / 255
        return recolour(plain, self.recolouring[drawing], self.variant_of[rows])

    def glow(self, rows, side):
        """float [n, 1, side, side] in 0..1: what shines by itself at night; 0 where nothing does."""
        glowing = self.glow_of[self.drawing_of[rows]]
        store = self.glows[96 if side <= 96 else 256]
        if not len(store):
            return torch.zeros(len(rows), 1, side, side, device=self.device)
        mask = store[glowing.clamp(min=0).to(store.device)].to(self.device).float()[:, None] / 255
        mask = mask * (glowing >= 0)[:, None, None, None]
        if mask.shape[-1] == side:
            return mask
        if mask.shape[-1] % side == 0:
            return F.avg_pool2d(mask, mask.shape[-1] // side)
        return F.interpolate(mask, size=(side, side), mode="bilinear", align_corners=False)
