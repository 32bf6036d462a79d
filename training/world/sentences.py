"""Captions of scenes with nouns, as people write them: terse and long, with synonyms and kinds, plurals,
pleasantries that mean nothing, or nothing about the place.

As in captions.py a caption never says anything that the picture does not show, every word is tagged with the
group of objects that it describes, and a place without a time of day is always that place by day.
"""

from . import captions, foreign
from .captions import _tag as tag
from .language import (AFLOAT, COLOUR_WORDS, EMPTY_WORDS, GROUND_WORDS, NUMBERS, PRAISE, RELATION_WORDS,
                       SIZE_WORDS, TIMELESS, TIME_WORDS, WEATHER_WORDS)

KINDS_OF_PICTURE = ["a photo of", "a picture of", "an image of", "a drawing of", "a painting of",
                    "an illustration of", "a 3d render of", "a cartoon of", "an icon of", "photo of", "picture of",
                    "there is", "there are", "a beautiful picture of", "a close-up of", "a sketch of"]
REQUESTS = ["draw", "please draw", "draw me", "can you draw", "could you draw me", "please draw me", "show me",
            "i want", "i would like", "i want to see", "i'd like to see", "make", "generate", "create", "give me",
            "paint", "please paint", "imagine", "let me see", "i need", "make me", "hello, please draw",
            "hi, can you make", "please generate", "please show me", "now draw"]
ENDINGS = ["please", "thanks", "thank you", "high quality", "4k", "8k", "detailed", "highly detailed", "in cartoon style",
           "cartoon style", "digital art", "3d render", "for my daughter", "for a children's book", "emoji style",
           "very beautiful", "best quality", "masterpiece", "photorealistic", "hd", "simple", "nice colors",
           "bright colours", "for kids", "as a picture", "in the style of a cartoon"]
MORE_PRAISE = PRAISE + ["lovely", "adorable", "funny", "sweet", "happy", "friendly", "single", "lonely", "real", "simple",
                        "perfect", "amazing", "cartoon", "wonderful"]
SOME = ["some", "a few", "several", "many", "a group of", "lots of", "a bunch of", ""]
MORE_RELATIONS = {
    "next": ["next to", "beside", "and", "and", "and", "with", "near", "together with", "by", "close to", "&", "plus"],
    "on top": ["on top of", "on", "sitting on", "standing on", "on top of"],
    "above": ["above", "over", "flying over", "floating above", "hovering over"],
}
VERBS = {"animals": ["sitting", "standing", "resting", "waiting", "playing", "looking around"],
         "people": ["standing", "waiting", "smiling", "looking at you", "posing"],
         "birds": ["sitting", "standing", "resting"], "vehicles": ["parked", "standing"],
         "buildings": ["standing"], "plants": ["growing"], "furniture": ["standing"],
         "fruit and vegetables": ["lying"], "food": ["lying", "served"], "insects": ["sitting"]}
FLYING = ["in the air", "in the sky", "in flight", "up in the air"]


def _name(rng, noun, count, plain):
    """One of the noun's names; only names that can be counted stand after a number."""
    names = [n for n in noun.names if n.kind != "mass" or count == 1] or list(noun.names)
    return names[0] if plain or rng.random() < .55 else rng.choice(names)


def _noun_phrase(rng, mix, obj, count, noun, plain, terse, flying):
    name = _name(rng, noun, count, plain)
    words = []
    if not plain and rng.random() < .04:
        words.append(rng.choice(MORE_PRAISE))
    if obj.size:
        words.append(obj.size if plain else rng.choice(SIZE_WORDS[obj.size]))
    if flying:
        words.append("flying")
    if obj.variant:
        words.append(obj.colour if plain else rng.choice(COLOUR_WORDS.get(obj.colour, [obj.colour])))
    words.append(name.plural if count > 1 else name.singular)
    text = " ".join(words)
    if count > 1:
        if count > 2 and not plain and rng.random() < .12:
            text = (rng.choice(SOME) + " " + text).strip()
        else:
            text = (NUMBERS[count][0] if plain else rng.choice(NUMBERS[count])) + " " + text
    elif name.kind == "count" and not terse:
        if not plain and rng.random() < .06:
            text = rng.choice(("the", "one", "my", "this")) + " " + text
        else:
            article = name.article if len(words) == 1 else "an" if text[0] in "aeiou" else "a"
            text = article + " " + text
    elif name.kind == "mass" and not plain and not terse and rng.random() < .3:
        text = "some " + text
    return tag(text, obj.group)


def _phrase(rng, mix, scene, cast, group, plain, terse):
    objs = [o for o in scene.objects if o.group == group]
    first = objs[0]
    if first.noun < 0:
        return captions._phrase(rng, first, len(objs), plain, terse)
    flying = (first.floating and scene.layout == "single" and scene.ground not in AFLOAT
              and not plain and rng.random() < .3)
    return _noun_phrase(rng, mix, first, len(objs), cast.nouns[first.noun], plain, terse, flying)


def _relation(rng, relation, plain):
    words = MORE_RELATIONS.get(relation, RELATION_WORDS[relation])
    return tag(words[0] if plain else rng.choice(words), 0)


