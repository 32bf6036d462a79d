"""Captions: the sentences people would type for a scene, with the group every word describes.

A caption never says anything the picture does not show; it may leave things out (then the picture
is free to choose them). A place without a time of day is always that place by day.
"""

from .language import (COLOUR_WORDS, EMPTY_WORDS, GROUND_WORDS, NUMBERS, OPENINGS, PATTERN_WORDS,
                       PLURALS, PRAISE, RELATION_WORDS, SHAPE_WORDS, SIZE_WORDS, TIME_WORDS)


def _tag(text, group):
    return [(word, group) for word in text.split()]


def _noun(rng, obj, count, plain):
    word = obj.shape if plain else rng.choice(SHAPE_WORDS.get(obj.shape, [obj.shape]))
    return PLURALS.get(word, word + "s") if count > 1 else word


def _phrase(rng, obj, count, plain, terse):
    """The words for one object or one row of equal objects."""
    words = []
    if obj.size:
        words.append(obj.size if plain else rng.choice(SIZE_WORDS[obj.size]))
    colour = obj.colour if plain else rng.choice(COLOUR_WORDS.get(obj.colour, [obj.colour]))
    if not obj.names_colour:
        colour = ""
    pattern = ""
    if obj.pattern != "plain":
        pattern = obj.pattern if plain else rng.choice(PATTERN_WORDS[obj.pattern])
    words += [colour, pattern] if rng.random() < .3 else [pattern, colour]
    if not plain and rng.random() < .03:
        words.insert(0, rng.choice(PRAISE))
    words.append(_noun(rng, obj, count, plain))
    text = " ".join(w for w in words if w)
    if count > 1:
        number = NUMBERS[count][0] if plain else rng.choice(NUMBERS[count])
        text = number + " " + text
    elif not terse:
        article = "the" if not plain and rng.random() < .05 else "an" if text[0] in "aeiou" else "a"
        text = article + " " + text
    return _tag(text, obj.group)


def _subject(rng, scene, plain, terse):
    objs = scene.objects
    first = [o for o in objs if o.group == 1]
    a = _phrase(rng, first[0], len(first), plain, terse)
    if scene.layout in ("single", "count"):
        return a
    rest = {o.group: o for o in objs if o.group > 1}
    b = _phrase(rng, rest[2], 1, plain, terse)
    if scene.layout in ("between", "list"):
        c = _phrase(rng, rest[3], 1, plain, terse)
        if scene.layout == "between":
            return a + [("between", 0)] + b + [("and", 0)] + c
        a[-1] = (a[-1][0] + ",", 1)
        return a + b + [("and", 0)] + c
    relation = {"count above": "above"}.get(scene.layout, scene.layout)
    if relation == "behind":
        return b + [("behind", 0)] + a
    if relation == "above" and not plain and rng.random() < .25:
        return b + _tag(rng.choice(RELATION_WORDS["below"]), 0) + a
    words = RELATION_WORDS[relation]
    return a + _tag(words[0] if plain else rng.choice(words), 0) + b


def _surroundings(rng, scene, plain):
    """(place, time) as tagged words; either may be empty."""
    if scene.ground == "plain":
        return _tag("on a %s background" % scene.backdrop, 0), []
    words = GROUND_WORDS[scene.ground]
    place = _tag(words[0] if plain else rng.choice(words), 0)
    if scene.mountains and (scene.ground == "grass" or (not plain and rng.random() < .3)):
        place += _tag("with mountains", 0)
    time = []
    if scene.time != "day":
        time = _tag(TIME_WORDS[scene.time][0] if plain else rng.choice(TIME_WORDS[scene.time]), 0)
    elif scene.ground not in ("tiles", "table") and not plain and rng.random() < .3:
        time = _tag(rng.choice(TIME_WORDS["day"]), 0)
    return place, time


def _empty(rng, scene):
    place = _tag(rng.choice(EMPTY_WORDS[scene.ground]), 0)
    if scene.time == "day":
        return place
    if rng.random() < .3:
        return _tag("%s over" % ("sunset" if scene.time == "sunset" else "night"), 0) + place
    return place + _tag(rng.choice(TIME_WORDS[scene.time]), 0)


def _junk(rng):
    """A word nobody knows: the encoder has to learn to pass over it."""
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(3, 9)))


def describe(rng, mix, scene):
    """Fills in words, groups and caption."""
    for group in sorted({o.group for o in scene.objects}) if mix.colourless else ():
        named = rng.random() >= mix.colourless
        for o in scene.objects:
            o.names_colour = named if o.group == group else o.names_colour
    plain = rng.random() < mix.plain_caption
    timeless = scene.ground in ("tiles", "plain")
    if scene.layout == "empty":
        tagged = _empty(rng, scene)
        scene.names_place, scene.names_time = True, not timeless
    else:
        terse = not plain and rng.random() < .12
        subject = _subject(rng, scene, plain, terse)
        place, time = _surroundings(rng, scene, plain)
        if not plain and rng.random() < mix.placeless:
            place = []
        if not place and not plain and rng.random() < mix.timeless:
            time = []
        scene.names_place = bool(place)
        scene.names_time = bool(time) or bool(place and scene.time == "day" and not timeless)
        if not plain and (place or time) and rng.random() < .08:
            tagged = place + time
            tagged = tagged[:-1] + [(tagged[-1][0] + ",", 0)] + subject
        else:
            tagged = subject + place + time
        if not plain and not terse and rng.random() < .05:
            tagged = _tag(rng.choice(OPENINGS), 0) + tagged
    if not plain and rng.random() < .03:
        tagged.insert(rng.randint(0, len(tagged)), (_junk(rng), 0))
    scene.words = [w for w, _ in tagged]
    scene.groups = [g for _, g in tagged]
    scene.caption = " ".join(scene.words)
