"""What a new net can take over from a smaller one that was trained before, and heads that know nouns from
heads that knew fewer.

    growth.py RUN NEW --net config/base.json      # a run that goes on where RUN is, with a larger net

Levels of a U-Net are counted from the finest, so a net with one more, coarser level has the others' blocks
in the same place on the way down and one place later on the way up. Where a shape has grown, the old weights
fill its first part: more channels below than before, wider text.
"""

import threads  # noqa: F401  (before torch)

import argparse
import copy
import json
import pathlib
import re

import torch

import safetensors_file
from nets import unet
from run import Checkpoint


def weights(path):
    """(config, weights) of a run, or of an exported stage."""
    if (path / "state.pt").exists():
        state = torch.load(path / "state.pt", map_location="cpu")
        return state["config"], state["ema"]
    saved = safetensors_file.load(path / "unet" / "diffusion_pytorch_model.safetensors")
    return json.loads((path / "unet" / "config.json").read_text()), {k: v.float() for k, v in saved.items()}


def _renamed(name, deeper):
    return re.sub(r"^up_blocks\.(\d+)", lambda m: "up_blocks.%d" % (int(m[1]) + deeper), name)


@torch.no_grad()
def take(net, source):
    """Copies what fits. Returns (parameters taken, parameters of the net)."""
    config, old = source
    deeper = len(net.config["block_out_channels"]) - len(config["block_out_channels"])
    wider_text = net.config["encoder_hid_dim"] != config["encoder_hid_dim"]
    mine, taken = net.state_dict(), 0
    for name, value in old.items():
        if wider_text and name.startswith(("encoder_hid_proj", "add_embedding")):
            continue                        # another encoder's vectors mean something else
        if deeper and name.startswith("mid_block"):
            continue
        target = mine.get(_renamed(name, deeper))
        if target is None:
            continue
        if target.shape == value.shape:
            target.copy_(value)
        elif _is_up_entry(name) and target.dim() == value.dim() and target.shape[0] == value.shape[0]:
            _take_entry(target, value)
        else:
            continue
        taken += value.numel()
    net.load_state_dict(mine)
    return taken, sum(p.numel() for p in net.parameters())


def warm(opt, net):
    """What a run that begins takes over from opt.warm, a run or an exported stage."""
    if opt.warm and not (opt.out / "state.pt").exists():
        taken, count = take(net, weights(opt.warm))
        print("warm start: %.2f M of %.2f M parameters" % (taken / 1e6, count / 1e6), flush=True)


def _is_up_entry(name):
    return re.match(r"up_blocks\.0\.resnets\.0\.(conv1|conv_shortcut)\.weight$", name)


def _take_entry(target, value):
    """Input channels of the first block on the way up: from below, which are new, then the skip, which is not."""
    skip = value.shape[1] // 2
    target[:, -skip:] = value[:, -skip:]


@torch.no_grad()
def renumbered(old, fresh, first, old_ids, ids):
    """Rows of a head for a list of nouns out of those for another list; `first` rows come before the nouns,
    and what is new keeps the values in `fresh`."""
    out = fresh.detach().clone()
    out[:first] = old[:first]
    place = {name: i for i, name in enumerate(old_ids)}
    for i, name in enumerate(ids):
        if name in place:
            out[first + i] = old[first + place[name]]
    return out


def grown(state, net):
    """The checkpoint of a run with this net, which goes on where the other is; its optimiser begins anew."""
    take(net, (state["config"], state["ema"]))
    out = {"config": net.config, "net": net.state_dict(), "ema": copy.deepcopy(net.state_dict()), "ema_steps": 0,
           "seen": state["seen"], "seconds": state["seconds"]}
    second = 1      # the level whose maps the heads of the base read
    if "aux" in state and net.config["block_out_channels"][second] == state["config"]["block_out_channels"][second]:
        out["aux"] = state["aux"]
    return out


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    args.add_argument("run", type=pathlib.Path)
    args.add_argument("new", type=pathlib.Path)
    args.add_argument("--net", type=pathlib.Path, required=True, help="sizes of the new network")
    opt = args.parse_args()
    state, new = Checkpoint(opt.run).load("cpu"), Checkpoint(opt.new)
    if not state or new.path.exists():
        raise SystemExit("%s must hold a run, and %s none" % (opt.run, opt.new))
    torch.manual_seed(5)
    net = unet.UNet(unet.config(**json.loads(opt.net.read_text())))
    new.save(grown(state, net))
    print("%s: %.2f M parameters, %d samples" % (opt.new, sum(p.numel() for p in net.parameters()) / 1e6, state["seen"]))


if __name__ == "__main__":
    main()