def _subject(rng, mix, scene, cast, plain, terse):
    def phrase(group):
        return _phrase(rng, mix, scene, cast, group, plain, terse)
    layout = scene.layout
    if layout in ("single", "count"):
        return phrase(1)
    if layout == "between":
        return phrase(1) + [("between", 0)] + phrase(2) + [("and", 0)] + phrase(3)
    if layout == "list":
        a, b, c = phrase(1), phrase(2), phrase(3)
        if not plain and rng.random() < .3:
            return a + [("and", 0)] + b + [("and", 0)] + c
        a[-1] = (a[-1][0] + ",", 1)
        if not plain and rng.random() < .3:
            b[-1] = (b[-1][0] + ",", 2)
            return a + b + [("and", 0)] * (rng.random() < .6) + c
        return a + b + [("and", 0)] + c
    if layout == "behind":
        return phrase(2) + [("behind", 0)] + phrase(1)
    if layout == "above" and not plain and rng.random() < .25:
        return phrase(2) + tag(rng.choice(RELATION_WORDS["below"]), 0) + phrase(1)
    return phrase(1) + _relation(rng, "next" if layout == "count next" else layout, plain) + phrase(2)


def _verb(rng, scene, cast, plain, terse):
    """A verb that means nothing more, or that what flies is in the air."""
    first = scene.objects[0]
    if plain or terse or first.noun < 0 or scene.layout not in ("single", "count"):
        return []
    if first.floating:
        aloft = scene.ground not in AFLOAT and scene.layout == "single" and rng.random() < .25
        return tag(rng.choice(FLYING), 0) if aloft else []
    verbs = VERBS.get(cast.nouns[first.noun].category, [])
    return tag(rng.choice(verbs), 0) if verbs and rng.random() < .08 else []


def surroundings(rng, scene, plain):
    """(place, time, weather) as tagged words; each may be empty."""
    if scene.ground == "plain":
        words = ["on a %s background", "on %s", "%s background", "against a %s background"]
        return tag((words[0] if plain or rng.random() < .7 else rng.choice(words)) % scene.backdrop, 0), [], []
    words = GROUND_WORDS[scene.ground]
    place = tag(words[0] if plain else rng.choice(words), 0)
    if scene.mountains and (scene.ground == "grass" or (not plain and rng.random() < .3)):
        place += tag("with mountains" if plain or rng.random() < .6 else "in the mountains", 0)
    time = []
    if scene.time != "day":
        time = tag(TIME_WORDS[scene.time][0] if plain else rng.choice(TIME_WORDS[scene.time]), 0)
    elif scene.ground not in TIMELESS | {"table"} and not plain and rng.random() < .25:
        time = tag(rng.choice(TIME_WORDS["day"]), 0)
    weather = tag(rng.choice(WEATHER_WORDS[scene.weather]), 0) if scene.weather else []
    return place, time, weather


def _at_home(scene, cast):
    """Whether a picture of the scene may be shown for a caption without a place."""
    if scene.ground not in AFLOAT:
        return True
    return any(o.noun >= 0 and cast.place_weights(o.noun, {scene.ground: 1.})[scene.ground] > 2
               for o in scene.objects)


def _polite(rng, mix, tagged):
    """Openings and endings that ask for nothing in particular."""
    if rng.random() < mix.polite and tagged[0][1]:
        opening = rng.choice(KINDS_OF_PICTURE if rng.random() < .5 else REQUESTS)
        tagged = tag(opening, 0) + tagged
    if rng.random() < mix.polite * .5:
        tagged[-1] = (tagged[-1][0] + "," * (rng.random() < .5), tagged[-1][1])
        tagged = tagged + tag(rng.choice(ENDINGS), 0)
    if rng.random() < .05:
        tagged[-1] = (tagged[-1][0] + rng.choice(".!?"), tagged[-1][1])
    return tagged


def _english(rng, mix, scene, cast):
    plain = rng.random() < mix.plain_caption
    terse = not plain and rng.random() < mix.terse
    timeless = scene.ground in TIMELESS
    if scene.layout == "empty":
        tagged = tag(rng.choice(EMPTY_WORDS[scene.ground]), 0)
        if scene.time != "day":
            tagged += tag(rng.choice(TIME_WORDS[scene.time]), 0)
        if scene.weather:
            tagged += tag(rng.choice(WEATHER_WORDS[scene.weather]), 0)
        scene.names_place, scene.names_time = True, not timeless
    else:
        subject = _subject(rng, mix, scene, cast, plain, terse)
        place, time, weather = surroundings(rng, scene, plain)
        if not plain and rng.random() < mix.placeless and _at_home(scene, cast):
            place = []
        if not place and not plain and rng.random() < mix.timeless:
            time = []
        scene.names_place = bool(place)
        scene.names_time = bool(time) or bool(place and scene.time == "day" and not timeless)
        around = place + time + weather if rng.random() < .8 else time + place + weather
        if not plain and around and rng.random() < .08:
            around[-1] = (around[-1][0] + rng.choice((",", ",", ":")), 0)
            tagged = around + subject
        else:
            tagged = subject + _verb(rng, scene, cast, plain, terse) + around
    return tagged if plain else _polite(rng, mix, tagged)


def describe(rng, mix, scene, cast):
    """Fills in words, groups and caption, in the scene's language, or in English where it has no words."""
    if scene.language != "en" and not foreign.can_tell(scene, scene.language, cast):
        scene.language = "en"
    if scene.language == "en":
        tagged = _english(rng, mix, scene, cast)
        if rng.random() < .03:
            tagged.insert(rng.randint(0, len(tagged)), (captions._junk(rng), 0))
    else:
        tagged = foreign.describe(rng, mix, scene, cast)
    scene.words = [w for w, _ in tagged]
    scene.groups = [g for _, g in tagged]
    scene.caption = (foreign.joint(scene.language)).join(scene.words)
