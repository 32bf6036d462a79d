"""Where the base's training pictures come from: composed here or by other processes, kept and shown a few
times each."""

import pathlib
import queue

import torch

from atlas import Atlas
from nets import tokenizer
from world import foreign, staging
from world.cast import Cast
from world.render import Surroundings, render
from world.trace import GRID, Trace

RES = 64
UNTOLD = .1         # share of pictures shown without their caption, for guidance
PART = 64           # pictures composed at a time
AHEAD = 4           # parts that a composing process may be ahead of the net


class Composer:
    """Scenes of a mix as tensors of bytes: pictures, ids of the captions, what is where, how much of it."""

    def __init__(self, opt, tok, first_seed, device="cpu"):
        self.tok, self.seed, self.device = tok, first_seed, device
        self.mix = staging.NounMix.load(opt.mix)
        self.atlas = Atlas(opt.atlas, None, device)     # nouns are numbered over all waves
        if opt.waves:
            self.mix.nouns = [n.id for n in self.atlas.nouns if n.wave in opt.waves]
        self.cast, self.kept = Cast.of(self.atlas), Surroundings(RES)

    def make(self, count):
        scenes = [staging.sample(self.seed + i, self.mix, self.cast) for i in range(count)]
        self.seed += count
        trace = Trace(count, RES, self.device)
        images = render(scenes, RES, device=self.device, atlas=self.atlas, kept=self.kept, trace=trace)
        rows = [self.tok.encode_words(s.words, s.groups, foreign.joint(s.language) == " ")[0] for s in scenes]
        return ((images * 255).round().byte(), torch.tensor(rows, dtype=torch.int16), trace.maps,
                (trace.mask * 255).round().byte())


class Pool:
    """The latest composed pictures, as bytes, with the vectors of their captions; new ones replace the oldest."""

    def __init__(self, opt, encoder, tok, first_seed, untold=UNTOLD):
        self.untold, self.opt, self.encoder = untold, opt, encoder
        self.start(tok, first_seed)
        size, device = opt.pool, opt.device
        self.images = torch.zeros(size, 3, RES, RES, dtype=torch.uint8, device=device)
        self.text = torch.zeros(size, tokenizer.LENGTH, encoder.config["d_model"], dtype=torch.bfloat16, device=device)
        self.null = self.encode(torch.tensor([[1] + [0] * (tokenizer.LENGTH - 1)]))
        self.maps = torch.zeros(size, 3, GRID, GRID, dtype=torch.int16, device=device)
        self.masks = torch.zeros(size, 1, RES, RES, dtype=torch.uint8, device=device)
        self.filled, self.next, self.owed = 0, 0, 0

    def start(self, tok, first_seed):
        self.composer = Composer(self.opt, tok, first_seed, self.opt.device)

    @torch.no_grad()
    def encode(self, rows):
        ids = rows.to(self.opt.device).long()
        return self.encoder(ids, (ids != 0).long())

    def store(self, images, rows, maps, masks):
        at = (torch.arange(len(images)) + self.next) % len(self.images)
        device = self.opt.device
        self.images[at], self.maps[at], self.masks[at] = (v.to(device) for v in (images, maps, masks))
        self.text[at] = self.encode(rows).bfloat16()
        self.next = (self.next + len(images)) % len(self.images)
        self.filled = min(self.filled + len(images), len(self.images))

    def refill(self, n):
        """Before n pictures are shown."""
        if not self.filled:
            for _ in range(8):
                self.store(*self.composer.make(PART))
        self.owed += n / self.opt.reuse
        while self.owed >= PART:
            self.store(*self.composer.make(PART))
            self.owed -= PART

    def batch(self, n):
        self.refill(n)
        pick = torch.randint(0, self.filled, (n,), device=self.text.device)
        untold = torch.rand(n, 1, 1, device=self.text.device) < self.untold
        text = torch.where(untold, self.null, self.text[pick].float())
        return self.images[pick].float() / 127.5 - 1, text, self.maps[pick].long(), self.masks[pick].float() / 255


def _compose(opt, piece_file, seed, out):
    """A process of its own that composes for ever; `out` makes it wait when nobody takes what it has made."""
    torch.set_num_threads(1)
    composer = Composer(opt, tokenizer.Tokenizer(piece_file), seed)
    while True:
        # as numpy arrays, which go through a pipe: shared memory may be small, in a container for one
        out.put([part.numpy() for part in composer.make(PART)])


class FedPool(Pool):
    """A pool filled by `opt.composers` processes, for a GPU that sees pictures faster than one process makes them.
    It takes what has been made, and waits only when a picture would be shown more than `--reuse` times."""

    def start(self, tok, first_seed):
        spawn = torch.multiprocessing.get_context("spawn")
        self.parts = spawn.Queue(AHEAD * self.opt.composers)
        self.processes = [spawn.Process(target=_compose, daemon=True, args=(
            self.opt, self.opt.text / "spiece.model", first_seed + k * 10 ** 7, self.parts))
            for k in range(self.opt.composers)]
        for process in self.processes:
            process.start()

    def refill(self, n):
        self.owed += n / self.opt.reuse
        least = min(8 * PART, len(self.images))
        while True:
            wait = self.filled < least or self.owed > 0
            try:
                part = self.parts.get(wait, 300 if wait else None)
            except queue.Empty:
                if wait:
                    raise RuntimeError("no picture has been composed for five minutes") from None
                return
            self.store(*map(torch.from_numpy, part))
            self.owed = max(self.owed - PART, -4. * PART)
            if self.filled >= least and self.owed <= 0:
                return


def pool(opt, encoder, tok, seed, **more):
    return (FedPool if opt.composers else Pool)(opt, encoder, tok, seed, **more)


def options(args):
    args.add_argument("--text", type=pathlib.Path, required=True, help="folder of train_text.py")
    args.add_argument("--atlas", type=pathlib.Path, required=True, help="folder of atlas.build")
    args.add_argument("--waves", type=int, nargs="*", help="of the vocabulary; all that the atlas has without it")
    args.add_argument("--mix", default=None, help="JSON of world.staging.NounMix; the full world without it")
    args.add_argument("--object-weight", type=float, default=16., help="how much more pixels of objects count than others")
    args.add_argument("--composers", type=int, default=0,
                      help="processes that compose pictures, for a GPU; without them each worker does it itself")
