"""vocabulary.json: what a model knows, for the page, the API and whoever reads the folder.

    known.py out/atlas vocabulary.json --waves 1 2

Written by export.py as well. `nouns` have all the words that captions call them by (singular, plural, kinds,
other languages), from which the server also tells which words of a prompt mean nothing to the model.
"""

import argparse
import json
import pathlib

from world import foreign
from world.language import (BACKDROPS, COLOUR_NAMES, COLOUR_WORDS, GROUND_WORDS, NUMBERS, PATTERN_WORDS, PATTERNS, PLURALS,
                            SHAPE_WORDS, SHAPES, SIZE_WORDS, SOLIDS, TIME_WORDS, WEATHER_WORDS)
from world.sentences import MORE_RELATIONS, RELATION_WORDS

FORMAT = 1
WHERE = ("on a wooden table", "on the beach", "in the snow", "on green grass", "at sunset", "at night",
         "in the forest", "on a white background")


def _unique(words):
    return list(dict.fromkeys(w for w in words if w))


def _noun(noun, coloured, place):
    entry = {"name": noun.name, "category": noun.category,
             "words": _unique(form for n in noun.names for form in (n.singular, n.plural)),
             "colours": coloured, "example": "%s %s" % (" ".join(filter(None, (noun.names[0].article, noun.name))), place)}
    others = {language: _unique(form for w in names.get(noun.id, ()) for form in (w.singular, w.plural))
              for language, names in foreign.table().items()}
    others = {language: words for language, words in others.items() if words}
    return dict(entry, languages=others) if others else entry


def _shape(name):
    words = _unique(SHAPE_WORDS.get(name, []) + [name])
    others = {language: _unique(words[name].split("/")[:2]) for language, words in foreign.SOLIDS.items()}
    return {"name": name, "words": _unique(words + [PLURALS.get(w, w + "s") for w in words]), "colours": True,
            "patterns": name in SOLIDS, "example": "a red %s on a wooden table" % name, "languages": others}


def vocabulary(atlas, waves=None):
    """As data; atlas: anything with nouns and their index of variants."""
    nouns = []
    for i, noun in enumerate(atlas.nouns):
        if waves is None or noun.wave in waves:
            nouns.append(_noun(noun, bool((atlas.index[i, 1:] >= 0).any()), WHERE[len(nouns) % len(WHERE)]))
    relations = {name: _unique(words + MORE_RELATIONS.get(name, [])) for name, words in RELATION_WORDS.items()}
    return {
        "format": FORMAT, "languages": list(foreign.languages()),
        "categories": _unique(n["category"] for n in nouns), "nouns": nouns, "shapes": [_shape(s) for s in SHAPES],
        "colours": {c: _unique(COLOUR_WORDS.get(c, [c])) for c in COLOUR_NAMES},
        "patterns": {p: PATTERN_WORDS[p] for p in PATTERNS[1:]},
        "sizes": {s: _unique(words) for s, words in SIZE_WORDS.items()},
        "numbers": {str(n): words for n, words in NUMBERS.items()}, "relations": relations,
        "places": {p: _unique(words) for p, words in GROUND_WORDS.items()},
        "backgrounds": ["on a %s background" % b for b in BACKDROPS],
        "times": {t: _unique(words) for t, words in TIME_WORDS.items()},
        "weather": {w: _unique(words) for w, words in WEATHER_WORDS.items()},
    }


def write(path, atlas, waves=None):
    data = vocabulary(atlas, waves)
    lines = ["  " + json.dumps(n, ensure_ascii=False) for n in data.pop("nouns")]
    rest = json.dumps(data, ensure_ascii=False, indent=1)
    path.write_text('%s,\n "nouns": [\n%s\n ]\n}\n' % (rest[:-2], ",\n".join(lines)), encoding="utf-8")


def main():
    from atlas import Atlas
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    args.add_argument("atlas", type=pathlib.Path)
    args.add_argument("path", type=pathlib.Path)
    args.add_argument("--waves", type=int, nargs="*")
    opt = args.parse_args()
    write(opt.path, Atlas(opt.atlas, sides=()), opt.waves)


if __name__ == "__main__":
    main()
