"""Trains the tokenizer and the text encoder: every token learns what its phrase says and looks like.

The encoder is pre-trained on caption parsing (each token names the attributes and the place of the object
that it belongs to, every position names the scene) and stays frozen afterwards, as in Imagen. It also carries
the visual memory: a noun's tokens learn to predict the code of its drawing (PCA of a thumbnail, see the
atlas), so that nouns that look alike have vectors that are alike, and the U-Net, whose parameters cost time
in every step, need not keep a picture of everything.

    train_text.py --out out/text --atlas out/atlas --steps 6000

Started again with more --steps it goes on. With `--anchor FOLDER`, a copy of the run that base stages were
trained with, English captions keep the vectors that they had there, while other languages and new nouns
are learned: the base stage goes on with the new encoder at once.
"""

import threads  # noqa: F401  (before torch)

import argparse
import itertools
import pathlib
import random
import time

import torch
import torch.nn.functional as F
from torch import nn

import growth
import run
from atlas import Atlas
from nets import t5, tokenizer
from optimiser import Optimiser
from world import foreign, staging
from world.cast import Cast
from world.language import BACKDROPS, COLOUR_NAMES, GROUNDS, PATTERNS, SHAPES, SIZES, TIMES, WEATHERS

CODE = 96
SCENE_FIELDS = [len(staging.NOUN_LAYOUTS), len(GROUNDS), len(TIMES), len(BACKDROPS), 2, len(WEATHERS)]
NOT_SAID = -100


def object_fields(nouns):
    """Classes per field: kind (a solid or a noun), colour (0: its own), pattern, size, number."""
    return [len(SHAPES) + nouns, 1 + len(COLOUR_NAMES), len(PATTERNS), len(SIZES), 5]


def kind_of(obj):
    return len(SHAPES) + obj.noun if obj.noun >= 0 else SHAPES.index(obj.shape)


def colour_of(obj):
    return obj.variant if obj.noun >= 0 else 1 + COLOUR_NAMES.index(obj.colour)


def object_targets(scene, groups, atlas):
    """Per token: class indices, then mean x, y and radius, then the atlas row; NOT_SAID where no object is."""
    rows = {0: ([NOT_SAID] * 5, [0.] * 3, -1)}
    for group in {o.group for o in scene.objects}:
        objs = [o for o in scene.objects if o.group == group]
        o = objs[0]
        row = int(atlas.drawings[o.noun, o.drawing, o.variant]) if o.noun >= 0 else -1
        colour = colour_of(o) if o.names_colour or o.noun >= 0 else NOT_SAID
        rows[group] = ([kind_of(o), colour, PATTERNS.index(o.pattern), SIZES.index(o.size), len(objs) - 1],
                       [sum(q.x for q in objs) / len(objs) * 4 - 2, sum(q.y for q in objs) / len(objs) * 4 - 3,
                        o.r * 8 - 1.2], row)
    return [[rows[g][i] for g in groups] for i in range(3)]


def scene_targets(scene):
    """What the caption says of the surroundings; NOT_SAID for what it leaves open."""
    place = GROUNDS.index(scene.ground) if scene.names_place else NOT_SAID
    time_ = TIMES.index(scene.time) if scene.names_time else NOT_SAID
    backdrop = list(BACKDROPS).index(scene.backdrop) if scene.ground == "plain" and scene.names_place else NOT_SAID
    return [staging.NOUN_LAYOUTS.index(scene.layout), place, time_, backdrop,
            int(scene.mountains) if scene.names_place else NOT_SAID, WEATHERS.index(scene.weather)]


def entropy(logits, wanted):
    """Mean cross-entropy over what is said; 0 where nothing is."""
    return F.cross_entropy(logits, wanted, ignore_index=NOT_SAID, reduction="sum") / (wanted >= 0).sum().clamp(min=1)


class Parser(nn.Module):
    """What is read off the encoder's vectors while it learns."""

    def __init__(self, dim, nouns):
        super().__init__()
        self.fields = object_fields(nouns)
        self.objects = nn.Linear(dim, sum(self.fields))
        self.places = nn.Linear(dim, 3)
        self.scenes = nn.Linear(dim, sum(SCENE_FIELDS))
        self.code = nn.Linear(dim, CODE)

    def losses(self, hidden, mask, targets, codes):
        objects, places, rows, scenes = targets
        named = objects[..., 0] >= 0
        h, wanted = hidden[named], objects[named]
        parts = self.objects(h).split(self.fields, -1)
        kinds = F.cross_entropy(parts[0], wanted[:, 0])
        rest = sum(entropy(p, wanted[:, 1 + i]) for i, p in enumerate(parts[1:]))
        place = (self.places(h) - places[named]).pow(2).mean()
        drawn = rows[named] >= 0
        code = (self.code(h[drawn]) - codes[rows[named][drawn]]).pow(2).mean()
        everywhere = scenes[:, None].expand(-1, hidden.shape[1], -1)[mask > 0]
        scene = sum(entropy(p, everywhere[:, i]) for i, p in enumerate(self.scenes(hidden[mask > 0]).split(SCENE_FIELDS, -1)))
        right = (parts[0].argmax(1) == wanted[:, 0]).float().mean()
        return kinds + rest + place + 2 * code + .5 * scene, {
            "kind": kinds.detach(), "rest": rest.detach(), "place": place.detach(), "code": code.detach(),
            "scene": scene.detach(), "right": right}


