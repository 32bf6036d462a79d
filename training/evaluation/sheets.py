"""Contact sheets, nothing picked, seed 0 and up: combinations of nouns that training never saw, at every size, and
what a new user types first, at 1024 px. Without an atlas, the prompts of prompts.txt."""

import pathlib

import sheet
from sample import PROMPTS

from .nouns import HELD_OUT, Maker

# picture size: columns, and the edge that a picture has on the sheet
SIZES = {64: (12, 128), 256: (12, 256), 1024: (12, 320)}
FIRST = pathlib.Path(__file__).parent.parent / "prompts_first.txt"
FIRST_COLUMNS, FIRST_SIDE = 6, 288
OF_EACH = 24        # prompts of each kind of held-out combination


def held_out(context):
    """Captions of combinations that training never saw."""
    if not context.cast:
        return PROMPTS
    maker = Maker(context)
    maker.count = OF_EACH
    return [s.caption for kind in HELD_OUT for s in maker.held_out(kind)]


def run(context):
    results, lines = {}, ["| sheet | pictures | MB |", "|---|---|---|"]
    prompts, first = held_out(context), FIRST.read_text().strip().split("\n")
    sheets = [("contact%d.jpg" % size, prompts, size, *shown) for size, shown in SIZES.items()]
    for name, asked, size, columns, side in sheets + [("readme.jpg", first, 1024, FIRST_COLUMNS, FIRST_SIDE)]:
        path = context.out / name
        sheet.save(path, context.engine.draw(asked, 0, size), asked, columns, side)
        results[name] = {"pictures": len(asked), "bytes": path.stat().st_size}
        lines.append("| %s | %d | %.2f |" % (name, len(asked), path.stat().st_size / 1e6))
        context.say(lines[-1])
    return results, lines
