"""Makes run folders out of exported weights, so that training can go on from what is shipped.

    continue_from.py ../models/default out

Text encoder and tokenizer come over whole; of a stage its weights, which start both net and EMA. The
optimiser's state and the base's training-only head are not exported and start anew.
"""

import threads  # noqa: F401  (before torch)

import argparse
import json
import pathlib
import shutil

import torch

import run
from export import STAGES, load_text, load_unet


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    args.add_argument("models", type=pathlib.Path)
    args.add_argument("runs", type=pathlib.Path)
    args.add_argument("--seen", type=json.loads, default={}, help='samples seen so far, as {"base": 118016}')
    opt = args.parse_args()
    text = opt.runs / "text"
    text.mkdir(parents=True, exist_ok=True)
    encoder, _ = load_text(opt.models / "base")
    torch.save({"config": encoder.config, "model": encoder.state_dict()}, text / "text.pt")
    shutil.copy(opt.models / "base" / "tokenizer" / "spiece.model", text)
    for name in STAGES:
        net = load_unet(opt.models / name)
        run.Checkpoint(opt.runs / name).save({
            "config": net.config, "net": net.state_dict(), "ema": net.state_dict(), "ema_steps": 0,
            "seen": opt.seen.get(name, 0), "seconds": 0})


if __name__ == "__main__":
    main()
