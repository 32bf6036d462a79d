"""Writes heldout.json: the combinations that training never sees. Run once; the file is data."""

import json
import random

from world.language import COLOUR_NAMES, SHAPES
from world.scene import HELDOUT_FILE

RELATIONS = ["left", "right", "above", "on top", "front", "behind", "next"]


def main():
    rng = random.Random(1)
    colours = rng.sample(COLOUR_NAMES, 10)
    colour_shape = [[c, s] for c, s in zip(colours, rng.sample(SHAPES, 10))]
    shape_count = [[s, n] for s, n in zip(rng.sample(SHAPES, 8), [2, 3, 4, 5] * 2)]
    pairs = [[a, r, b] for a in SHAPES for r in RELATIONS for b in SHAPES if a != b]
    pair_relation = rng.sample(pairs, 50)
    HELDOUT_FILE.write_text(json.dumps({
        "colour_shape": colour_shape, "shape_count": shape_count, "pair_relation": pair_relation,
    }, indent=1) + "\n")


if __name__ == "__main__":
    main()
