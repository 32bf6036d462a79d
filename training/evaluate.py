"""How good the cascade is: pictures drawn by the C engine, judged by the automatic checker.

    evaluate.py [PART...] [options] [-- OPTIONS OF imagend generate]

Parts; the first four when none is named:
    table      scores per task and attribute on held-out combinations, beside chance and exact renders
    diversity  how much pictures of one caption differ, beside exact renders
    guidance   scores and burnt pixels over the guidance scale
    robust     what odd prompts give
    sr         PSNR of the super-resolution stages against bicubic (in torch)
    sheets     held-out combinations at every size, and what new users type first
    edit       objects replaced, added and recoloured, rough paintings, enlargement
    nouns      every noun, and nouns together, counted, coloured, placed, in other languages

Each part writes PART.json, PART.md and a JPEG of pictures into --out.
"""

import threads  # noqa: F401  (before torch)

import argparse
import json
import pathlib
import sys
import time

import checker
import sheet
from atlas import Atlas
from evaluation import diversity, edit, guidance, nouns, robust, sheets, sr, table
from evaluation.engine import Engine, tensor
from world import scene as worlds
from world.cast import Cast

HERE = pathlib.Path(__file__).resolve().parent
PARTS = {"table": table, "diversity": diversity, "guidance": guidance, "robust": robust, "sr": sr,
         "sheets": sheets, "edit": edit, "nouns": nouns}
USUAL = ["table", "diversity", "guidance", "robust"]
ON_SHEET = 12


class Context:
    """What every part is given."""

    def __init__(self, opt, options):
        self.model, self.out, self.count, self.seed = opt.model, opt.out, opt.count, opt.seed
        self.mix, self.mix_name = worlds.Mix.load(opt.mix), opt.mix and pathlib.Path(opt.mix).name
        self.engine = Engine(opt.imagend, opt.model, options)
        self.net, self.checker_seen = checker.load(opt.checker)
        self.shown = []
        self.waves, self.atlas, self.cast = opt.waves, None, None
        if opt.atlas.exists():
            self.atlas = Atlas(opt.atlas)
            self.cast = Cast.of(self.atlas)

    def see(self, pictures):
        return checker.detect(self.net, tensor(pictures))

    def say(self, text):
        print(text, file=sys.stderr, flush=True)

    def add_to_sheet(self, title, pictures, captions, most=ON_SHEET):
        self.shown += [(p, "%s: %s" % (title, c) if i == 0 else c)
                       for i, (p, c) in enumerate(zip(pictures[:most], captions))]

    def finish(self, name, results, lines, seconds):
        """Writes what a part found and starts the next part's sheet."""
        settings = {"part": name, "model": self.model.name, "options": self.engine.options, "seed": self.seed,
                    "mix": self.mix_name or "full world", "checker_samples": self.checker_seen,
                    "seconds": round(seconds)}
        (self.out / (name + ".json")).write_text(json.dumps(dict(settings, **results), indent=1) + "\n")
        (self.out / (name + ".md")).write_text("\n".join(lines) + "\n")
        if self.shown:
            sheet.save(self.out / (name + ".jpg"), *zip(*self.shown), columns=ON_SHEET, side=128)
        self.shown = []


def read_arguments():
    arguments, options = sys.argv[1:], []
    if "--" in arguments:
        at = arguments.index("--")
        arguments, options = arguments[:at], arguments[at + 1:]
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    args.add_argument("parts", nargs="*", metavar="PART", help=" ".join(PARTS))
    args.add_argument("--imagend", type=pathlib.Path, default=HERE.parent / "build/imagend")
    args.add_argument("--model", type=pathlib.Path, default=HERE.parent / "models/default")
    args.add_argument("--checker", type=pathlib.Path, default=HERE / "out/checker/state.pt")
    args.add_argument("--atlas", type=pathlib.Path, default=HERE / "out/atlas", help="folder of atlas.build")
    args.add_argument("--waves", type=int, nargs="*", help="of the vocabulary, for the part nouns; all without it")
    args.add_argument("--out", type=pathlib.Path, default=HERE / "out/eval")
    args.add_argument("--count", type=int, default=100, help="prompts per task (100)")
    args.add_argument("--mix", default=None, help="JSON of world.scene.Mix; the full world without it")
    args.add_argument("--seed", type=int, default=4 * 10 ** 9)
    opt = args.parse_args(arguments)
    unknown = [p for p in opt.parts if p not in PARTS]
    if unknown:
        args.error("there is no part %s; parts are %s" % (unknown[0], ", ".join(PARTS)))
    if "nouns" in opt.parts and not opt.atlas.exists():
        args.error("no atlas in %s; make it: python3 -m atlas.build" % opt.atlas)
    if opt.count < 1:
        args.error("--count must be at least 1")
    if not opt.checker.exists():
        args.error("no checker in %s; make it (10 minutes of a core):\n"
                   "    cd %s && python3 checker.py --out out/checker --atlas out/atlas" % (opt.checker, HERE))
    return opt, options


def main():
    opt, options = read_arguments()
    opt.out.mkdir(parents=True, exist_ok=True)
    context = Context(opt, options)
    for name in opt.parts or USUAL:
        start = time.time()
        results, lines = PARTS[name].run(context)
        context.finish(name, results, lines, time.time() - start)
        print("\n".join(lines) + "\n", flush=True)
        context.say("%s: %.0f s, in %s" % (name, time.time() - start, opt.out))


if __name__ == "__main__":
    main()
