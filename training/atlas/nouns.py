"""The table of nouns, vocabulary/nouns.tsv, as data. A line:

    id  category  wave  size  flags  drawings  names

size is a class from 1 (a ring) to 6 (a ship): see SIZES. drawings are separated by spaces, names by commas,
the usual name first. A name's plural is formed by rule unless a slash tells it: "mouse/mice", "bread/-" (a
mass noun: no article, no plural), "/scissors" (only a plural: no article, "two scissors").

A drawing "fluent:cook*" stands for the figure in yellow and five skin tones, "sh3d:Scopia/toaster@*" for the
model from three sides.
"""

import dataclasses
import pathlib
import re

TABLE = pathlib.Path(__file__).resolve().parent.parent / "vocabulary" / "nouns.tsv"
CATEGORIES = ("animals", "birds", "sea animals", "insects", "fruit and vegetables", "food", "plants",
              "vehicles", "buildings", "nature", "music", "sports and toys", "furniture", "household",
              "clothes", "tools", "office", "people", "faces and hands")
FLAGS = {
    "h": "the drawing shows the head only",
    "f": "may fly or float in the air",
    "n": "has one natural colour: no colour words",
    "c": "a colour word changes all of it but what is dark or blue glass, not only its main hue",
    "d": "a colour word changes all of it",
    "w": "floats in water, and is drawn with a strip of it",
    "g": "glows or has lit windows at night",
    "l": "long and diagonal: lies on the ground or leans",
    "t": "carries lettering or has a left and a right: never mirrored",
    "u": "lives under water",
    "o": "the other artist's drawing is of something else, or lettered: not taken as a second one",
}
# height of an object of each size class in a mixed scene, as a fraction of the picture
SIZES = {1: .13, 2: .19, 3: .26, 4: .34, 5: .44, 6: .58}

TONES = ("", "-light", "-medium-light", "-medium", "-medium-dark", "-dark")
YAWS = (30, -40, 5)

_AN = re.compile(r"(?!uni|use|ute|uku|eu|ewe|one-|ufo)[aeiou]|hour|heir|suv|mp3|x-ray", re.I)


@dataclasses.dataclass(frozen=True)
class Name:
    """One word or phrase for a noun. kind: "count", "mass" (no article, no plural) or "plural" (only that)."""
    singular: str
    plural: str
    kind: str = "count"

    @property
    def article(self):
        """"a" or "an"; "" for what takes none."""
        if self.kind != "count":
            return ""
        return "an" if _AN.match(self.singular) else "a"

    @staticmethod
    def parse(text):
        if text.startswith("/"):
            return Name(text[1:], text[1:], "plural")
        singular, slash, plural = text.partition("/")
        if plural == "-":
            return Name(singular, singular, "mass")
        return Name(singular, plural if slash else plural_of(singular))


def plural_of(name):
    """The regular plural; of "slice of pizza" and "house with a garden" that of the first part."""
    for inner in (" of ", " with ", " on a ", " in a "):
        if inner in name:
            head, tail = name.split(inner, 1)
            return plural_of(head) + inner + tail
    if re.search(r"(s|x|z|ch|sh)$", name):
        return name + "es"
    if re.search(r"[^aeiou]y$", name):
        return name[:-1] + "ies"
    return name + "s"


def _sources(words):
    out = []
    for word in words:
        endings = TONES if word.endswith("*") and not word.endswith("@*") else YAWS if word.endswith("@*") else ()
        out += [word[:-1] + str(ending) for ending in endings] or [word]
    return tuple(out)


@dataclasses.dataclass(frozen=True)
class Noun:
    id: str
    category: str
    wave: int
    size: int
    flags: str
    sources: tuple      # "fluent:cat", ...: the first is the noun's main drawing
    names: tuple        # of Name: the usual one first, then synonyms and kinds

    @property
    def name(self):
        return self.names[0].singular

    def has(self, flag):
        return flag in self.flags

    @staticmethod
    def from_row(line):
        id_, category, wave, size, flags, sources, names = line.rstrip("\n").split("\t")
        return Noun(id_, category, int(wave), int(size), flags, _sources(sources.split()),
                    tuple(Name.parse(n.strip()) for n in names.split(",")))

    @staticmethod
    def from_dict(data):
        names = tuple(Name(*n) for n in data["names"])
        return Noun(**dict(data, names=names, sources=tuple(data["sources"])))

    def to_dict(self):
        return dict(dataclasses.asdict(self), names=[dataclasses.astuple(n) for n in self.names])


def with_second(noun, others):
    """The noun with the other artist's drawing as well, where `others`, names of icons, has it."""
    kind, _, slug = noun.sources[0].partition(":")
    second = "noto:" + slug
    if kind != "fluent" or slug not in others or second in noun.sources or noun.has("o") or noun.has("t"):
        return noun
    return dataclasses.replace(noun, sources=noun.sources + (second,))


def load(path=TABLE):
    """All nouns, by wave, then in the order of the table."""
    lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    nouns = [Noun.from_row(line) for line in lines[1:] if line and not line.startswith("#")]
    return sorted(nouns, key=lambda noun: noun.wave)
