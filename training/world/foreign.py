"""Captions in other languages: a small grammar of colour, number and place for each."""

ALL = {"en": 1.}


def joint(language):
    """What stands between the words of a tagged caption."""
    return "" if language in ("ja", "zh") else " "


def names(cast):
    """Every name of every noun in the other languages."""
    return []


def words_of(noun):
    return []


def describe(rng, mix, scene, cast):
    raise ValueError("no grammar for %r" % scene.language)
