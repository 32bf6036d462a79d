"""The automatic checker: finds the objects of a 64x64 picture and names what it sees.

Three nets in one: the finder, a centre detector on a 16x16 grid, tells where objects are and how large,
and names the surroundings; the namer looks at a close-up of every object, scaled by its radius, and
names kind (a solid or a noun), colour and pattern; the grey namer names the kind from the close-up in grey
and with even contrast, since a right palette is not a right shape. Trained on exact renders of the full
world, partly blurred, mottled and bent so that it also judges drawn pictures.
"""

import threads  # noqa: F401  (before torch)

import argparse
import functools
import json
import pathlib

import torch
import torch.nn.functional as F
from torch import nn

import growth
import run
from atlas import Atlas
from low_res import degrade
from nets import unet
from optimiser import Optimiser
from world import staging
from world.cast import Cast
from world.language import BACKDROPS, COLOUR_NAMES, GROUNDS, PATTERNS, SHAPES, TIMES
from world.render import Surroundings, render

RES, CELLS, CLOSE_UP = 64, 16, 48
BACKDROP_NAMES = list(BACKDROPS)
SHADES = ["own"] + COLOUR_NAMES         # a noun is in its own colours or in those of a word
SCENE_FIELDS = [len(GROUNDS), len(TIMES), len(BACKDROPS)]


def fields_of(nouns):
    """Classes of kind, colour and pattern."""
    return [len(SHAPES) + nouns, len(SHADES), len(PATTERNS)]


class Residual(nn.Module):
    def __init__(self, channels, dilation=1):
        super().__init__()
        conv = unet.Conv if dilation == 1 else nn.Conv2d
        self.norm1, self.norm2 = nn.GroupNorm(8, channels), nn.GroupNorm(8, channels)
        self.conv1 = unet.Conv(channels, channels, 3, padding=1)
        self.conv2 = conv(channels, channels, 3, padding=dilation, dilation=dilation)

    def forward(self, x):
        h = self.conv1(unet.activated(self.norm1, x))
        return x + self.conv2(unet.activated(self.norm2, h))


