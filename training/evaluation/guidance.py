"""Scores and burnt pixels over the guidance scale of the base stage."""

from sheet import to_bytes
from world import scene as worlds
from world.render import render

from .engine import tensor
from .judge import judge, mean

SCALES = (1, 2, 3, 5, 7, 10)
COLUMNS = ("shape", "colour", "count", "scene", "whole")


def burnt(pictures):
    """Share of pixels with a channel at its end, black or full."""
    images = (tensor(pictures) + 1) * 127.5
    return ((images < .5) | (images > 254.5)).any(1).float().mean().item()


def run(context):
    each = max(16, context.count // 3)
    layouts = ("single", "next")
    scenes = [worlds.sample(context.seed + 9 * 10 ** 6 + i, context.mix, layouts[i % 2], True)
              for i in range(each)]
    captions, rows = [s.caption for s in scenes], {}

    def score(pictures):
        scored = mean([judge(s, d) for s, d in zip(scenes, context.see(pictures))])
        return dict({c: scored[c] for c in COLUMNS}, burnt=burnt(pictures))
    for scale in SCALES:
        pictures = context.engine.draw(captions, context.seed, options=["--guidance", str(scale)])
        rows[str(scale)] = score(pictures)
        context.add_to_sheet("guidance %d" % scale, pictures, captions)
    rows["exact renders"] = score(to_bytes(render(scenes, 64)))
    lines = ["| guidance, %d pictures each | %s | pixels at an end of the range |" % (each, " | ".join(COLUMNS)),
             "|---" * (2 + len(COLUMNS)) + "|"]
    for scale, r in rows.items():
        lines.append("| %s | %s | %.2f %% |" % (
            scale, " | ".join("%.2f" % r[c] for c in COLUMNS), 100 * r["burnt"]))
    return {"pictures": each, "scales": rows}, lines
