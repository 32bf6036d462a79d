"""The automatic checker: finds the objects of a 64x64 picture and names what it sees.

A small centre detector on a 16x16 grid: where an object's middle is, its shape, colour, pattern and
radius, and for the whole picture ground and time of day. Trained on exact renders of the full world,
partly blurred and mottled so that it also judges drawn pictures.
"""

import threads  # noqa: F401  (before torch)

import argparse
import pathlib
import time

import torch
import torch.nn.functional as F
from torch import nn

import run
from nets import unet
from optimiser import Optimiser
from train_sr import degrade
from world import scene as worlds
from world.language import COLOUR_NAMES, GROUNDS, PATTERNS, SHAPES, TIMES
from world.render import render

CELLS = 16
FIELDS = [len(SHAPES), len(COLOUR_NAMES), len(PATTERNS)]
SCENE_FIELDS = [len(GROUNDS), len(TIMES)]


class Residual(nn.Module):
    def __init__(self, channels, dilation):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, channels), nn.GroupNorm(8, channels)
        self.conv1 = unet.Conv(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)

    def forward(self, x):
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class Checker(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.entry = unet.Conv(3, 32, 5, padding=2, stride=2)
        self.fine = Residual(32, 1)
        self.down = unet.Conv(32, width, 3, padding=1, stride=2)
        self.body = nn.Sequential(*(Residual(width, d) for d in (1, 2, 1, 3, 1)))
        self.norm = nn.GroupNorm(8, width)
        self.cell = nn.Conv2d(width, 2 + sum(FIELDS), 1)     # centre, log radius, classes
        self.scene = nn.Linear(width, sum(SCENE_FIELDS))

    def forward(self, images):
        h = self.down(F.silu(self.fine(self.entry(images))))
        h = F.silu(self.norm(self.body(h)))
        return self.cell(h), self.scene(h.mean((2, 3)))


def middle(o):
    return o.x, o.y - .95 * o.r




def targets(scenes):
    """heat [N, 16, 16], and for every object its picture, cell, classes and radius."""
    heat = torch.zeros(len(scenes), CELLS, CELLS)
    rows, place = [], torch.arange(CELLS) + .5
    for n, s in enumerate(scenes):
        for o in s.objects:
            x, y = (v * CELLS for v in middle(o))
            bump = torch.exp(-((place[None] - x) ** 2 + (place[:, None] - y) ** 2) / 1.0)
            heat[n] = torch.maximum(heat[n], bump)
            rows.append([n, min(int(y), CELLS - 1), min(int(x), CELLS - 1), SHAPES.index(o.shape),
                         COLOUR_NAMES.index(o.colour), PATTERNS.index(o.pattern), o.r])
    where = torch.tensor([[GROUNDS.index(s.ground), TIMES.index(s.time)] for s in scenes])
    return heat, torch.tensor(rows), where


def loss_of(net, images, heat, rows, where):
    cell, scene = net(images)
    p = cell[:, 0].sigmoid().clamp(1e-4, 1 - 1e-4)
    near = heat > .75
    focal = -torch.where(near, (1 - p) ** 2 * p.log(), (1 - heat) ** 4 * p ** 2 * (1 - p).log())
    loss = focal.sum() / near.sum().clamp(min=1)
    n, y, x = rows[:, :3].long().t()
    at = cell[n, :, y, x]
    loss = loss + (at[:, 1] - (rows[:, 6] * 6).log()).abs().mean()
    parts = at[:, 2:].split(FIELDS, 1)
    classes = [F.cross_entropy(q, rows[:, 3 + i].long()) for i, q in enumerate(parts)]
    scenes = [F.cross_entropy(q, where[:, i]) for i, q in enumerate(scene.split(SCENE_FIELDS, 1))]
    return loss + sum(classes) + .3 * sum(scenes), classes


@torch.no_grad()
def detect(net, images, threshold=.35):
    """images [N, 3, 64, 64] in -1..1 -> per picture (objects, ground, time)."""
    out = []
    for chunk in images.split(32):
        cell, scene = net(chunk)
        heat = cell[:, 0].sigmoid()
        peak = (heat == F.max_pool2d(heat[:, None], 3, 1, 1)[:, 0]) & (heat > threshold)
        ground, clock = (q.argmax(1) for q in scene.split(SCENE_FIELDS, 1))
        for n in range(len(chunk)):
            found = []
            for y, x in peak[n].nonzero().tolist():
                shape, colour, pattern = (int(q.argmax()) for q in cell[n, 2:, y, x].split(FIELDS))
                found.append({"shape": SHAPES[shape], "colour": COLOUR_NAMES[colour],
                              "pattern": PATTERNS[pattern], "x": (x + .5) / CELLS, "y": (y + .5) / CELLS,
                              "r": float(cell[n, 1, y, x].exp() / 6), "score": float(heat[n, y, x])})
            out.append((found, GROUNDS[int(ground[n])], TIMES[int(clock[n])]))
    return out


def load(path):
    net = Checker()
    net.load_state_dict(torch.load(path, map_location="cpu")["ema"])
    return net.eval()


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--out", type=pathlib.Path, required=True)
    args.add_argument("--samples", type=int, default=60000)
    args.add_argument("--batch", type=int, default=32)
    args.add_argument("--rate", type=float, default=2e-3)
    args.add_argument("--reuse", type=int, default=3)
    args.add_argument("--device", default="cpu")
    opt = args.parse_args()
    opt.warmup, opt.decay_from = 2000, opt.samples // 2
    torch.manual_seed(2)
    unet.HALF = opt.device == "cpu"
    net = Checker().to(opt.device)
    optimiser, ema, seen = Optimiser(net), run.Ema(net), 0
    checkpoint = run.Checkpoint(opt.out)
    progress = run.Progress(opt.out, 0, opt.samples, 0, 0)
    mix, pool, seed, step = worlds.Mix(), [], 3 * 10 ** 9, 0
    while seen < opt.samples:
        if step % opt.reuse == 0:
            scenes = [worlds.sample(seed + i, mix, held_out=None) for i in range(opt.batch)]
            seed += opt.batch
            pool = pool[-63:] + [(scenes, (render(scenes, 64, device=opt.device) * 255).round().byte())]
        scenes, images = pool[-1] if step % opt.reuse == 0 else pool[int(torch.randint(len(pool), (1,)))]
        step += 1
        heat, rows, where = (v.to(opt.device) for v in targets(scenes))
        images = degrade(images.float() / 127.5 - 1, 1.5)
        loss, classes = loss_of(net, images, heat, rows, where)
        loss.backward()
        optimiser.step(run.learning_rate(opt, seen))
        ema.update(net, .995)
        seen += opt.batch
        progress.add(loss=loss.detach(), shape=classes[0].detach(), colour=classes[1].detach(),
                     pattern=classes[2].detach())
        if step % 25 == 0:
            progress.report(seen, run.learning_rate(opt, seen))
            checkpoint.save({"ema": ema.net.state_dict(), "seen": seen})
    checkpoint.save({"ema": ema.net.state_dict(), "seen": seen})
    print("%.0f s" % (time.time() - progress.start))


if __name__ == "__main__":
    main()
