"""Distils the base stage into one that draws in a few steps and without the second, unconditional
pass: the `fast` preset.

The student starts as a copy of the teacher (EMA weights) and learns, at each of its own timesteps,
the x0 with which one DDIM step lands where the teacher lands after several guided ones (Salimans and
Ho, Progressive Distillation, 2022; Meng et al., On Distillation of Guided Diffusion Models, 2023).
`--out` resumes by itself.
"""

import threads  # noqa: F401  (before torch)

import argparse
import functools
import pathlib

import torch

import composing
import run
import schedule
from optimiser import Optimiser


def ladder(steps, parts):
    """[steps, parts + 1] timesteps: each step of the student and the teacher's within it; the last
    entry of a row is the next row's first, and -1 (no noise) at the end."""
    starts = schedule.trailing_timesteps(steps).tolist() + [-1]
    return torch.tensor([[round(a + (b - a) * k / parts) for k in range(parts + 1)]
                         for a, b in zip(starts, starts[1:])])


@torch.no_grad()
def teacher_target(teacher, guidance, x, times, text, null):
    """The x0 of the one step from times[:, 0] to times[:, -1] that the teacher's steps amount to."""
    at = x
    for t, after in zip(times.T[:-1], times.T[1:]):
        x0 = guidance.x0(teacher, at, t, text, null).clamp(-1, 1)
        at = schedule.ddim_step(at, x0, t, after)
    (a, s), (a2, s2) = schedule.signal_noise(times[:, 0]), schedule.signal_noise(times[:, -1])
    return (at - s2 / s * x) / (a2 - a * s2 / s)


def losses(opt, net, teacher, guidance, null, images, text, maps, mask):
    n = len(images)
    rungs = ladder(opt.steps, opt.parts).to(images.device)
    times = rungs[(torch.arange(n, device=images.device) + torch.randint(0, opt.steps, (1,)).item()) % opt.steps]
    noisy = schedule.add_noise(images, times[:, 0], torch.randn_like(images))
    target = teacher_target(teacher, guidance, noisy, times, text, null)
    x0 = net(noisy, times[:, 0], text)
    error = (x0 - target).pow(2)
    per_picture = (error * (1 + opt.object_weight * mask)).mean((1, 2, 3))
    loss = (per_picture * schedule.x0_weight(times[:, 0])).mean()
    return loss, {"loss": loss.detach(), "mse": error.detach().mean()}


def work(rank, opt, average):
    torch.manual_seed(1)
    run.choose_arithmetic(opt.device)
    encoder, tok = run.load_text(opt.text, opt.device)
    ids, mask = (v.to(opt.device) for v in tok.encode([""]))
    net, teacher = run.load_net(opt.teacher, opt.device), run.load_net(opt.teacher, opt.device).requires_grad_(False)
    run.loop(rank, opt, average, net, Optimiser(net, (), opt.muon),
             functools.partial(composing.pool, opt, encoder, tok, untold=0.),
             functools.partial(losses, opt, net, teacher, schedule.Guidance.recommended(), encoder(ids, mask)))


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    args.add_argument("--teacher", type=pathlib.Path, required=True, help="folder of train_base.py")
    composing.options(args)
    args.add_argument("--steps", type=int, default=5, help="of the student, over the whole schedule")
    args.add_argument("--parts", type=int, default=4, help="steps of the teacher in one of the student's")
    opt = run.options(args, samples=40000, rate=8e-4, warmup=1000, pool=8192, ema=.998, decay_from=1,
                      data_seed=3 * 10 ** 9).parse_args()
    run.start(opt, work, run.load_net(opt.teacher, opt.device))


if __name__ == "__main__":
    main()
