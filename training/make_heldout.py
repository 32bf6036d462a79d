"""Writes the combinations that training never sees. The files are data: run it once for heldout.json, and
with --atlas once for every wave of nouns, whose combinations are added to heldout_nouns.json.
"""

import argparse
import json
import pathlib
import random

from world import staging
from world.language import COLOUR_NAMES, SHAPES
from world.scene import HELDOUT_FILE

RELATIONS = ["left", "right", "above", "on top", "front", "behind", "next"]
# of every 100 nouns of a wave
PAIRS, COLOURS, PLACES, NUMBERS = 50, 30, 30, 30


def solids():
    rng = random.Random(1)
    colours = rng.sample(COLOUR_NAMES, 10)
    colour_shape = [[c, s] for c, s in zip(colours, rng.sample(SHAPES, 10))]
    shape_count = [[s, n] for s, n in zip(rng.sample(SHAPES, 8), [2, 3, 4, 5] * 2)]
    pairs = [[a, r, b] for a in SHAPES for r in RELATIONS for b in SHAPES if a != b]
    pair_relation = rng.sample(pairs, 50)
    return {"colour_shape": colour_shape, "shape_count": shape_count, "pair_relation": pair_relation}


def nouns_of(wave, cast):
    """Combinations of the nouns of one wave, with each other or earlier ones."""
    rng, numbers = random.Random(wave), [i for i, n in enumerate(cast.nouns) if n.wave == wave]
    earlier = [i for i, n in enumerate(cast.nouns) if n.wave <= wave]

    def some(share, of=None):
        of = numbers if of is None else of
        return rng.sample(of, min(len(of), max(1, len(numbers) * share // 100)))

    def ids(*members):
        return [cast.nouns[i].id for i in members]
    pairs = [ids(i, rng.choice([k for k in earlier if k != i])) for i in some(PAIRS)]
    colours = [ids(i) + [COLOUR_NAMES[rng.choice(cast.variants[i]) - 1]] for i in some(COLOURS, [i for i in numbers if cast.variants[i]])]
    places = []
    for i in some(PLACES):      # nothing is kept from where it is at home
        strange = [p for p, w in cast.place_weights(i, staging.PLACES).items() if w == staging.PLACES[p] and p != "plain"]
        places.append(ids(i) + [rng.choice(strange)])
    counts = [ids(i) + [rng.choice((2, 3, 4, 5))] for i in some(NUMBERS, [i for i in numbers if staging.countable(cast.nouns[i])])]
    return {"pair": pairs, "colour": colours, "place": places, "number": counts}


def write(path, data):
    text = ",\n".join(' "%s": [\n  %s\n ]' % (k, ",\n  ".join(json.dumps(r) for r in v)) for k, v in data.items())
    path.write_text("{\n" + text + "\n}\n")


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    args.add_argument("--atlas", type=pathlib.Path, help="folder of atlas.build; without it the solids")
    args.add_argument("--wave", type=int, default=1)
    opt = args.parse_args()
    if not opt.atlas:
        HELDOUT_FILE.write_text(json.dumps(solids(), indent=1) + "\n")
        return
    from atlas import Atlas
    from world.cast import Cast
    path = staging.HELDOUT_FILE
    data = json.loads(path.read_text()) if path.exists() else {"pair": [], "colour": [], "place": [], "number": []}
    for kind, rows in nouns_of(opt.wave, Cast.of(Atlas(opt.atlas, sides=()))).items():
        data[kind] += rows
    write(path, data)


if __name__ == "__main__":
    main()
