"""Captions in other languages: a small grammar of colour, number and place for each."""


def joint(language):
    """What stands between the words of a tagged caption."""
    return "" if language in ("ja", "zh") else " "


def describe(rng, mix, scene, cast):
    raise ValueError("no grammar for %r" % scene.language)
