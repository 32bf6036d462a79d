"""Trains a super-resolution stage on crops: 64 -> 256 or 256 -> 1024.

The low-res picture is an exact render, one made worse, or with `--below` one that the stages below drew;
it is upscaled as the pipeline does it and noised to a random level that the net is told.
"""

import threads  # noqa: F401  (before torch)

import argparse
import functools
import pathlib
import random

import torch

import growth
import low_res
import run
import schedule
from atlas import Atlas
from nets import tokenizer, unet
from optimiser import Optimiser
from world import foreign, staging
from world.cast import Cast
from world.render import render

MAX_NOISE_LEVEL = 40
# A picture drawn outright, at the first timestep, is judged by absolute error, which keeps edges sharp;
# SOFTNESS is where squares turn into that. Later steps need the mean, so squares, to sample textures,
# whose grain is settled where little noise is left: TEXTURE_POWER favours those timesteps.
SOFTNESS = .02
TEXTURE_POWER = 1.7
WINDOWS = 8         # crops from one picture that the stages below draw


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
    def __init__(self, opt, encoder, tok, first_seed):
        self.opt, self.encoder, self.tok, self.seed = opt, encoder, tok, first_seed
        self.below = opt.below and low_res.Below(*(run.load_net(f, opt.device) for f in opt.below))
        self.mix, self.rng = staging.NounMix.load(opt.mix), random.Random(first_seed)
        self.atlas = Atlas(opt.atlas)       # scenes are rendered on the CPU: they are many small steps
        self.cast = Cast.of(self.atlas)
        if opt.waves:
            self.mix.nouns = [n.id for n in self.atlas.nouns if n.wave in opt.waves]
        size, device = opt.pool, opt.device
        self.high = torch.zeros(size, 3, opt.crop, opt.crop, dtype=torch.uint8, device=device)
        self.low = torch.zeros(size, 3, opt.crop, opt.crop, dtype=torch.float16, device=device)
        self.ids = torch.zeros(size, tokenizer.LENGTH, dtype=torch.long, device=device)
        self.filled, self.next, self.owed = 0, 0, 0

    def encode(self, scenes):
        rows = [self.tok.encode_words(s.words, s.groups, foreign.joint(s.language) == " ")[0] for s in scenes]
        return torch.tensor(rows, device=self.opt.device)

    def draw(self, scenes, res, origins=None, size=None):
        return render(scenes, res, origins, size, "cpu", self.atlas).to(self.opt.device) * 2 - 1

    def redrawn(self, scenes, lows, margin):
        """Windows of what the stages below make of the scenes."""
        ids = self.encode(scenes)
        exact = self.draw(scenes, 64)
        whole = self.below.redraw(exact, self.encoder(ids, (ids != 0).long()))
        return torch.cat([whole[i // WINDOWS, None, :, y:y + margin, x:x + margin] for i, (x, y) in enumerate(lows)])

    def make(self, count):
        """(high, upscaled low) windows in -1..1 and the scenes, freshly rendered."""
        opt = self.opt
        factor = opt.high // opt.low
        drawn = int(count * opt.drawn_share) // WINDOWS if self.below else 0
        scenes = [staging.sample(self.seed + i, self.mix, self.cast) for i in range(drawn + count - drawn * WINDOWS)]
        self.seed += len(scenes)
        whole, scenes = scenes[:drawn], [s for s in scenes[:drawn] for _ in range(WINDOWS)] + scenes[drawn:]
        origins = [pick_origin(self.rng, s, opt.high, opt.crop, factor) for s in scenes]
        high = self.draw(scenes, opt.high, origins, (opt.crop, opt.crop))
        margin = opt.crop // factor + 2
        lows = [[min(max(v // factor - 1, 0), opt.low - margin) for v in o] for o in origins]
        cut = len(whole) * WINDOWS
        low = self.draw(scenes[cut:], opt.low, lows[cut:], (margin, margin))
        low = low_res.degrade(low, opt.degrade)
        if whole:
            low = torch.cat([self.redrawn(whole, lows[:cut], margin), low])
        place = [torch.tensor(v, dtype=torch.float32, device=opt.device) for v in (lows, origins)]
        return high, low_res.upscale_window(low, *place, opt.crop, opt.low, opt.high), scenes

    def render(self, count):
        at = (torch.arange(count) + self.next) % len(self.ids)
        high, low, scenes = self.make(count)
        self.high[at] = ((high + 1) * 127.5).round().byte()
        self.low[at] = low.half()
        self.ids[at] = self.encode(scenes)
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
    level = torch.where(torch.rand(n, device=high.device) < opt.clean_share, 0, level)
    t = (torch.rand(n, device=high.device) ** TEXTURE_POWER * schedule.STEPS).long()
    t = torch.where(torch.rand(n, device=high.device) < opt.first_share, schedule.STEPS - 1, t)
    noised = schedule.add_noise(low, level, torch.randn_like(low))
    x = schedule.add_noise(high, t, torch.randn_like(high))
    x0 = net(torch.cat([x, noised], 1), t, text, level)
    square = (x0 - high).pow(2)
    outright = (t == schedule.STEPS - 1)[:, None, None, None]
    error = torch.where(outright, (square + SOFTNESS ** 2).sqrt(), square).mean((1, 2, 3))
    plain = (low - high).pow(2).mean()
    loss = (error * schedule.x0_weight(t)).mean()
    return loss, {"loss": loss.detach(), "mse": square.detach().mean(), "bilinear": plain}


def make_net(opt):
    return unet.UNet(run.net_config(opt, in_channels=6, sample_size=opt.high)).to(opt.device)


def work(rank, opt, average):
    torch.manual_seed(1)
    run.choose_arithmetic(opt.device)
    encoder, tok = run.load_text(opt.text, opt.device)
    net = make_net(opt)
    growth.warm(opt, net)
    run.loop(rank, opt, average, net, Optimiser(net, (), opt.muon, opt.muon_every),
             lambda seed: Pool(opt, encoder, tok, seed), functools.partial(losses, opt, run.quick(net, opt.device), encoder))


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--text", type=pathlib.Path, required=True, help="folder of train_text.py")
    args.add_argument("--atlas", type=pathlib.Path, required=True, help="folder of atlas.build")
    args.add_argument("--waves", type=int, nargs="*", help="of the vocabulary; all that the atlas has without it")
    args.add_argument("--net", type=pathlib.Path, required=True, help="sizes of the network of a run that begins")
    args.add_argument("--warm", type=pathlib.Path, help="a run or an exported stage to begin with")
    args.add_argument("--low", type=int, default=64)
    args.add_argument("--high", type=int, default=256)
    args.add_argument("--crop", type=int, default=96)
    args.add_argument("--degrade", type=float, default=1.)
    args.add_argument("--below", type=pathlib.Path, nargs="*", help="runs of the stages below, from the base on")
    args.add_argument("--drawn-share", type=float, default=.4, help="share of crops that the stages below drew")
    args.add_argument("--mix", default=None, help="JSON of world.staging.NounMix; the full world without it")
    args.add_argument("--first-share", type=float, default=.4,
                      help="share of crops at the first timestep: all there is when drawing in one step")
    args.add_argument("--clean-share", type=float, default=.85, help="share of crops at noise level 0")
    opt = run.options(args, samples=60000, ema=.998, reuse=3., data_seed=2 * 10 ** 9).parse_args()
    run.start(opt, work, make_net(opt))


if __name__ == "__main__":
    main()
