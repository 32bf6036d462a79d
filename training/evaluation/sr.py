"""The super-resolution stages on scenes with combinations that training never saw: PSNR against bicubic
enlargement of exact renders, in one step, which draws what is likeliest, and as recommended, which also
draws what cannot be known (in torch: the engine takes no picture from outside); and how much fine detail
the pictures of the engine have.
"""

import torch
import torch.nn.functional as F

import schedule
from evaluation.engine import tensor
from sample import Cascade
from world import scene as worlds
from world.render import render

# stage: sizes, and how many pictures for every 100 prompts of the other parts
SIZES = {"sr256": (64, 256, 64), "sr1024": (256, 1024, 24)}


def psnr(a, b):
    return float(-10 * torch.log10((a - b).pow(2).mean() / 4))


def compare(context, cascade, stage, count, times):
    """(PSNR of the stage, PSNR of bicubic), means over the pictures."""
    low_res, high_res, _ = SIZES[stage]
    rows, generator = [], torch.Generator().manual_seed(1)
    for i in range(count):
        s = worlds.sample(context.seed + 2 * 10 ** 9 + i, context.mix, None, True)
        low, high = (render([s], r) * 2 - 1 for r in (low_res, high_res))
        drawn = cascade.upscale(stage, low, cascade.encode([s.caption]), generator, times)
        bicubic = F.interpolate(low, size=(high_res, high_res), mode="bicubic", align_corners=False)
        rows.append((psnr(drawn, high), psnr(bicubic.clamp(-1, 1), high)))
    return [sum(r[k] for r in rows) / count for k in (0, 1)]


def detail(images):
    """RMS of what is finer than three pixels, mean over the pictures; images: [N, 3, H, W] in 0..1."""
    return float((images - F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)).pow(2).mean(
        (1, 2, 3)).sqrt().mean())


def fidelity(context, cascade, results):
    lines = ["| stage | pictures | steps | PSNR | bicubic | gain |", "|---|---|---|---|---|---|"]
    for stage, (low_res, high_res, pictures) in SIZES.items():
        count = max(1, pictures * context.count // 100)
        for times in (schedule.dpm_timesteps(1), schedule.recommended_timesteps(stage)):
            mine, bicubic = compare(context, cascade, stage, count, times)
            results["%s, steps %d" % (stage, len(times))] = {
                "pictures": count, "steps": len(times), "psnr": round(mine, 2), "bicubic": round(bicubic, 2)}
            lines.append("| %d to %d px | %d | %d | %.2f dB | %.2f dB | %+.2f dB |" % (
                low_res, high_res, count, len(times), mine, bicubic, mine - bicubic))
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


def run(context):
    results = {}
    lines = fidelity(context, Cascade(context.model), results) + [""] + crispness(context, results)
    return results, lines
