"""Draws prompts with the checkpoints (EMA weights) in torch: sample sheets while training."""

import threads  # noqa: F401  (before torch)

import argparse
import pathlib
import time

import torch
import torch.nn.functional as F

import export
import run
import schedule
import sheet
from nets import unet

PROMPTS = (pathlib.Path(__file__).parent / "prompts.txt").read_text().strip().split("\n")


class Cascade:
    """The stages that exist in a folder of training runs (text, base, sr256, sr1024), or those of an
    exported cascade."""

    def __init__(self, out, device="cpu"):
        self.device, self.nets, self.seen = device, {}, {}
        if (out / "cascade.json").exists():
            self.encoder, self.tok = export.load_text(out / "base")
            self.encoder.to(device)
            self.nets = {name: export.load_unet(out / name).to(device) for name in export.STAGES}
            return
        self.encoder, self.tok = run.load_text(out / "text", device)
        for name in export.STAGES:
            if (out / name / "state.pt").exists():
                state = torch.load(out / name / "state.pt", map_location=device)
                self.nets[name] = unet.UNet(state["config"]).to(device).eval()
                self.nets[name].load_state_dict(state["ema"])
                self.seen[name] = state["seen"]

    @torch.no_grad()
    def encode(self, prompts):
        ids, mask = (v.to(self.device) for v in self.tok.encode(prompts))
        return self.encoder(ids, mask)

    @torch.no_grad()
    def base(self, text, noise, times, guidance=None):
        guidance, null = guidance or schedule.Guidance.recommended(), self.encode([""])
        return schedule.dpm_2m(lambda x, t: guidance.x0(self.nets["base"], x, t, text, null), noise, times)

    @torch.no_grad()
    def upscale(self, name, images, text, generator, times, noise_level=0):
        config = self.nets[name].config
        size, corners = config["sample_size"], config.get("low_res_align_corners", True)
        low = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=corners)
        x = torch.randn(low.shape, generator=generator).to(self.device)
        level = torch.full((len(x),), noise_level, device=self.device)
        low = schedule.add_noise(low, level, torch.randn(low.shape, generator=generator).to(self.device))
        return schedule.dpm_2m(lambda x, t: self.nets[name](torch.cat([x, low], 1), t, text, level), x, times)


def timesteps(stage, steps):
    return schedule.dpm_timesteps(steps) if steps else schedule.recommended_timesteps(stage)


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("out", type=pathlib.Path, help="folder of the training runs")
    args.add_argument("path", help="the sheet to write (PNG)")
    args.add_argument("--prompts", type=pathlib.Path, default=None, help="a file with one prompt per line; prompts.txt without it")
    args.add_argument("--steps", type=int, help="of the base stage, instead of what the cascade recommends")
    args.add_argument("--seed", type=int, default=0)
    args.add_argument("--stage", default="base", choices=("base", "sr256", "sr1024"))
    args.add_argument("--noise-level", type=int, default=0)
    args.add_argument("--sr-steps", type=int, help="likewise, of super-resolution")
    args.add_argument("--side", type=int, default=None)
    args.add_argument("--columns", type=int, default=8)
    args.add_argument("--limit", type=int, default=None)
    args.add_argument("--half", action="store_true", help="bfloat16 convolutions, as in training")
    args.add_argument("--device", default="cpu")
    opt = args.parse_args()
    unet.HALF = opt.half
    cascade, start = Cascade(opt.out, opt.device), time.time()
    prompts = opt.prompts.read_text().strip().split("\n") if opt.prompts else PROMPTS
    prompts = prompts[:opt.limit]
    generator = torch.Generator().manual_seed(opt.seed)
    text = cascade.encode(prompts)
    noise = torch.randn(len(prompts), 3, 64, 64, generator=generator).to(opt.device)
    images = cascade.base(text, noise, timesteps("base", opt.steps))
    for name in ("sr256", "sr1024"):
        if opt.stage != "base" and name in cascade.nets and (name == "sr256" or opt.stage == "sr1024"):
            times = timesteps(name, opt.sr_steps)
            images = torch.cat([cascade.upscale(name, images[i:i + 1], text[i:i + 1], generator, times,
                                                opt.noise_level) for i in range(len(prompts))])
    sheet.save(opt.path, sheet.to_bytes((images + 1) / 2), prompts, opt.columns, opt.side or max(128, images.shape[3]))
    print("samples seen %s, %.0f s" % (cascade.seen, time.time() - start))


if __name__ == "__main__":
    main()
