"""Takes a run to another machine, with a GPU, and back. See gpu.sh.

    gpu.py pack out out/gpu            # a folder of weights, encoder, atlas and this code
    gpu.py keep out checkpoints        # weights, encoder and judge only, to be committed; unpack makes run folders of it
    gpu.py unpack FOLDER RUNS          # there: makes the run folders of it
    gpu.py small RUNS/base FILE        # there: what is to be brought back
    gpu.py merge FILE out/base         # here: the run goes on from it
"""

import threads  # noqa: F401  (before torch)

import argparse
import json
import os
import pathlib
import shutil

import torch

from atlas import compact
from nets import pieces
from run import Checkpoint

HERE = pathlib.Path(__file__).resolve().parent
CODE = ("*.py", "nets/*.py", "world/*.py", "atlas/*.py", "config/*.json", "config/cascade/*.json", "vocabulary/names.tsv",
        "heldout*.json", "prompts*.txt", "gpu.sh")
STAGES = ("base", "sr256", "sr1024")
KEPT = (*STAGES, "checker")


def halves(state):
    return {k: v.half() if isinstance(v, torch.Tensor) and v.is_floating_point() else v for k, v in state.items()}


def small(state):
    """A checkpoint without the optimiser's state and with one set of weights, the EMA's, in 16 bits."""
    out = {k: v for k, v in state.items() if k not in ("optimiser", "net", "aux")}
    out["ema"] = halves(state["ema"])
    if "aux" in state:
        out["aux"] = halves(state["aux"])
    return out


def whole(state):
    """The other way round; the optimiser starts anew."""
    def full(values):
        return {k: v.float() if isinstance(v, torch.Tensor) and v.is_floating_point() else v for k, v in values.items()}
    out = dict(state, ema=full(state["ema"]), net=full(state["ema"]), ema_steps=0)
    if "aux" in state:
        out["aux"] = full(state["aux"])
    return out


def keep(runs, folder, stages=STAGES):
    """What a run cannot be continued without, in 16 bits."""
    (folder / "text").mkdir(parents=True, exist_ok=True)
    saved = torch.load(runs / "text" / "text.pt", map_location="cpu")
    torch.save({"config": saved["config"], "model": halves(saved["model"])}, folder / "text" / "text.pt")
    shutil.copy(runs / "text" / "spiece.model", folder / "text")
    for stage in stages:
        if (runs / stage / "state.pt").exists():
            torch.save(small(torch.load(runs / stage / "state.pt", map_location="cpu")), folder / (stage + ".pt"))


def pack(runs, folder, side, webp):
    import sentencepiece
    shutil.rmtree(folder, ignore_errors=True)
    keep(runs, folder)
    model = sentencepiece.SentencePieceProcessor()
    model.Load(str(runs / "text" / "spiece.model"))
    pieces.export(model, folder / "text" / "pieces.json")       # for a machine without sentencepiece
    compact.pack(runs / "atlas", folder / "atlas.zip", side, webp)
    for pattern in CODE:
        for source in HERE.glob(pattern):
            target = folder / "code" / source.relative_to(HERE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    total = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    print("%s: %.1f MB" % (folder, total / 1e6))


def unpack(folder, runs):
    runs.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder / "text", runs / "text", dirs_exist_ok=True)
    if not (runs / "atlas").exists():
        compact.unpack(folder / "atlas.zip", runs / "atlas", os.cpu_count())
    for stage in KEPT:
        if (folder / (stage + ".pt")).exists() and not (runs / stage / "state.pt").exists():
            Checkpoint(runs / stage).save(whole(torch.load(folder / (stage + ".pt"), map_location="cpu")))


def merge(path, run):
    state = whole(torch.load(path, map_location="cpu"))
    kept = run / "state.pt"
    if kept.exists():
        shutil.copy(kept, run / "state.before.pt")
    Checkpoint(run).save(state)
    print(json.dumps({"seen": state["seen"]}))


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    args.add_argument("what", choices=("pack", "keep", "unpack", "small", "merge"))
    args.add_argument("source", type=pathlib.Path)
    args.add_argument("target", type=pathlib.Path)
    args.add_argument("--side", type=int, default=192, help="of the largest sprites; 256 for training sr256, 512 for sr1024")
    args.add_argument("--webp", action="store_true", help="a smaller atlas, for a machine with Pillow")
    opt = args.parse_args()
    if opt.what == "pack":
        pack(opt.source, opt.target, opt.side, opt.webp)
    elif opt.what == "keep":
        keep(opt.source, opt.target, KEPT)
    elif opt.what == "unpack":
        unpack(opt.source, opt.target)
    elif opt.what == "small":
        torch.save(small(torch.load(opt.source / "state.pt", map_location="cpu")), opt.target)
    else:
        merge(opt.source, opt.target)


if __name__ == "__main__":
    main()
