"""Trains the tokenizer and the text encoder: every token learns what its phrase says.

The encoder is pre-trained on caption parsing (each token names the attributes and the place of the
object it belongs to, every position names the scene) and stays frozen afterwards, as in Imagen.
"""

import threads  # noqa: F401  (before torch)

import argparse
import pathlib
import random
import time

import torch
import torch.nn.functional as F
from torch import nn

from nets import t5, tokenizer
from optimiser import Optimiser
from world import scene as worlds
from world.language import BACKDROPS, COLOUR_NAMES, GROUNDS, LAYOUTS, PATTERNS, SHAPES, SIZES, TIMES

OBJECT_FIELDS = [len(SHAPES), len(COLOUR_NAMES), len(PATTERNS), len(SIZES), 5]
SCENE_FIELDS = [len(LAYOUTS), len(GROUNDS), len(TIMES), len(BACKDROPS), 2]


def object_targets(scene, groups):
    """Per token: five class indices, then mean x, y and radius; -100 where no object is meant."""
    rows = {0: ([-100] * 5, [0.] * 3)}
    for group in {o.group for o in scene.objects}:
        objs = [o for o in scene.objects if o.group == group]
        o = objs[0]
        rows[group] = ([SHAPES.index(o.shape), COLOUR_NAMES.index(o.colour), PATTERNS.index(o.pattern),
                        SIZES.index(o.size), len(objs) - 1],
                       [sum(q.x for q in objs) / len(objs) * 4 - 2, o.y * 4 - 3, o.r * 8 - 1.2])
    return [rows[g][0] for g in groups], [rows[g][1] for g in groups]


def scene_targets(scene):
    backdrop = list(BACKDROPS).index(scene.backdrop) if scene.ground == "plain" else -100
    return [LAYOUTS.index(scene.layout), GROUNDS.index(scene.ground), TIMES.index(scene.time), backdrop,
            int(scene.mountains)]


def batch(seeds, mix, tok):
    ids, objects, places, scenes = [], [], [], []
    for seed in seeds:
        s = worlds.sample(seed, mix)
        row, groups = tok.encode_words(s.words, s.groups)
        labels, where = object_targets(s, groups)
        ids.append(row)
        objects.append(labels)
        places.append(where)
        scenes.append(scene_targets(s))
    return torch.tensor(ids), torch.tensor(objects), torch.tensor(places), torch.tensor(scenes)


class Parser(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.objects = nn.Linear(dim, sum(OBJECT_FIELDS))
        self.places = nn.Linear(dim, 3)
        self.scenes = nn.Linear(dim, sum(SCENE_FIELDS))

    def loss(self, hidden, objects, places, scenes):
        named = objects[..., 0] >= 0
        parts = self.objects(hidden).split(OBJECT_FIELDS, -1)
        loss = sum(F.cross_entropy(p.flatten(0, 1), objects[..., i].flatten(), ignore_index=-100)
                   for i, p in enumerate(parts))
        error = (self.places(hidden) - places).pow(2).mean(-1)
        loss = loss + (error * named).sum() / named.sum()
        everywhere = scenes[:, None].expand(-1, hidden.shape[1], -1)
        parts = self.scenes(hidden).split(SCENE_FIELDS, -1)
        scene_loss = sum(F.cross_entropy(p.flatten(0, 1), everywhere[..., i].flatten(), ignore_index=-100)
                         for i, p in enumerate(parts))
        return loss, scene_loss


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--out", type=pathlib.Path, required=True)
    args.add_argument("--steps", type=int, default=4000)
    args.add_argument("--batch", type=int, default=64)
    args.add_argument("--mix", default=None)
    args.add_argument("--device", default="cpu")
    opt = args.parse_args()
    torch.manual_seed(1)
    opt.out.mkdir(parents=True, exist_ok=True)
    mix = worlds.Mix.load(opt.mix)
    piece_file = opt.out / "spiece.model"
    if not piece_file.exists():
        tokenizer.train((worlds.sample(s, worlds.Mix(), held_out=None).caption for s in range(60000)),
                        piece_file)
    tok = tokenizer.Tokenizer(piece_file)
    encoder = t5.T5Encoder(t5.default_config(len(tok))).to(opt.device)
    parser = Parser(encoder.config["d_model"]).to(opt.device)
    optimiser = Optimiser(encoder, parser.parameters())
    print("pieces %d, parameters %.2f M" % (len(tok), sum(p.numel() for p in encoder.parameters()) / 1e6))
    rng, start = random.Random(5), time.time()
    for step in range(opt.steps):
        rate = 2e-3 * min(1, (step + 1) / 100) * (1.02 - step / opt.steps)
        ids, *targets = (t.to(opt.device) for t in batch(
            [rng.randrange(10 ** 9) for _ in range(opt.batch)], mix, tok))
        loss, scene_loss = parser.loss(encoder(ids, (ids != 0).long()), *targets)
        (loss + .5 * scene_loss).backward()
        optimiser.step(rate)
        if step % 100 == 99:
            print("step %d  objects %.4f  scene %.4f  %.0f s" % (
                step + 1, loss.item(), scene_loss.item(), time.time() - start), flush=True)
            torch.save({"config": encoder.config, "model": encoder.state_dict()}, opt.out / "text.tmp")
            (opt.out / "text.tmp").rename(opt.out / "text.pt")


if __name__ == "__main__":
    main()
