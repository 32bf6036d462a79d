"""Trains the base stage: text to 64x64 pictures.

Composes pictures as it goes (each is used `--reuse` times), predicts x0, weighs objects more than
surroundings, and gives the net a training-only second task: naming what is seen, and its visual code, per
cell of a 16x16 grid. On a CPU run two workers; they average their weights every few steps. `--out` resumes
by itself, and a run that begins takes what fits from another one (`--warm`), so that it need not learn
backdrops and denoising again.
"""

import threads  # noqa: F401  (before torch)

import argparse
import functools
import json
import pathlib

import torch
import torch.nn.functional as F
from torch import nn

import composing
import growth
import run
import schedule
import watching
from atlas import Atlas
from nets import unet
from optimiser import Optimiser
from world.language import COLOUR_NAMES, SHAPES
from world.trace import GRID

CODE = 96


class Auxiliary(nn.Module):
    """What is in each cell of the grid, from the map that enters the last block: whether there is an object,
    its kind, its colour and, of a noun, the visual code. Kinds are numbered as in train_text.py; a run goes on
    when there are more nouns than before."""

    def __init__(self, channels, ids):
        super().__init__()
        self.ids = ids
        self.fixed_sizes = False        # of all tensors, whatever is seen: what a CUDA graph needs
        self.there, self.code = nn.Linear(channels, 1), nn.Linear(channels, CODE)
        self.kind, self.colour = nn.Linear(channels, len(SHAPES) + len(ids)), nn.Linear(channels, 1 + len(COLOUR_NAMES))

    def get_extra_state(self):
        return self.ids

    def set_extra_state(self, ids):
        pass

    def load_state_dict(self, state, strict=True):
        ids = state["_extra_state"]
        state = {k: growth.renumbered(v, getattr(self.kind, k[5:]), len(SHAPES), ids, self.ids)
                 if k.startswith("kind.") else v for k, v in state.items()}
        return super().load_state_dict(state, strict)

    def forward(self, features, maps, codes):
        kinds, colours, rows = maps.permute(1, 0, 2, 3).flatten(1)
        cells = F.avg_pool2d(features.float(), features.shape[2] // GRID).permute(0, 2, 3, 1).flatten(0, 2)
        there = F.binary_cross_entropy_with_logits(self.there(cells)[:, 0], (kinds > 0).float())
        if not self.fixed_sizes:        # less to compute
            inside = kinds > 0
            cells, kinds, colours, rows = cells[inside], kinds[inside], colours[inside], rows[inside]
        seen, drawn = kinds > 0, (kinds > 0) & (rows >= 0)
        named = mean_of(seen, F.cross_entropy(self.kind(cells), (kinds - 1).clamp(min=0), reduction="none"))
        coloured = mean_of(seen, F.cross_entropy(self.colour(cells), colours.clamp(min=0), reduction="none"))
        error = mean_of(drawn, (self.code(cells) - codes[rows.clamp(min=0)]).pow(2).mean(1))
        return there + .4 * named + .2 * coloured + error, {"kind": named.detach(), "code": error.detach()}


def mean_of(chosen, values):
    """0 when none is chosen."""
    return (values * chosen).sum() / chosen.sum().clamp(min=1)


def losses(opt, net, aux, codes, images, text, maps, mask):
    n = len(images)
    t = schedule.stratified_timesteps(n, device=images.device, focus=opt.focus)
    noisy = schedule.add_noise(images, t, torch.randn_like(images))
    features = []
    x0 = net(noisy, t, text, features=features)
    error = (x0 - images).pow(2)
    per_picture = (error * (1 + opt.object_weight * mask)).mean((1, 2, 3))
    loss = (per_picture * schedule.x0_weight(t)).mean()
    extra, parts = aux(features[0], maps, codes)
    within = (error.detach() * mask).sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3)) + 1)
    quarters = [q.mean() for q in within.chunk(4)]      # timesteps rise along the batch
    return loss + opt.aux_weight * extra, dict(parts, loss=loss.detach(), aux=extra.detach(), **{
        "object_" + name: q for name, q in zip(("low", "mid", "high", "top"), quarters)})


def make_nets(opt):
    config = run.net_config(opt)
    ids = [n["id"] for n in json.loads((opt.atlas / "atlas.json").read_text())["nouns"]]
    return unet.UNet(config).to(opt.device), Auxiliary(config["block_out_channels"][1], ids).to(opt.device)


def work(rank, opt, average):
    torch.manual_seed(1)
    run.choose_arithmetic(opt.device)
    encoder, tok = run.load_text(opt.text, opt.device)
    net, aux = make_nets(opt)
    aux.fixed_sizes = bool(opt.graph)
    growth.warm(opt, net)
    codes = Atlas(opt.atlas, None, opt.device, sides=()).code
    run.loop(rank, opt, average, net, Optimiser(net, aux.parameters(), opt.muon, opt.muon_every),
             functools.partial(composing.pool, opt, encoder, tok), functools.partial(losses, opt, run.quick(net, opt.device), aux, codes), aux,
             watching.Sheets(opt, encoder, tok) if rank == 0 and opt.sheet_every else None)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    composing.options(args)
    args.add_argument("--net", type=pathlib.Path, default=pathlib.Path(__file__).parent / "config/base.json",
                      help="sizes of the network of a run that begins")
    args.add_argument("--aux-weight", type=float, default=.1)
    args.add_argument("--focus", type=float, default=2.5,
                      help="how much more often the timesteps are shown at which shapes are made out")
    args.add_argument("--warm", type=pathlib.Path, help="a run or an exported stage to begin with")
    args.add_argument("--sheet-every", type=int, default=0, help="samples between sheets of drawn pictures")
    args.add_argument("--judge", type=pathlib.Path, help="state.pt of checker.py, which scores nouns with every sheet")
    args.add_argument("--judge-every", type=int, default=4, help="only every so manieth noun")
    opt = run.options(args, samples=1000000, rate=1.5e-3, warmup=2000, workers=2, pool=6144, reuse=2., muon_every=6, average_every=16,
                      save_minutes=4., data_seed=10 ** 9).parse_args()
    run.start(opt, work, nn.ModuleList(make_nets(opt)))


if __name__ == "__main__":
    main()
