"""Trains the base stage: text to 64x64 pictures.

Renders as it goes (each picture is used `--reuse` times), predicts x0, weighs objects more than
surroundings, and gives the net a training-only second task: naming shape and colour per pixel pair.
On a CPU run two workers; they average their weights every few steps. `--out` resumes by itself.
"""

import threads  # noqa: F401  (before torch)

import argparse
import functools
import json
import pathlib

import torch
import torch.nn.functional as F
from torch import nn

import run
import schedule
from nets import tokenizer, unet
from optimiser import Optimiser
from world import scene as worlds
from world.language import COLOUR_NAMES, SHAPES
from world.render import render

RES, GRID = 64, 32


def object_maps(scenes, device="cpu"):
    """[N, 2, GRID, GRID]: shape and colour of the frontmost object per cell, 0 for none."""
    maps = torch.zeros(len(scenes), 2, GRID, GRID, dtype=torch.uint8)
    place = (torch.arange(GRID) + .5) / GRID
    for n, s in enumerate(scenes):
        for i in worlds.depth_order(s):
            o = s.objects[i]
            inside = ((place[None] - o.x) / o.r) ** 2 + ((place[:, None] - o.y + .98 * o.r) / o.r / 1.1) ** 2 < 1
            maps[n, 0][inside] = SHAPES.index(o.shape) + 1
            maps[n, 1][inside] = COLOUR_NAMES.index(o.colour) + 1
    return maps.to(device)


class Pool:
    """The latest rendered pictures, as bytes; new ones replace the oldest."""

    def __init__(self, opt, tok, first_seed):
        self.opt, self.tok, self.seed = opt, tok, first_seed
        self.mix = worlds.Mix.load(opt.mix)
        size, device = opt.pool, opt.device
        self.images = torch.zeros(size, 3, RES, RES, dtype=torch.uint8, device=device)
        self.ids = torch.zeros(size, tokenizer.LENGTH, dtype=torch.long, device=device)
        self.maps = torch.zeros(size, 2, GRID, GRID, dtype=torch.uint8, device=device)
        self.filled, self.next, self.owed = 0, 0, 0

    def render(self, count):
        scenes = [worlds.sample(self.seed + i, self.mix) for i in range(count)]
        self.seed += count
        at = (torch.arange(count) + self.next) % len(self.ids)
        images = render(scenes, RES, device=self.opt.device)
        self.images[at] = (images * 255).round().byte()
        rows = [self.tok.encode_words(s.words, s.groups)[0] for s in scenes]
        self.ids[at] = torch.tensor(rows, device=self.opt.device)
        self.maps[at] = object_maps(scenes, self.opt.device)
        self.next = (self.next + count) % len(self.ids)
        self.filled = min(self.filled + count, len(self.ids))

    def batch(self, n):
        if not self.filled:
            self.render(1024)
        self.owed += n / self.opt.reuse
        if self.owed >= 256:
            self.render(256)
            self.owed -= 256
        pick = torch.randint(0, self.filled, (n,))
        return self.images[pick].float() / 127.5 - 1, self.ids[pick].clone(), self.maps[pick].long()


class Auxiliary(nn.Module):
    """Shape and colour per cell from the map that enters the last block."""

    def __init__(self, channels):
        super().__init__()
        self.classes = (len(SHAPES) + 1, len(COLOUR_NAMES) + 1)
        self.head = nn.Conv2d(channels, sum(self.classes), 1)
        self.register_buffer("weights", torch.tensor([.2] + [1.] * (max(self.classes) - 1)))

    def forward(self, features, maps):
        shape, colour = self.head(features).split(self.classes, 1)
        return sum(F.cross_entropy(p, maps[:, i], self.weights[:p.shape[1]])
                   for i, p in enumerate((shape, colour)))


def losses(opt, net, aux, encoder, images, ids, maps):
    n = len(images)
    ids[torch.rand(n) < .1] = torch.tensor([1] + [0] * (ids.shape[1] - 1), device=ids.device)
    with torch.no_grad():
        text = encoder(ids, (ids != 0).long())
    t = schedule.stratified_timesteps(n, device=images.device)
    noisy = schedule.add_noise(images, t, torch.randn_like(images))
    features = []
    x0 = net(noisy, t, text, features=features)
    inside = F.interpolate((maps[:, :1] > 0).float(), size=images.shape[2:], mode="bilinear")
    error = (x0 - images).pow(2)
    per_picture = (error * (1 + opt.object_weight * inside)).mean((1, 2, 3))
    loss = (per_picture * schedule.x0_weight(t)).mean()
    extra = aux(features[0], maps)
    plain = error.detach().mean((1, 2, 3)).chunk(4)
    return loss + opt.aux_weight * extra, {
        "loss": loss.detach(), "aux": extra.detach(), "mse_low": plain[0].mean(), "mse_mid": plain[1].mean(),
        "mse_high": plain[2].mean(), "mse_top": plain[3].mean()}


def make_nets(opt):
    config = json.loads(opt.net.read_text())
    return unet.UNet(unet.config(**config)).to(opt.device), Auxiliary(config["channels"][1]).to(opt.device)


def work(rank, opt, average):
    torch.manual_seed(1)
    unet.HALF = opt.device == "cpu"
    encoder, tok = run.load_text(opt.text, opt.device)
    net, aux = make_nets(opt)
    run.loop(rank, opt, average, net, Optimiser(net, aux.parameters(), opt.muon),
             lambda seed: Pool(opt, tok, seed), functools.partial(losses, opt, net, aux, encoder), aux)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    args.add_argument("--text", type=pathlib.Path, required=True, help="folder of train_text.py")
    args.add_argument("--net", type=pathlib.Path, default=pathlib.Path(__file__).parent / "config/base.json")
    args.add_argument("--mix", default=None, help="JSON of world.scene.Mix; the full world without it")
    args.add_argument("--object-weight", type=float, default=4.)
    args.add_argument("--aux-weight", type=float, default=.1)
    opt = run.options(args, samples=300000, rate=1e-3, warmup=2000, workers=2, pool=8192,
                      data_seed=10 ** 9).parse_args()
    run.start(opt, work, nn.ModuleList(make_nets(opt)))


if __name__ == "__main__":
    main()
