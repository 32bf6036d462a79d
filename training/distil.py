"""Distils the base stage into one that draws in a few steps and without the second, unconditional
pass: the `fast` preset.

The student starts as a copy of the teacher (EMA weights) and learns, at each of its own timesteps,
the x0 with which one DDIM step lands where the teacher lands after several guided ones (Salimans and
Ho, Progressive Distillation, 2022; Meng et al., On Distillation of Guided Diffusion Models, 2023).
`--out` resumes by itself.
"""

import threads  # noqa: F401  (before torch)

import argparse
import copy
import pathlib
import time

import torch
import torch.nn.functional as F

import run
import schedule
import train_base
from nets import t5, tokenizer, unet
from optimiser import Optimiser


def ladder(steps, parts):
    """[steps, parts + 1] timesteps: each step of the student and the teacher's within it; the last
    entry of a row is the next row's first, and -1 (no noise) at the end."""
    starts = schedule.trailing_timesteps(steps).tolist() + [-1]
    return torch.tensor([[round(a + (b - a) * k / parts) for k in range(parts + 1)]
                         for a, b in zip(starts, starts[1:])])


def signal_noise(t):
    """As schedule.signal_noise, and (1, 0) at t = -1."""
    alpha, sigma = schedule.signal_noise(t.clamp(min=0))
    end = (t < 0)[:, None, None, None]
    return alpha.masked_fill(end, 1.), sigma.masked_fill(end, 0.)


def ddim(x, x0, t, after):
    (a, s), (a2, s2) = signal_noise(t), signal_noise(after)
    return a2 * x0 + s2 / s * (x - a * x0)


@torch.no_grad()
def teacher_target(teacher, guidance, x, times, text, null):
    """The x0 of the one step from times[:, 0] to times[:, -1] that the teacher's steps amount to."""
    at = x
    both = torch.cat([text, null.expand_as(text)])
    for t, after in zip(times.T[:-1], times.T[1:]):
        with_text, without = teacher(torch.cat([at, at]), torch.cat([t, t]), both).chunk(2)
        x0 = (without + guidance * (with_text - without)).clamp(-1, 1)
        at = ddim(at, x0, t, after)
    (a, s), (a2, s2) = signal_noise(times[:, 0]), signal_noise(times[:, -1])
    return (at - s2 / s * x) / (a2 - a * s2 / s)


def losses(opt, net, teacher, encoder, null, images, ids, maps):
    n = len(images)
    with torch.no_grad():
        text = encoder(ids, (ids != 0).long())
    rungs = ladder(opt.steps, opt.parts).to(images.device)
    times = rungs[(torch.arange(n, device=images.device) + torch.randint(0, opt.steps, (1,)).item()) % opt.steps]
    noisy = schedule.add_noise(images, times[:, 0], torch.randn_like(images))
    target = teacher_target(teacher, opt.guidance, noisy, times, text, null)
    x0 = net(noisy, times[:, 0], text)
    inside = F.interpolate((maps[:, :1] > 0).float(), size=images.shape[2:], mode="bilinear")
    error = (x0 - target).pow(2)
    per_picture = (error * (1 + opt.object_weight * inside)).mean((1, 2, 3))
    loss = (per_picture * schedule.x0_weight(times[:, 0])).mean()
    return loss, {"loss": loss.detach(), "mse": error.detach().mean()}


def work(opt):
    torch.manual_seed(1)
    unet.HALF = opt.device == "cpu"
    saved_text = torch.load(opt.text / "text.pt", map_location=opt.device)
    encoder = t5.T5Encoder(saved_text["config"]).to(opt.device).requires_grad_(False)
    encoder.load_state_dict(saved_text["model"])
    tok = tokenizer.Tokenizer(opt.text / "spiece.model")
    ids, mask = (v.to(opt.device) for v in tok.encode([""]))
    null = encoder(ids, mask)
    source = torch.load(opt.teacher / "state.pt", map_location=opt.device)
    teacher = unet.UNet(source["config"]).to(opt.device).requires_grad_(False)
    teacher.load_state_dict(source["ema"])
    net = copy.deepcopy(teacher).requires_grad_(True)
    optimiser = Optimiser(net, (), opt.muon)
    ema, seen, seconds = run.Ema(net), 0, 0.
    checkpoint = run.Checkpoint(opt.out)
    state = checkpoint.load(opt.device)
    if state:
        net.load_state_dict(state["net"])
        ema.net.load_state_dict(state["ema"])
        optimiser.load_state_dict(state["optimiser"])
        ema.steps, seen, seconds = state["ema_steps"], state["seen"], state["seconds"]
    torch.manual_seed(1000 + seen)
    pool = train_base.Pool(opt, tok, opt.data_seed + seen)
    progress = run.Progress(opt.out, 0, opt.samples, seen, seconds)
    step, next_save = 0, time.time() + 60 * opt.save_minutes
    while seen < opt.samples:
        rate = run.learning_rate(opt, seen)
        loss, parts = losses(opt, net, teacher, encoder, null, *pool.batch(opt.batch))
        loss.backward()
        optimiser.step(rate)
        seen += opt.batch
        step += 1
        ema.update(net, opt.ema)
        progress.add(**parts)
        if step % opt.report_every == 0:
            progress.report(seen, rate)
        if time.time() > next_save or seen >= opt.samples:
            checkpoint.save({
                "config": net.config, "net": net.state_dict(), "ema": ema.net.state_dict(),
                "ema_steps": ema.steps, "optimiser": optimiser.state_dict(), "seen": seen,
                "seconds": progress.seconds()})
            next_save = time.time() + 60 * opt.save_minutes


def options():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    args.add_argument("--out", type=pathlib.Path, required=True)
    args.add_argument("--teacher", type=pathlib.Path, required=True, help="folder of train_base.py")
    args.add_argument("--text", type=pathlib.Path, required=True, help="folder of train_text.py")
    args.add_argument("--mix", default=None, help="JSON of world.scene.Mix; the full world without it")
    args.add_argument("--steps", type=int, default=6, help="of the student, over the whole schedule")
    args.add_argument("--parts", type=int, default=3, help="steps of the teacher in one of the student's")
    args.add_argument("--guidance", type=float, default=3.)
    args.add_argument("--samples", type=int, default=40000)
    args.add_argument("--decay-from", type=int, default=1)
    args.add_argument("--rate", type=float, default=8e-4)
    args.add_argument("--warmup", type=int, default=1000)
    args.add_argument("--batch", type=int, default=12)
    args.add_argument("--muon", type=int, default=1)
    args.add_argument("--ema", type=float, default=.998)
    args.add_argument("--object-weight", type=float, default=4.)
    args.add_argument("--reuse", type=float, default=2.)
    args.add_argument("--pool", type=int, default=8192)
    args.add_argument("--data-seed", type=int, default=3 * 10 ** 9)
    args.add_argument("--save-minutes", type=float, default=2.)
    args.add_argument("--report-every", type=int, default=50)
    args.add_argument("--device", default="cpu")
    return args.parse_args()


if __name__ == "__main__":
    work(options())