class Captions:
    """Batches of tagged captions of about equal length, cut to the longest."""

    def __init__(self, mix, cast, atlas, tok, batch, seed):
        self.mix, self.cast, self.atlas, self.tok, self.size = mix, cast, atlas, tok, batch
        self.seed, self.ready, self.rng = seed, [], random.Random(seed)

    def _refill(self):
        scenes = [staging.sample(self.seed + i, self.mix, self.cast) for i in range(8 * self.size)]
        self.seed += len(scenes)
        rows = []
        for s in scenes:
            ids, groups = self.tok.encode_words(s.words, s.groups, foreign.joint(s.language) == " ")
            rows.append((ids.index(1), ids, object_targets(s, groups, self.atlas), scene_targets(s), s.language))
        rows.sort(key=lambda row: row[0])
        self.ready = [rows[i:i + self.size] for i in range(0, len(rows), self.size)]
        self.rng.shuffle(self.ready)

    def batch(self):
        """ids, targets, and which captions are English."""
        if not self.ready:
            self._refill()
        rows = self.ready.pop()
        length = max(r[0] for r in rows) + 1

        def stack(pick):
            return torch.tensor([pick(r)[:length] for r in rows])
        targets = [stack(lambda r, k=k: r[2][k]) for k in range(3)] + [torch.tensor([r[3] for r in rows])]
        return stack(lambda r: r[1]), targets, torch.tensor([r[4] == "en" for r in rows])


def spelled(cast):
    """Every name of every noun, singular and plural, in every language."""
    for noun in cast.nouns:
        for name in noun.names:
            yield name.singular
            yield name.plural
    yield from foreign.names(cast)


def train_tokenizer(path, mix, cast, vocab_size, words):
    mixed = staging.NounMix(**dict(vars(mix), nouns=None, languages=foreign.languages()))
    captions = (staging.sample(s, mixed, cast, held_out=None).caption for s in range(60000))
    names = list(spelled(cast))
    more = words.read_text().split("\n") if words else []
    tokenizer.train(itertools.chain(captions, names * 8, more), path, vocab_size)


@torch.no_grad()
def plant_codes(encoder, tok, cast, atlas):
    """Starts the embedding of a piece that is a noun's whole name with the code of its drawing: the
    visual memory need not be found by trial and error."""
    dim = encoder.config["d_model"]
    basis = torch.linalg.qr(torch.randn(dim, CODE))[0].T
    sums, counts = torch.zeros(len(tok), CODE), torch.zeros(len(tok), 1)
    for number, noun in enumerate(cast.nouns):
        words = [w for name in noun.names for w in {name.singular, name.plural}] + foreign.words_of(noun)
        for word in words:
            pieces = tok.pieces(word)
            if len(pieces) == 1:
                sums[pieces[0]] += atlas.code[atlas.index[number, 0]]
                counts[pieces[0]] += 1
    known = counts[:, 0] > 0
    codes = sums[known] / counts[known]
    encoder.shared.weight[known] = encoder.shared.weight[known] * .5 + codes @ basis * .6
    return int(known.sum())


class EmbeddingOptimiser(Optimiser):
    """The embedding learns faster than the rest: each of its rows is seen rarely."""

    FASTER = 5.

    def __init__(self, encoder, extra):
        super().__init__(encoder, extra, every=3)
        table = encoder.shared.weight
        rest = [p for group in self.adam.param_groups for p in group["params"] if p is not table]
        self.adam = torch.optim.AdamW(rest, 1e-3, betas=(.9, .99), weight_decay=.01)
        self.embedding = torch.optim.Adam([table], 1e-3, betas=(.9, .99))

    def step(self, rate, clip=1.):
        torch.nn.utils.clip_grad_norm_(self.params, clip)
        for group in self.embedding.param_groups:
            group["lr"] = rate * self.FASTER
        self.embedding.step()
        self.embedding.zero_grad(set_to_none=True)
        super().step(rate, clip)

    def state_dict(self):
        return dict(super().state_dict(), embedding=self.embedding.state_dict())

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.embedding.load_state_dict(state["embedding"])


