"""Trains a super-resolution stage on crops: 64 -> 256 or 256 -> 1024.

The low-res picture is upscaled as the pipeline does it, noised to a random level that the net is told,
and before that a little blurred and mottled, as drawn pictures are and exact renders are not.
"""

import threads  # noqa: F401  (before torch)

import argparse
import functools
import json
import pathlib
import random

import torch
import torch.nn.functional as F

import run
import schedule
from nets import tokenizer, unet
from optimiser import Optimiser
from world import scene as worlds
from world.render import render

MAX_NOISE_LEVEL = 40


def upscale_window(low, low_origin, high_origin, size, low_res, high_res):
    """The window of the picture upscaled with align_corners=False. low: windows [N, 3, h, w]."""
    ratio, (h, w) = low_res / high_res, low.shape[2:]
    steps = torch.arange(size, device=low.device)
    axes = []
    for k, extent in ((0, w), (1, h)):
        place = (high_origin[:, k, None] + steps + .5) * ratio - .5 - low_origin[:, k, None]
        axes.append(place * 2 / (extent - 1) - 1)
    x, y = axes
    grid = torch.stack((x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)), -1)
    return F.grid_sample(low, grid, mode="bilinear", align_corners=True, padding_mode="border")


def _blur(images, sigma):
    """Gaussian blur, one sigma per picture."""
    offsets = torch.arange(-3, 4, device=images.device)
    kernel = torch.exp(-(offsets[None] / sigma.clamp(min=.05)[:, None]) ** 2 / 2)
    kernel = kernel / kernel.sum(1, keepdim=True)
    n, c, h, w = images.shape
    flat = F.pad(images.reshape(1, n * c, h, w), (3, 3, 3, 3), mode="replicate")
    taps = kernel.repeat_interleave(c, 0)
    flat = F.conv2d(flat, taps[:, None, :, None], groups=n * c)
    return F.conv2d(flat, taps[:, None, None, :], groups=n * c).view(n, c, h, w)


