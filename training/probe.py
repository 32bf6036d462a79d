"""How far runs of the base have come: their errors on the same new images, with the same noise.

    probe.py RUN [RUN ...] --text RUNS/text --atlas RUNS/atlas [--mix config/world.json] [--waves 1]

The losses that a run prints vary with its images and timesteps; these do not. Prints the mean squared error of the
predicted image, on objects and elsewhere, at four timesteps, of the averaged weights (EMA) and of those that are trained.
"""

import threads  # noqa: F401  (before torch)

import argparse
import pathlib

import torch

import composing
import run
import schedule
from nets import unet

TIMESTEPS = (200, 450, 700, 900)
SEED = 7 * 10 ** 9
AT_ONCE = 32


class Images:
    """New images of the mix with the vectors of their captions, and noise for every timestep."""

    def __init__(self, opt):
        encoder, tok = run.load_text(opt.text, "cpu")
        composer = composing.Composer(opt, tok, SEED)
        parts = [composer.make(composing.PART) for _ in range(-(-opt.count // composing.PART))]
        images, rows, _, masks = (torch.cat(p)[:opt.count] for p in zip(*parts))
        ids = rows.long()
        with torch.no_grad():
            self.text = torch.cat([encoder(i, (i != 0).long()) for i in ids.split(AT_ONCE)])
        self.images, self.masks = images.float() / 127.5 - 1, masks.float() / 255
        generator = torch.Generator().manual_seed(0)
        self.noise = {t: torch.randn(self.images.shape, generator=generator) for t in TIMESTEPS}


@torch.no_grad()
def errors(net, images):
    """[(error on objects, error elsewhere) of every timestep]"""
    out = []
    for t in TIMESTEPS:
        sums = torch.zeros(4, dtype=torch.float64)
        for part in torch.arange(len(images.images)).split(AT_ONCE):
            x, mask = images.images[part], images.masks[part]
            at = torch.full((len(part),), t)
            error = (net(schedule.add_noise(x, at, images.noise[t][part]), at, images.text[part]) - x).pow(2).mean(1, True)
            sums += torch.stack([(error * mask).sum(), mask.sum(), (error * (1 - mask)).sum(), (1 - mask).sum()]).double()
        out.append((float(sums[0] / sums[1].clamp(min=1)), float(sums[2] / sums[3].clamp(min=1))))
    return out


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    args.add_argument("runs", type=pathlib.Path, nargs="+")
    args.add_argument("--count", type=int, default=256, help="images")
    composing.options(args)
    opt = args.parse_args()
    images = Images(opt)
    print("| run | samples | weights | %s |" % " | ".join("%d: objects | elsewhere" % t for t in TIMESTEPS))
    print("|---" * (3 + 2 * len(TIMESTEPS)) + "|")
    for path in opt.runs:
        state = torch.load(path / "state.pt", map_location="cpu")
        net = unet.UNet(state["config"])
        for weights in ("ema", "net"):
            net.load_state_dict(state[weights])
            cells = " | ".join("%.4f | %.4f" % pair for pair in errors(net, images))
            print("| %s | %d | %s | %s |" % (path.name, state["seen"], weights, cells), flush=True)


if __name__ == "__main__":
    main()