@torch.no_grad()
def quality(encoder, parser, source, codes, batches=20):
    """(share of nouns' tokens named rightly, R2 of the visual code) on captions not seen before."""
    right = total = 0
    error, spread = 0., 0.
    for _ in range(batches):
        ids, (objects, _, rows, _), _ = source.batch()
        hidden = encoder(ids, (ids != 0).long())
        drawn = rows >= 0
        wanted = codes[rows[drawn]]
        kinds = parser.objects(hidden[drawn]).split(parser.fields, -1)[0].argmax(1)
        right += int((kinds == objects[drawn][:, 0]).sum())
        total += int(drawn.sum())
        error += float((parser.code(hidden[drawn]) - wanted).pow(2).sum())
        spread += float((wanted - codes.mean(0)).pow(2).sum())
    return right / total, 1 - error / spread


def load_parser(saved, dim, ids):
    """The parser of a run, for the nouns that there are now."""
    parser, state = Parser(dim, len(ids)), saved["parser"]
    rest = sum(parser.fields[1:])
    for name in ("weight", "bias"):         # nouns are at the end of the first field
        old, fresh = state["objects." + name], getattr(parser.objects, name)
        kinds = growth.renumbered(old[:-rest], fresh[:-rest], len(SHAPES), saved["nouns"], ids)
        state["objects." + name] = torch.cat([kinds, old[-rest:]])
    parser.load_state_dict(state)
    return parser


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    args.add_argument("--out", type=pathlib.Path, required=True)
    args.add_argument("--atlas", type=pathlib.Path, required=True)
    args.add_argument("--steps", type=int, default=6000)
    args.add_argument("--batch", type=int, default=96)
    args.add_argument("--rate", type=float, default=2e-3)
    args.add_argument("--pieces", type=int, default=8000)
    args.add_argument("--words", type=pathlib.Path, default=None,
                      help="more words that the tokenizer is to know, one per line, as often as they count")
    args.add_argument("--mix", default=None, help="JSON of world.staging.NounMix")
    args.add_argument("--anchor", type=pathlib.Path, default=None, help="run whose English vectors are to stay")
    opt = args.parse_args()
    torch.manual_seed(1)
    run.choose_arithmetic("cpu")
    opt.out.mkdir(parents=True, exist_ok=True)
    mix, atlas = staging.NounMix.load(opt.mix), Atlas(opt.atlas, sides=())
    cast = Cast.of(atlas)
    piece_file = opt.out / "spiece.model"
    if not piece_file.exists():
        train_tokenizer(piece_file, mix, cast, opt.pieces, opt.words)
    tok = tokenizer.Tokenizer(piece_file)
    train(opt, mix, cast, atlas, tok)


def train(opt, mix, cast, atlas, tok):
    encoder = t5.T5Encoder(t5.default_config(len(tok)))
    dim, path, done = encoder.config["d_model"], opt.out / "text.pt", 0
    ids = [n.id for n in cast.nouns]
    parser = Parser(dim, len(ids))
    if path.exists():
        saved = torch.load(path, map_location="cpu")
        encoder.load_state_dict(saved["model"])
        parser, done = load_parser(saved, dim, ids), saved["steps"]
    else:
        print("codes planted in %d pieces" % plant_codes(encoder, tok, cast, atlas))
    anchor = opt.anchor and run.load_text(opt.anchor, "cpu")[0]
    optimiser = EmbeddingOptimiser(encoder, parser.parameters())
    print("pieces %d, parameters %.2f M, from step %d" % (
        len(tok), sum(p.numel() for p in encoder.parameters()) / 1e6, done), flush=True)
    source = Captions(mix, cast, atlas, tok, opt.batch, 6 * 10 ** 9 + done * 1000)
    fresh = Captions(mix, cast, atlas, tok, opt.batch, 7 * 10 ** 9)
    first, start, sums = done, time.process_time(), {}
    for step in range(done, opt.steps):
        rate = opt.rate * min(1, (step - first + 1) / 100) * (1.02 - (step - first) / (opt.steps - first))
        rows, targets, english = source.batch()
        mask = (rows != 0).long()
        hidden = encoder(rows, mask)
        loss, parts = parser.losses(hidden, mask, targets, atlas.code)
        if anchor:
            with torch.no_grad():
                before = anchor(rows, mask)
            moved = ((hidden - before).pow(2).mean(-1) * mask)[english].sum() / mask[english].sum().clamp(min=1)
            loss, parts = loss + 4 * moved, dict(parts, moved=moved.detach())
        loss.backward()
        optimiser.step(rate)
        for k, v in parts.items():
            sums[k] = sums.get(k, 0.) + float(v) / 100
        if step % 100 == 99:
            print("step %d  %s  %.0f CPU s" % (step + 1, "  ".join("%s %.4f" % i for i in sums.items()),
                                              time.process_time() - start), flush=True)
            sums = {}
        if step % 500 == 499 or step + 1 == opt.steps:
            torch.save({"config": encoder.config, "model": encoder.state_dict(), "parser": parser.state_dict(),
                        "nouns": ids, "steps": step + 1}, opt.out / "text.tmp")
            (opt.out / "text.tmp").rename(path)
            print("nouns right %.3f, R2 of the visual code %.3f" % quality(encoder, parser, fresh, atlas.code),
                  flush=True)


if __name__ == "__main__":
    main()