def _warp(images, pixels):
    """Moves pixels by a smooth random field of that strength, one per picture."""
    n, _, h, w = images.shape
    field = torch.randn(n, 2, h // 4 + 2, w // 4 + 2, device=images.device)
    field = F.interpolate(field, size=(h, w), mode="bicubic", align_corners=True)
    size = torch.tensor([w, h], device=images.device)
    moved = field.permute(0, 2, 3, 1) * pixels[:, None, None, None] * 2 / size
    straight = F.affine_grid(torch.eye(2, 3, device=images.device).expand(n, 2, 3), images.shape, align_corners=False)
    return F.grid_sample(images, straight + moved, mode="bilinear", align_corners=False, padding_mode="border")


def degrade(images, strength):
    """Wobbly outlines, blur and mottle of random strength, as drawn pictures have them; a third of the
    pictures stay exact."""
    n, dev = len(images), images.device
    touched = (torch.rand(n, device=dev) > .33).float()
    warped = _warp(images, torch.rand(n, device=dev) * .6 * strength * touched)
    blurred = _blur(warped, torch.rand(n, device=dev) * 1.1 * strength * touched)
    grain = _blur(torch.randn_like(images), .4 + torch.rand(n, device=dev))
    return blurred + grain * (touched * torch.rand(n, device=dev) * .06 * strength)[:, None, None, None]


def pick_origin(rng, scene, res, crop, grid):
    """A window of the picture, more often than not one that shows part of an object's outline."""
    if scene.objects and rng.random() < .7:
        o = rng.choice(scene.objects)
        cx = (o.x + rng.uniform(-1.1, 1.1) * o.r) * res - crop / 2
        cy = (o.y - o.r + rng.uniform(-1.1, 1.1) * o.r) * res - crop / 2
    else:
        cx, cy = rng.uniform(0, res - crop), rng.uniform(0, res - crop)
    return [int(min(max(v, 0), res - crop)) // grid * grid for v in (cx, cy)]


class Pool:
    def __init__(self, opt, tok, first_seed):
        self.opt, self.tok, self.seed = opt, tok, first_seed
        self.mix, self.rng = worlds.Mix.load(opt.mix), random.Random(first_seed)
        size, device = opt.pool, opt.device
        self.high = torch.zeros(size, 3, opt.crop, opt.crop, dtype=torch.uint8, device=device)
        self.low = torch.zeros(size, 3, opt.crop, opt.crop, dtype=torch.float16, device=device)
        self.ids = torch.zeros(size, tokenizer.LENGTH, dtype=torch.long, device=device)
        self.filled, self.next, self.owed = 0, 0, 0

    def make(self, count):
        """(high, upscaled low) windows in -1..1 and the scenes, freshly rendered."""
        opt = self.opt
        factor = opt.high // opt.low
        scenes = [worlds.sample(self.seed + i, self.mix) for i in range(count)]
        self.seed += count
        origins = [pick_origin(self.rng, s, opt.high, opt.crop, factor) for s in scenes]
        high = render(scenes, opt.high, origins, (opt.crop, opt.crop), opt.device) * 2 - 1
        margin = opt.crop // factor + 2
        lows = [[min(max(v // factor - 1, 0), opt.low - margin) for v in o] for o in origins]
        low = render(scenes, opt.low, lows, (margin, margin), opt.device) * 2 - 1
        low = degrade(low, opt.degrade)
        place = [torch.tensor(v, dtype=torch.float32, device=opt.device) for v in (lows, origins)]
        return high, upscale_window(low, *place, opt.crop, opt.low, opt.high), scenes

    def render(self, count):
        at = (torch.arange(count) + self.next) % len(self.ids)
        high, low, scenes = self.make(count)
        self.high[at] = ((high + 1) * 127.5).round().byte()
        self.low[at] = low.half()
        self.ids[at] = torch.tensor([self.tok.encode_words(s.words, s.groups)[0] for s in scenes],
                                    device=self.opt.device)
        self.next = (self.next + count) % len(self.ids)
        self.filled = min(self.filled + count, len(self.ids))

    def batch(self, n):
        if not self.filled:
            self.render(256)
        self.owed += n / self.opt.reuse
        if self.owed >= 64:
            self.render(64)
            self.owed -= 64
        pick = torch.randint(0, self.filled, (n,))
        return self.high[pick].float() / 127.5 - 1, self.low[pick].float(), self.ids[pick]


def losses(opt, net, encoder, high, low, ids):
    n = len(high)
    with torch.no_grad():
        text = encoder(ids, (ids != 0).long())
    level = torch.randint(0, MAX_NOISE_LEVEL, (n,), device=high.device)
    level[torch.rand(n, device=high.device) < opt.clean_share] = 0
    t = schedule.stratified_timesteps(n, device=high.device)
    t[torch.rand(n, device=high.device) < opt.first_share] = schedule.STEPS - 1
    noised = schedule.add_noise(low, level, torch.randn_like(low))
    x = schedule.add_noise(high, t, torch.randn_like(high))
    x0 = net(torch.cat([x, noised], 1), t, text, level)
    error = (x0 - high).pow(2).mean((1, 2, 3))
    plain = (low - high).pow(2).mean()
    loss = (error * schedule.x0_weight(t)).mean()
    return loss, {
        "loss": loss.detach(), "mse": error.detach().mean(), "bilinear": plain}


def make_net(opt):
    config = unet.config(**json.loads(opt.net.read_text()), in_channels=6, sample_size=opt.high)
    return unet.UNet(config).to(opt.device)


def work(rank, opt, average):
    torch.manual_seed(1)
    unet.HALF = opt.device == "cpu"
    encoder, tok = run.load_text(opt.text, opt.device)
    net = make_net(opt)
    run.loop(rank, opt, average, net, Optimiser(net, (), opt.muon),
             lambda seed: Pool(opt, tok, seed), functools.partial(losses, opt, net, encoder))


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--text", type=pathlib.Path, required=True, help="folder of train_text.py")
    args.add_argument("--net", type=pathlib.Path, required=True)
    args.add_argument("--low", type=int, default=64)
    args.add_argument("--high", type=int, default=256)
    args.add_argument("--crop", type=int, default=96)
    args.add_argument("--degrade", type=float, default=1.)
    args.add_argument("--mix", default=None)
    args.add_argument("--first-share", type=float, default=.5,
                      help="share of crops at the first timestep: all there is when drawing in one step")
    args.add_argument("--clean-share", type=float, default=.7, help="share of crops at noise level 0")
    opt = run.options(args, samples=60000, ema=.998, reuse=3., data_seed=2 * 10 ** 9).parse_args()
    run.start(opt, work, make_net(opt))


if __name__ == "__main__":
    main()
