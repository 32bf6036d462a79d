"""PSNR of the super-resolution stages against bicubic enlargement, on exact renders of scenes with
combinations that training never saw. In torch: the engine takes no picture from outside."""

import torch
import torch.nn.functional as F

from sample import Cascade
from world import scene as worlds
from world.render import render

# stage: sizes, and how many pictures for every 100 prompts of the other parts
SIZES = {"sr256": (64, 256, 64), "sr1024": (256, 1024, 24)}


def psnr(a, b):
    return float(-10 * torch.log10((a - b).pow(2).mean() / 4))


def compare(context, cascade, stage, count, steps, noise_level):
    """(PSNR of the stage, PSNR of bicubic), means over the pictures."""
    low_res, high_res, _ = SIZES[stage]
    rows, generator = [], torch.Generator().manual_seed(1)
    for i in range(count):
        s = worlds.sample(context.seed + 2 * 10 ** 9 + i, context.mix, None, True)
        low, high = (render([s], r) * 2 - 1 for r in (low_res, high_res))
        drawn = cascade.upscale(stage, low, cascade.encode([s.caption]), generator, steps, noise_level)
        bicubic = F.interpolate(low, size=(high_res, high_res), mode="bicubic", align_corners=False)
        rows.append((psnr(drawn, high), psnr(bicubic.clamp(-1, 1), high)))
    return [sum(r[k] for r in rows) / count for k in (0, 1)]


def run(context):
    cascade, results = Cascade(context.model), {}
    lines = ["| stage | pictures | steps | PSNR | bicubic | gain |", "|---|---|---|---|---|---|"]
    for stage, (low_res, high_res, pictures) in SIZES.items():
        count = max(1, pictures * context.count // 100)
        for steps in (1, 2):
            mine, bicubic = compare(context, cascade, stage, count, steps, 0)
            results["%s, steps %d" % (stage, steps)] = {
                "pictures": count, "steps": steps, "psnr": round(mine, 2), "bicubic": round(bicubic, 2)}
            lines.append("| %d to %d px | %d | %d | %.2f dB | %.2f dB | %+.2f dB |" % (
                low_res, high_res, count, steps, mine, bicubic, mine - bicubic))
            context.say(lines[-1])
    return results, lines