class Finder(nn.Module):
    """images -> per cell (heat, x and y offset in cells, log radius, log half height), surroundings, a summary."""

    def __init__(self, width=64):
        super().__init__()
        self.conv_in = unet.Conv(3, 32, 5, padding=2, stride=2)
        self.down = unet.Conv(32, width, 3, padding=1, stride=2)
        self.body = nn.Sequential(*(Residual(width, d) for d in (1, 2, 1, 2)))
        self.norm = nn.GroupNorm(8, width)
        self.conv_out = nn.Conv2d(width, 5, 1)
        self.scene_embedding = nn.Linear(2 * width, sum(SCENE_FIELDS))

    def forward(self, images):
        h = self.down(F.silu(self.conv_in(images)))
        h = unet.activated(self.norm, self.body(h))
        summary = torch.cat([h[:, :, :CELLS // 2].mean((2, 3)), h[:, :, CELLS // 2:].mean((2, 3))], 1)
        return self.conv_out(h), self.scene_embedding(summary), summary


class Namer(nn.Module):
    """Close-ups [M, 3, 48, 48] and the summary of the picture of each -> classes. The place of what is seen
    counts for the kind, so that is read from the whole map."""

    def __init__(self, summary, kinds, others, width=64):
        super().__init__()
        self.conv_in = unet.Conv(3, 32, 5, padding=2, stride=2)
        self.norm_in = nn.GroupNorm(8, 32)
        self.down = unet.Conv(32, width, 3, padding=1, stride=2)
        self.summary_embedding = nn.Linear(summary, width)
        self.fine = nn.Sequential(Residual(width), Residual(width))
        self.down2 = unet.Conv(width, 2 * width, 3, padding=1, stride=2)
        self.coarse = nn.Sequential(Residual(2 * width), Residual(2 * width))
        self.norm = nn.GroupNorm(8, 2 * width)
        self.whole = nn.Linear(2 * width * (CLOSE_UP // 8) ** 2, 256)
        self.kind_embedding = nn.Linear(256 + 4 * width, kinds)
        self.class_embedding = nn.Linear(4 * width, max(1, others))

    def forward(self, close_ups, summary):
        h = self.down(unet.activated(self.norm_in, self.conv_in(close_ups)))
        h = self.fine(h + self.summary_embedding(summary)[:, :, None, None])
        h = unet.activated(self.norm, self.coarse(self.down2(F.silu(h))))
        pooled = torch.cat([h.mean((2, 3)), h.amax((2, 3))], 1)
        kind = self.kind_embedding(torch.cat([F.silu(self.whole(h.flatten(1))), pooled], 1))
        return torch.cat([kind, self.class_embedding(pooled)], 1)


def grey(close_ups):
    """Without colours, with even contrast."""
    shown = close_ups.mean(1, keepdim=True)
    shown = (shown - shown.mean((2, 3), keepdim=True)) / (shown.std((2, 3), keepdim=True) + .05)
    return shown.expand(-1, 3, -1, -1)


class Checker(nn.Module):
    """ids: of the nouns that it knows, in the order of their classes."""

    def __init__(self, ids):
        super().__init__()
        self.ids, self.config = ids, {"nouns": ids}
        self.fields = fields_of(len(ids))
        self.finder = Finder()
        self.namer = Namer(128, self.fields[0], sum(self.fields[1:]))
        self.grey_namer = Namer(128, self.fields[0], 0, 48)

    def get_extra_state(self):
        return self.ids

    def set_extra_state(self, ids):
        pass

    def load_state_dict(self, state, strict=True):
        """Also that of a checker that knew other nouns."""
        ids, state = state["_extra_state"], dict(state)
        for namer in ("namer", "grey_namer"):
            for kind in ("weight", "bias"):
                name = "%s.kind_embedding.%s" % (namer, kind)
                fresh = getattr(getattr(self, namer).kind_embedding, kind)
                state[name] = growth.renumbered(state[name], fresh, len(SHAPES), ids, self.ids)
        return super().load_state_dict(state, strict)

    def grey_kinds(self, close_ups):
        nothing = torch.zeros(len(close_ups), 128, device=close_ups.device)     # the summary has seen colours
        return self.grey_namer(grey(close_ups), nothing)[:, :self.fields[0]]

    def label(self, kind):
        """What a scene's object of this class is called: a solid's name, or "noun:" and an id."""
        return SHAPES[kind] if kind < len(SHAPES) else "noun:" + self.ids[kind - len(SHAPES)]


def close_ups(images, n, x, y, r, reach=1.35):
    """The squares of half side reach * r around (x, y) of the pictures n, at one size."""
    step = (torch.arange(CLOSE_UP, device=x.device) + .5) * 2 / CLOSE_UP - 1
    gx = (x[:, None] + reach * r[:, None] * step) * 2 - 1
    gy = (y[:, None] + reach * r[:, None] * step) * 2 - 1
    grid = torch.stack((gx[:, None, :].expand(-1, CLOSE_UP, -1), gy[:, :, None].expand(-1, -1, CLOSE_UP)), -1)
    return F.grid_sample(images[n], grid, padding_mode="border", align_corners=False)


def extent(obj, cast):
    """Middle and half the longer side of what is seen of an object."""
    if obj.noun < 0:
        return obj.x, obj.y - .95 * obj.r, obj.r
    return obj.x, obj.y - obj.r, obj.r * max(1., cast.aspect[obj.noun] * obj.stretch)


def kind_of(obj):
    return len(SHAPES) + obj.noun if obj.noun >= 0 else SHAPES.index(obj.shape)


def targets(scenes, cast):
    """heat [N, 16, 16], per object (picture, middle x and y, radius, half height, classes), per picture classes."""
    heat, rows, place = torch.zeros(len(scenes), CELLS, CELLS), [], torch.arange(CELLS) + .5
    for n, s in enumerate(scenes):
        for o in s.objects:
            x, y, r = extent(o, cast)
            near = torch.exp(-(place[None] - x * CELLS) ** 2 - (place[:, None] - y * CELLS) ** 2)
            heat[n] = torch.maximum(heat[n], near)
            shade = SHADES.index(o.colour or "own")
            rows.append([n, x, y, r, .95 * o.r if o.noun < 0 else o.r, kind_of(o), shade, PATTERNS.index(o.pattern)])
    where = [[GROUNDS.index(s.ground), TIMES.index(s.time),
              BACKDROP_NAMES.index(s.backdrop) if s.ground == "plain" else -100] for s in scenes]
    return heat, torch.tensor(rows).view(-1, 8), torch.tensor(where)


def _placing_loss(cell, n, x, y, r, half):
    """Offset and radius as seen from the cell of an object or from one beside it."""
    beside = torch.randint(-1, 2, (2, len(n)), device=x.device) * (torch.rand(len(n), device=x.device) < .4)
    column, row = ((v * CELLS).long().add(d).clamp(0, CELLS - 1) for v, d in zip((x, y), beside))
    at = cell[n, :, row, column]
    wanted = torch.stack((x * CELLS - column - .5, y * CELLS - row - .5, (r * 6).log(), (half * 6).log()), 1)
    return (at[:, 1:] - wanted).abs().sum() / max(1, len(n))


def _naming_loss(logits, fields, names):
    """One cross-entropy per field, over the rows that have a name for it."""
    return [F.cross_entropy(q, names[:, i], reduction="sum") / (names[:, i] >= 0).sum().clamp(min=1)
            for i, q in enumerate(logits.split(fields, 1))]


def losses(net, images, heat, rows, where):
    cell, scene, summary = net.finder(images)
    p = cell[:, 0].sigmoid().clamp(1e-4, 1 - 1e-4)
    near = heat > .75
    focal = -torch.where(near, (1 - p) ** 2 * p.log(), (1 - heat) ** 4 * p ** 2 * (1 - p).log())
    find = focal.sum() / near.sum().clamp(min=1)
    rows = rows[torch.randperm(len(rows), device=rows.device)[:2 * len(images)]]
    n, x, y, r, half = rows[:, 0].long(), *rows[:, 1:5].t()
    place = _placing_loss(cell, n, x, y, r, half)
    off = (torch.randn(3, len(n), device=x.device) * .12).clamp(-.3, .3)
    shown = close_ups(images, n, x + off[0] * r, y + off[1] * r, r * off[2].exp())
    classes = _naming_loss(net.namer(shown, summary[n]), net.fields, rows[:, 5:].long())
    in_grey, = _naming_loss(net.grey_kinds(shown), net.fields[:1], rows[:, 5:6].long())
    scenes = _naming_loss(scene, SCENE_FIELDS, where)
    parts = dict(zip(("kind", "colour", "pattern", "ground", "time", "backdrop"), classes + scenes), grey=in_grey)
    return find + place + sum(classes) + in_grey + .3 * sum(scenes), {
        k: v.detach() for k, v in dict(parts, find=find, place=place).items()}


def bend(images, most=.9):
    """Wavers outlines by up to about `most` pixels; half of the pictures stay as they are."""
    n, _, h, w = images.shape
    size = torch.rand(n, 1, 1, 1, device=images.device) * most * (torch.rand(n, 1, 1, 1, device=images.device) < .5)
    waver = F.interpolate(torch.randn(n, 2, 12, 12, device=images.device), size=(h, w), mode="bicubic") * size / w
    still = F.affine_grid(torch.eye(2, 3, device=images.device).expand(n, 2, 3), images.shape, False)
    return F.grid_sample(images, still + waver.permute(0, 2, 3, 1), padding_mode="border", align_corners=False)


class Pool:
    """The latest rendered batches; every batch is shown `--reuse` times on average."""

    def __init__(self, opt, first_seed):
        self.opt, self.seed, self.batches, self.owed = opt, first_seed, [], 1.
        self.mix = staging.NounMix.load(opt.mix)
        self.atlas, self.kept = Atlas(opt.atlas), Surroundings(RES)
        self.cast = Cast.of(self.atlas)
        if opt.waves:
            self.mix.nouns = [n.id for n in self.atlas.nouns if n.wave in opt.waves]

    def batch(self, n):
        self.owed += 1 / self.opt.reuse
        if self.owed >= 1:
            scenes = [staging.sample(self.seed + i, self.mix, self.cast, held_out=None) for i in range(4 * n)]
            self.seed += 4 * n
            images = render(scenes, RES, atlas=self.atlas, kept=self.kept)
            images = (images * 255).round().byte().to(self.opt.device)
            new = [(scenes[k::4], images[k::4]) for k in range(4)]
            self.batches = self.batches[4 - self.opt.pool // n:] + new
            self.owed -= 4
        scenes, images = self.batches[int(torch.randint(len(self.batches), (1,)))]
        images = degrade(bend(images.float() / 127.5 - 1), 1.)
        return [images] + [v.to(self.opt.device) for v in targets(scenes, self.cast)]


def _best(logits, fields):
    """The likeliest class of every field, and how likely."""
    best = [q.softmax(1).max(1) for q in logits.split(fields, 1)]
    return [b.indices.tolist() for b in best], [b.values.tolist() for b in best]


@torch.no_grad()
def detect(net, images, threshold=.35):
    """images [N, 3, 64, 64] in -1..1 -> per picture its objects and surroundings. An object's kind as by
    Checker.label, also in grey; certainty: how likely the object's kind and colour, or the ground, are what
    is named."""
    out = []
    for chunk in images.split(32):
        cell, scene, summary = net.finder(chunk)
        heat = cell[:, 0].sigmoid()
        peak = (heat == F.max_pool2d(heat[:, None], 3, 1, 1)[:, 0]) & (heat > threshold)
        n, row, column = peak.nonzero().t()
        at = cell[n, :, row, column]
        x, y, r = (column + .5 + at[:, 1]) / CELLS, (row + .5 + at[:, 2]) / CELLS, at[:, 3].exp() / 6
        named, in_grey = torch.zeros(0, sum(net.fields)), torch.zeros(0, dtype=torch.long)
        if len(n):
            shown = close_ups(chunk, n, x, y, r)
            named = net.namer(shown, summary[n])
            in_grey = net.grey_kinds(shown).argmax(1)
        names, sure = _best(named, net.fields)
        where, certain = _best(scene, SCENE_FIELDS)
        found = [[] for _ in chunk]
        for i, k in enumerate(n.tolist()):
            found[k].append({"shape": net.label(names[0][i]), "grey": net.label(int(in_grey[i])),
                             "colour": SHADES[names[1][i]], "pattern": PATTERNS[names[2][i]], "x": float(x[i]),
                             "y": float(y[i]), "r": float(r[i]), "half": float(at[i, 4].exp()) / 6, "score": float(heat[k, row[i], column[i]]),
                             "certainty": min(sure[0][i], sure[1][i])})
        out += [{"objects": f, "ground": GROUNDS[g], "time": TIMES[t], "backdrop": BACKDROP_NAMES[b],
                 "certainty": p} for f, g, t, b, p in zip(found, *where, certain[0])]
    return out


def load(path):
    """(net, samples that it has seen)"""
    state = torch.load(path, map_location="cpu")
    net = Checker(state["config"]["nouns"])
    net.load_state_dict(state["ema"])
    return net.eval(), state["seen"]


def make_net(opt):
    return Checker([n["id"] for n in json.loads((opt.atlas / "atlas.json").read_text())["nouns"]])


def work(rank, opt, average):
    torch.manual_seed(2)
    run.choose_arithmetic(opt.device)
    net = make_net(opt).to(opt.device)
    run.loop(rank, opt, average, net, Optimiser(net, (), opt.muon, opt.muon_every), lambda seed: Pool(opt, seed),
             functools.partial(losses, net))


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    args.add_argument("--atlas", type=pathlib.Path, required=True, help="folder of atlas.build")
    args.add_argument("--waves", type=int, nargs="*", help="of the vocabulary; all that the atlas has without it")
    args.add_argument("--mix", default=None, help="JSON of world.staging.NounMix; the full world without it")
    opt = run.options(args, samples=160000, decay_from=90000, rate=2e-3, warmup=2000, batch=32, reuse=3.,
                      ema=.995, muon_every=3, data_seed=3 * 10 ** 9).parse_args()
    run.start(opt, work, make_net(opt))


if __name__ == "__main__":
    main()
