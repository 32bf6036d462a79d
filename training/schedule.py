"""The noise schedule (squaredcos_cap_v2, 1000 steps) and the samplers, as diffusers computes them."""

import functools
import json
import math
import pathlib

import torch

STEPS = 1000
CASCADE_FILE = pathlib.Path(__file__).parent / "config/cascade/cascade.json"


def alphas_cumprod():
    def bar(t):
        return math.cos((t + .008) / 1.008 * math.pi / 2) ** 2
    betas = [min(1 - bar((i + 1) / STEPS) / bar(i / STEPS), .999) for i in range(STEPS)]
    return torch.cumprod(1 - torch.tensor(betas, dtype=torch.float32), 0)


ACP = alphas_cumprod()


@functools.lru_cache(None)
def _signal(device):
    """ACP with 1 behind it, for -1, where no noise is left."""
    return torch.cat([ACP, torch.ones(1)]).to(device)


def signal_noise(t):
    """(alpha, sigma) of integer timesteps, each [N, 1, 1, 1]; (1, 0) at -1, where no noise is left."""
    acp = _signal(t.device)[t][:, None, None, None]
    return acp.sqrt(), (1 - acp).sqrt()


def add_noise(x, t, noise):
    alpha, sigma = signal_noise(t)
    return alpha * x + sigma * noise


def stratified_timesteps(n, generator=None, device="cpu", focus=1., first=200):
    """n rising timesteps, one from each n-th of the schedule; those from `first` on `focus` times as often as others."""
    u = (torch.arange(n, device=device) + torch.rand(n, generator=generator, device=device)) / n
    first /= STEPS
    at = u * (first + focus * (1 - first))  # the rising line through the two parts, turned round
    u = torch.where(at < first, at, first + (at - first) / focus)
    return (u * STEPS).long().clamp(max=STEPS - 1)


def x0_weight(t, cap=6.):
    """min-SNR weighting, for the error of x0."""
    _, sigma = signal_noise(t)
    return (1 / sigma[:, 0, 0, 0] ** 2).clamp(max=cap)


def _recommended(stage, file):
    return next(s for s in json.loads(file.read_text())["stages"] if s["path"] == stage)


def recommended_timesteps(stage, file=CASCADE_FILE):
    """Those that a cascade's file gives a stage, for DPM-Solver++(2M)."""
    settings = _recommended(stage, file)
    return torch.tensor(settings["timesteps"]) if "timesteps" in settings else dpm_timesteps(settings["steps"])


class Guidance:
    """Classifier-free guidance at the timesteps first..last; elsewhere the text branch alone."""

    def __init__(self, scale, first=0, last=STEPS):
        self.scale, self.first, self.last = scale, first, last

    @staticmethod
    def recommended():
        """That of the cascade's base stage."""
        stage = _recommended("base", CASCADE_FILE)
        return Guidance(stage["guidance_scale"], *stage["guidance_interval"])

    def x0(self, net, x, t, text, null):
        """t: [N]; null: the text of an empty prompt, [1, L, D]."""
        x0 = net(x, t, text)
        guided = (t >= self.first) & (t <= self.last)
        if self.scale != 1 and guided.any():
            without = net(x[guided], t[guided], null.expand_as(text[guided]))
            x0[guided] = without + self.scale * (x0[guided] - without)
        return x0


def dpm_timesteps(steps):
    """linspace spacing: from STEPS - 1 down, the last step ends at no noise."""
    return torch.linspace(0, STEPS - 1, steps + 1).round().flip(0)[:-1].long()


def trailing_timesteps(steps):
    """trailing spacing: STEPS - 1 and on down in equal strides, as few-step samplers want it."""
    return (torch.arange(steps, 0, -1).double() * STEPS / steps).round().long() - 1


def ddim_step(x, x0, t, after):
    """From timesteps t to the later ones `after` (eta 0), each [N]."""
    (alpha, sigma), (alpha_after, sigma_after) = signal_noise(t), signal_noise(after)
    return alpha_after * x0 + sigma_after / sigma * (x - alpha * x0)


@torch.no_grad()
def ddim(model, x, steps):
    """DDIM (eta 0) with trailing timesteps, x0-prediction clipped to [-1, 1]; model(x, t) -> x0."""
    times = trailing_timesteps(steps)
    acp = torch.cat([ACP[times].double(), torch.ones(1)])
    alphas, sigmas = acp.sqrt().tolist(), (1 - acp).sqrt().tolist()
    for i, t in enumerate(times.tolist()):
        x0 = model(x, torch.full((len(x),), t, device=x.device)).clamp(-1, 1)
        x = alphas[i + 1] * x0 + sigmas[i + 1] / sigmas[i] * (x - alphas[i] * x0)
    return x


@torch.no_grad()
def dpm_2m(model, x, times):
    """DPM-Solver++(2M), x0-prediction clipped to [-1, 1]; model(x, t) -> x0. times: falling timesteps."""
    steps = len(times)
    acp = ACP[times].double()
    alphas = torch.cat([acp.sqrt(), torch.ones(1)]).tolist()
    sigmas = torch.cat([(1 - acp).sqrt(), torch.zeros(1)]).tolist()
    lambdas = [math.log(a / s) if s > 0 else math.inf for a, s in zip(alphas, sigmas)]
    before, before_h = None, None
    for i, t in enumerate(times.tolist()):
        x0 = model(x, torch.full((len(x),), t, device=x.device)).clamp(-1, 1)
        h = lambdas[i + 1] - lambdas[i]
        if before is None or i == steps - 1:      # first order at both ends
            d = x0
        else:
            d = x0 + (x0 - before) * (h / before_h / 2)
        x = x * (sigmas[i + 1] / sigmas[i]) - alphas[i + 1] * math.expm1(-h) * d
        before, before_h = x0, h
    return x
