"""The super-resolution stages on scenes with combinations that training never saw, of solids and, with an
atlas, of nouns: PSNR against bicubic enlargement of exact renders, in one step, which draws what is
likeliest, and as recommended, which also draws what cannot be known (in torch, from renders that are not
rounded to bytes); how much fine detail the pictures of the engine have, and how much on plain walls, where
there should be none.
"""

import dataclasses
import itertools

import torch
import torch.nn.functional as F

import schedule
from evaluation.engine import tensor
from sample import Cascade
from world import scene as worlds
from world import staging
from world.render import render

from .nouns import MIX

# stage: sizes, and how many pictures for every 100 prompts of the other parts
SIZES = {"sr256": (64, 256, 64), "sr1024": (256, 1024, 24)}
PLAIN = ["a %s %s on a gray background" % thing for thing in
         (("red", "ball"), ("orange", "cone"), ("white", "ring"), ("blue", "cube"))]


def psnr(a, b):
    return float(-10 * torch.log10((a - b).pow(2).mean() / 4))


def worlds_of(context):
    """What the scenes show -> a function from a seed to a scene."""
    kinds = {"solids": lambda seed: worlds.sample(seed, context.mix, None, True)}
    if context.cast:
        mix = dataclasses.replace(MIX, nouns=[n.id for n in context.atlas.nouns
                                              if not context.waves or n.wave in context.waves])
        kinds["nouns"] = lambda seed: staging.sample(seed, mix, context.cast, held_out=True)
    return kinds


def compare(context, cascade, stage, sample, count, times):
    """(PSNR of the stage, PSNR of bicubic), means over the pictures."""
    low_res, high_res, _ = SIZES[stage]
    rows, generator = [], torch.Generator().manual_seed(1)
    for i in range(count):
        s = sample(context.seed + 2 * 10 ** 9 + i)
        low, high = (render([s], r, atlas=context.atlas) * 2 - 1 for r in (low_res, high_res))
        drawn = cascade.upscale(stage, low, cascade.encode([s.caption]), generator, times)
        bicubic = F.interpolate(low, size=(high_res, high_res), mode="bicubic", align_corners=False)
        rows.append((psnr(drawn, high), psnr(bicubic.clamp(-1, 1), high)))
    return [sum(r[k] for r in rows) / count for k in (0, 1)]


def recommended(context, stage):
    return schedule.recommended_timesteps(stage, context.model / "cascade.json")


def detail(images):
    """RMS of what is finer than three pixels, mean over the pictures; images: [N, 3, H, W] in 0..1."""
    return float((images - F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)).pow(2).mean(
        (1, 2, 3)).sqrt().mean())


def fidelity(context, cascade, results):
    lines = ["| stage | scenes of | pictures | steps | PSNR | bicubic | gain |", "|---|---|---|---|---|---|---|"]
    for stage, kind, times in itertools.product(SIZES, worlds_of(context).items(), ("one", "recommended")):
        if stage in cascade.nets:
            low_res, high_res, pictures = SIZES[stage]
            count = max(1, pictures * context.count // 100)
            times = schedule.dpm_timesteps(1) if times == "one" else recommended(context, stage)
            mine, bicubic = compare(context, cascade, stage, kind[1], count, times)
            results["%s, %s, steps %d" % (stage, kind[0], len(times))] = {
                "pictures": count, "steps": len(times), "psnr": round(mine, 2), "bicubic": round(bicubic, 2)}
            lines.append("| %d to %d px | %s | %d | %d | %.2f dB | %.2f dB | %+.2f dB |" % (
                low_res, high_res, kind[0], count, len(times), mine, bicubic, mine - bicubic))
            context.say(lines[-1])
    return lines


def crispness(context, results):
    """Fine detail of pictures that the engine draws, beside that of exact renders of the same scenes."""
    lines = ["| drawn, fine detail / exact renders | pictures | bicubic | drawn |", "|---|---|---|---|"]
    for stage, (low_res, high_res, pictures) in SIZES.items():
        count = max(1, pictures * context.count // 100)
        scenes = [worlds.sample(context.seed + 3 * 10 ** 9 + i, context.mix, None, True) for i in range(count)]
        captions = [s.caption for s in scenes]
        low, high = (tensor(context.engine.draw(captions, 0, r)) / 2 + .5 for r in (low_res, high_res))
        bicubic = F.interpolate(low, size=(high_res, high_res), mode="bicubic", align_corners=False).clamp(0, 1)
        exact = sum(detail(render([s], high_res)) for s in scenes) / count
        row = {"bicubic": round(detail(bicubic) / exact, 3), "drawn": round(detail(high) / exact, 3)}
        results["%s, detail" % stage] = dict(row, pictures=count)
        lines.append("| %d to %d px | %d | %.2f | %.2f |" % (low_res, high_res, count, *row.values()))
        context.say(lines[-1])
    return lines


def mottle(context, results):
    """Fine detail of the upper quarter of plain backdrops, drawn in one step per stage, at the recommended
    timesteps, and at one more than these, evenly spaced. What one step has is the noise of noise level 0."""
    lines = ["| plain walls, fine detail | pictures | one step | recommended | evenly spaced |", "|---|---|---|---|---|"]
    one, even = ([str(len(recommended(context, "base")))] for _ in range(2))
    for stage, (_, size, _) in SIZES.items():
        one.append("1")
        even.append(str(len(recommended(context, stage)) + 1))
        row = [detail(tensor(context.engine.draw(PLAIN, 0, size, options))[:, :, :size // 4] / 2 + .5)
               for options in (["--steps", ",".join(one)], [], ["--steps", ",".join(even)])]
        results["%s, mottle" % stage] = dict(zip(("one step", "recommended", "even"), row), pictures=len(PLAIN))
        lines.append("| %d px | %d | %.5f | %.5f | %.5f |" % (size, len(PLAIN), *row))
        context.say(lines[-1])
    return lines


def run(context):
    results = {}
    lines = fidelity(context, Cascade(context.model), results)
    return results, lines + [""] + crispness(context, results) + [""] + mottle(context, results)
