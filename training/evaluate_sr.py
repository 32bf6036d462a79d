"""PSNR of the super-resolution stages against bicubic upscaling, on exact renders of held-out scenes."""

import threads  # noqa: F401  (before torch)

import argparse
import json
import pathlib

import torch
import torch.nn.functional as F

from nets import unet
from sample import Cascade
from world import scene as worlds
from world.render import render

SIZES = {"sr256": (64, 256), "sr1024": (256, 1024)}


def psnr(a, b):
    return float(-10 * torch.log10((a - b).pow(2).mean() / 4))


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("runs", type=pathlib.Path)
    args.add_argument("stage", choices=sorted(SIZES))
    args.add_argument("--count", type=int, default=16)
    args.add_argument("--steps", type=int, default=1)
    args.add_argument("--noise-level", type=int, default=0)
    args.add_argument("--mix", default=None)
    args.add_argument("--seed", type=int, default=6 * 10 ** 9)
    args.add_argument("--half", action="store_true")
    opt = args.parse_args()
    unet.HALF = opt.half
    cascade, mix = Cascade(opt.runs), worlds.Mix.load(opt.mix)
    low_res, high_res = SIZES[opt.stage]
    generator = torch.Generator().manual_seed(1)
    rows = []
    for i in range(opt.count):
        s = worlds.sample(opt.seed + i, mix, held_out=None)
        low, high = (render([s], r) * 2 - 1 for r in (low_res, high_res))
        drawn = cascade.upscale(opt.stage, low, cascade.encode([s.caption]), generator, opt.steps,
                                opt.noise_level)
        bicubic = F.interpolate(low, size=(high_res, high_res), mode="bicubic", align_corners=False)
        rows.append((psnr(drawn, high), psnr(bicubic.clamp(-1, 1), high)))
    mine, theirs = (sum(r[k] for r in rows) / len(rows) for k in (0, 1))
    print(json.dumps({"stage": opt.stage, "crops": cascade.seen[opt.stage], "pictures": opt.count,
                      "steps": opt.steps, "psnr": round(mine, 2), "bicubic": round(theirs, 2)}))


if __name__ == "__main__":
    main()
