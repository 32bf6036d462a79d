"""Contact sheets: the prompts of prompts.txt at every size, seed 0 and up, nothing picked."""

import sheet
from sample import PROMPTS

# picture size: columns, and the edge that a picture has on the sheet
SIZES = {64: (8, 128), 256: (8, 256), 1024: (6, 384)}


def run(context):
    results, lines = {}, ["| sheet | pictures | MB |", "|---|---|---|"]
    for size, (columns, side) in SIZES.items():
        pictures = context.engine.draw(PROMPTS, 0, size)
        path = context.out / ("contact%d.jpg" % size)
        sheet.save(path, pictures, PROMPTS, columns, side)
        results[path.name] = {"pictures": len(pictures), "bytes": path.stat().st_size}
        lines.append("| %s | %d | %.2f |" % (path.name, len(pictures), path.stat().st_size / 1e6))
        context.say(lines[-1])
    return results, lines
