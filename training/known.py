"""vocabulary.json: what a model knows, for the page, the API and whoever reads the folder.

    known.py out/atlas vocabulary.json --waves 1 2

Written by export.py as well. `nouns` have all the words that captions call them by (singular, plural, kinds,
other languages), from which the server also tells which prompts name nothing that the model knows; `other_words`
are all the rest of the captions. With `--waves` and no number: what a model of the eleven solids knows.
"""

import argparse
import json
import pathlib

from world import foreign, sentences
from world.language import (BACKDROPS, COLOUR_NAMES, COLOUR_WORDS, EMPTY_WORDS, GROUND_WORDS, GROUNDS, NUMBERS,
                            PATTERN_WORDS, PATTERNS, PLURALS, SHAPE_WORDS, SHAPES, SIZE_WORDS, SOLIDS, TIME_WORDS,
                            WEATHER_WORDS)
from world.sentences import MORE_RELATIONS, RELATION_WORDS

FORMAT = 1
SOLID_GROUNDS = GROUNDS[:6]         # those of scene.py
FUNCTION_WORDS = ["a", "an", "the", "of", "in", "on", "at", "to", "and", "with", "by", "is", "are", "its", "it", "this",
                  "that", "some", "very", "background", "color", "colour", "colored", "coloured"]
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


def _flat(*tables):
    """All texts in nested dicts and lists; "|" stands between alternatives."""
    for table in tables:
        if isinstance(table, str):
            yield from table.split("|")
        else:
            yield from _flat(*(table.values() if isinstance(table, dict) else table))


def _other_words(grounds, weather, languages):
    """The words of captions that name no thing."""
    english = _flat(COLOUR_NAMES, COLOUR_WORDS, PATTERN_WORDS, SIZE_WORDS, NUMBERS, RELATION_WORDS, MORE_RELATIONS,
                    sentences.KINDS_OF_PICTURE, sentences.REQUESTS, sentences.ENDINGS, sentences.MORE_PRAISE, sentences.SOME,
                    sentences.VERBS, sentences.FLYING, FUNCTION_WORDS, list(BACKDROPS), TIME_WORDS, weather,
                    [[GROUND_WORDS.get(g, []), EMPTY_WORDS.get(g, [])] for g in grounds])
    words = [word for text in english for word in text.split()]
    for language in languages:
        words += foreign.other_words(language)
    return sorted(set(words))


def _shape(name, languages):
    words = _unique(SHAPE_WORDS.get(name, []) + [name])
    entry = {"name": name, "words": _unique(words + [PLURALS.get(w, w + "s") for w in words]), "colours": True,
             "patterns": name in SOLIDS, "example": "a red %s on a wooden table" % name}
    others = {language: _unique(foreign.SOLIDS[language][name].split("/")[:2]) for language in languages}
    return dict(entry, languages=others) if others else entry


def vocabulary(atlas, waves=None):
    """As data; atlas: anything with nouns and their index of variants."""
    nouns = []
    for i, noun in enumerate(atlas.nouns):
        if waves is None or noun.wave in waves:
            nouns.append(_noun(noun, bool((atlas.index[i, 1:] >= 0).any()), WHERE[len(nouns) % len(WHERE)]))
    languages, grounds, weather = foreign.LANGUAGES, list(GROUND_WORDS), WEATHER_WORDS
    if not nouns:
        languages, grounds, weather = (), SOLID_GROUNDS, {}
    relations = {name: _unique(words + MORE_RELATIONS.get(name, [])) for name, words in RELATION_WORDS.items()}
    return {
        "format": FORMAT, "languages": ["en", *languages],
        "categories": _unique(n["category"] for n in nouns), "nouns": nouns, "shapes": [_shape(s, languages) for s in SHAPES],
        "colours": {c: _unique(COLOUR_WORDS.get(c, [c])) for c in COLOUR_NAMES},
        "patterns": {p: PATTERN_WORDS[p] for p in PATTERNS[1:]},
        "sizes": {s: _unique(words) for s, words in SIZE_WORDS.items()},
        "numbers": {str(n): words for n, words in NUMBERS.items()}, "relations": relations,
        "places": {p: _unique(GROUND_WORDS[p]) for p in grounds if p in GROUND_WORDS},
        "backgrounds": ["on a %s background" % b for b in BACKDROPS],
        "times": {t: _unique(words) for t, words in TIME_WORDS.items()},
        "weather": {w: _unique(words) for w, words in weather.items()},
        "other_words": _other_words(grounds, weather, languages),
    }


def write(path, atlas, waves=None):
    def line(value):
        return json.dumps(value, ensure_ascii=False)

    def lines(value):       # one for each thing
        things = isinstance(value, list) and value and isinstance(value[0], dict)
        return "[\n  %s\n ]" % ",\n  ".join(map(line, value)) if things else line(value)
    entries = vocabulary(atlas, waves).items()
    path.write_text("{\n%s\n}\n" % ",\n".join(" %s: %s" % (line(k), lines(v)) for k, v in entries), encoding="utf-8")


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
