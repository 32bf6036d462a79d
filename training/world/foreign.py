"""Captions in German, French, Spanish, Japanese and Chinese: a small grammar of colour, number, place and
time by hand for each, with the names of the nouns from vocabulary/names.tsv (CLDR's, with gender and plural).

Such a caption says no more of a scene than English ones: sizes, patterns and relations other than side by side
are English only, and a scene that needs them is told in English. Everything is in lower case, as prompts are
when they reach the tokenizer.
"""

import collections
import functools
import pathlib

from .captions import _tag as tag
from .language import TIMELESS

FILE = pathlib.Path(__file__).resolve().parent.parent / "vocabulary" / "names.tsv"
LANGUAGES = ("de", "fr", "es", "ja", "zh")
# kind: the gender in de, fr and es; the word that counts it in ja and zh
Word = collections.namedtuple("Word", "singular plural kind")

COLOURS = {
    "de": {"red": "rot", "orange": "orange*", "yellow": "gelb", "green": "grün", "cyan": "türkis", "blue": "blau",
           "purple": "lila*", "pink": "rosa*", "white": "weiß", "black": "schwarz"},
    # masculine, feminine, their plurals
    "fr": {"red": "rouge rouge rouges rouges", "orange": "orange orange orange orange",
           "yellow": "jaune jaune jaunes jaunes", "green": "vert verte verts vertes",
           "cyan": "turquoise turquoise turquoise turquoise", "blue": "bleu bleue bleus bleues",
           "purple": "violet violette violets violettes", "pink": "rose rose roses roses",
           "white": "blanc blanche blancs blanches", "black": "noir noire noirs noires"},
    "es": {"red": "rojo roja rojos rojas", "orange": "naranja naranja naranjas naranjas",
           "yellow": "amarillo amarilla amarillos amarillas", "green": "verde verde verdes verdes",
           "cyan": "turquesa turquesa turquesas turquesas", "blue": "azul azul azules azules",
           "purple": "morado morada morados moradas", "pink": "rosa rosa rosas rosas",
           "white": "blanco blanca blancos blancas", "black": "negro negra negros negras"},
    "ja": {"red": "赤い 赤色の", "orange": "オレンジ色の オレンジの", "yellow": "黄色い 黄色の", "green": "緑の 緑色の",
           "cyan": "水色の", "blue": "青い 青色の", "purple": "紫の 紫色の", "pink": "ピンクの ピンク色の",
           "white": "白い 白色の", "black": "黒い 黒色の"},
    "zh": {"red": "红色的 红", "orange": "橙色的", "yellow": "黄色的 黄", "green": "绿色的 绿", "cyan": "青色的",
           "blue": "蓝色的 蓝", "purple": "紫色的", "pink": "粉色的 粉红色的", "white": "白色的 白", "black": "黑色的 黑"},
}
NUMBERS = {"de": "zwei drei vier fünf", "fr": "deux trois quatre cinq", "es": "dos tres cuatro cinco",
           "ja": "二 三 四 五", "zh": "两 三 四 五"}
PLACES = {
    "de": {"table": "auf einem holztisch|auf dem tisch", "grass": "auf grünem gras|auf der wiese|auf einer wiese",
           "beach": "am strand|auf dem strand", "snow": "im schnee", "tiles": "auf fliesen", "sea": "auf dem meer|auf dem wasser",
           "road": "auf der straße", "forest": "im wald", "city": "in der stadt", "room": "im zimmer|im wohnzimmer",
           "kitchen": "in der küche", "space": "im weltraum", "underwater": "unter wasser"},
    "fr": {"table": "sur une table en bois|sur la table", "grass": "sur l'herbe verte|dans un pré", "beach": "sur la plage",
           "snow": "dans la neige", "tiles": "sur du carrelage", "sea": "sur la mer|sur l'eau", "road": "sur la route",
           "forest": "dans la forêt", "city": "dans la ville|en ville", "room": "dans une pièce|dans le salon",
           "kitchen": "dans la cuisine", "space": "dans l'espace", "underwater": "sous l'eau"},
    "es": {"table": "sobre una mesa de madera|en la mesa", "grass": "sobre la hierba verde|en un prado",
           "beach": "en la playa", "snow": "en la nieve", "tiles": "sobre azulejos", "sea": "en el mar|sobre el agua",
           "road": "en la carretera", "forest": "en el bosque", "city": "en la ciudad", "room": "en una habitación|en el salón",
           "kitchen": "en la cocina", "space": "en el espacio", "underwater": "bajo el agua"},
    "ja": {"table": "木のテーブルの上|テーブルの上", "grass": "草の上|草原", "beach": "浜辺|砂浜|ビーチ", "snow": "雪の中|雪の上",
           "tiles": "タイルの上", "sea": "海の上|水の上", "road": "道路の上|道の上", "forest": "森の中|森", "city": "街の中|街",
           "room": "部屋の中|部屋", "kitchen": "台所|キッチン", "space": "宇宙", "underwater": "水中"},
    "zh": {"table": "木桌上|桌子上", "grass": "草地上", "beach": "沙滩上|海滩上", "snow": "雪地里|雪中", "tiles": "瓷砖上",
           "sea": "海上|水面上", "road": "公路上|路上", "forest": "森林里", "city": "城市里|街上", "room": "房间里",
           "kitchen": "厨房里", "space": "太空中", "underwater": "水下|海底"},
}
BACKDROPS = {
    "de": {"white": "vor weißem hintergrund", "gray": "vor grauem hintergrund", "black": "vor schwarzem hintergrund",
           "blue": "vor blauem hintergrund", "pink": "vor rosa hintergrund"},
    "fr": {"white": "sur fond blanc", "gray": "sur fond gris", "black": "sur fond noir", "blue": "sur fond bleu",
           "pink": "sur fond rose"},
    "es": {"white": "sobre fondo blanco", "gray": "sobre fondo gris", "black": "sobre fondo negro",
           "blue": "sobre fondo azul", "pink": "sobre fondo rosa"},
    "ja": {"white": "白い背景", "gray": "灰色の背景", "black": "黒い背景", "blue": "青い背景", "pink": "ピンクの背景"},
    "zh": {"white": "白色背景上", "gray": "灰色背景上", "black": "黑色背景上", "blue": "蓝色背景上", "pink": "粉色背景上"},
}
TIMES = {
    "de": {"day": "am tag", "sunset": "bei sonnenuntergang|am abend", "night": "bei nacht|in der nacht|nachts"},
    "fr": {"day": "de jour", "sunset": "au coucher du soleil|le soir", "night": "la nuit|de nuit"},
    "es": {"day": "de día", "sunset": "al atardecer", "night": "de noche|por la noche"},
    "ja": {"day": "昼", "sunset": "夕方|夕焼け", "night": "夜"},
    "zh": {"day": "白天", "sunset": "日落时|傍晚", "night": "夜晚|晚上"},
}
AND = {"de": "und|neben", "fr": "et|à côté d'", "es": "y|junto a", "ja": "と", "zh": "和"}
# before and after a caption; those of de take the accusative
OPENINGS = {"de": "zeichne|male|bitte zeichne|zeig mir|ich möchte", "fr": "dessine|dessine-moi|je voudrais|montre-moi",
            "es": "dibuja|quiero ver|muéstrame|por favor dibuja", "zh": "请画|画|一张图片："}
ENDINGS = {"de": "bitte", "fr": "s'il te plaît|s'il vous plaît", "es": "por favor", "ja": "の絵|の写真|を描いて|を描いてください",
           "zh": "的图片|的照片"}
SOLIDS = {
    "de": {"sphere": "kugel/kugeln/f", "cube": "würfel/würfel/m", "cylinder": "zylinder/zylinder/m", "cone": "kegel/kegel/m",
           "pyramid": "pyramide/pyramiden/f", "ring": "ring/ringe/m", "star": "stern/sterne/m", "heart": "herz/herzen/n",
           "tree": "baum/bäume/m", "house": "haus/häuser/n", "mushroom": "pilz/pilze/m"},
    "fr": {"sphere": "sphère/sphères/f", "cube": "cube/cubes/m", "cylinder": "cylindre/cylindres/m", "cone": "cône/cônes/m",
           "pyramid": "pyramide/pyramides/f", "ring": "anneau/anneaux/m", "star": "étoile/étoiles/f", "heart": "cœur/cœurs/m",
           "tree": "arbre/arbres/m", "house": "maison/maisons/f", "mushroom": "champignon/champignons/m"},
    "es": {"sphere": "esfera/esferas/f", "cube": "cubo/cubos/m", "cylinder": "cilindro/cilindros/m", "cone": "cono/conos/m",
           "pyramid": "pirámide/pirámides/f", "ring": "anillo/anillos/m", "star": "estrella/estrellas/f",
           "heart": "corazón/corazones/m", "tree": "árbol/árboles/m", "house": "casa/casas/f", "mushroom": "seta/setas/f"},
    "ja": {"sphere": "球/球/つ", "cube": "立方体/立方体/つ", "cylinder": "円柱/円柱/つ", "cone": "円錐/円錐/つ",
           "pyramid": "ピラミッド/ピラミッド/つ", "ring": "輪/輪/つ", "star": "星/星/つ", "heart": "ハート/ハート/つ",
           "tree": "木/木/本", "house": "家/家/軒", "mushroom": "きのこ/きのこ/本"},
    "zh": {"sphere": "球体/球体/个", "cube": "立方体/立方体/个", "cylinder": "圆柱体/圆柱体/个", "cone": "圆锥/圆锥/个",
           "pyramid": "金字塔/金字塔/个", "ring": "圆环/圆环/个", "star": "星星/星星/颗", "heart": "爱心/爱心/颗",
           "tree": "树/树/棵", "house": "房子/房子/座", "mushroom": "蘑菇/蘑菇/个"},
}
COUNTERS = {
    "ja": {"animals": "匹", "birds": "羽", "sea animals": "匹", "insects": "匹", "vehicles": "台", "people": "人",
           "clothes": "枚", "furniture": "台", "plants": "本"},
    "zh": {"animals": "只", "birds": "只", "sea animals": "只", "insects": "只", "vehicles": "辆", "plants": "棵",
           "buildings": "座", "clothes": "件", "furniture": "张"},
}
# articles and particles
MORE_WORDS = {"de": "ein eine einen einem einer eines der die das den dem", "fr": "un une des le la les du de l d et",
              "es": "un una unos unas el la los las de", "ja": "の が は に で と", "zh": "一 个 的 在 上 里"}
DEFAULT_COUNTER = {"ja": "つ", "zh": "个"}


def joint(language):
    """What stands between the words of a tagged caption."""
    return "" if language in ("ja", "zh") else " "


@functools.lru_cache(1)
def table(path=FILE):
    """{language: {noun: [Word, ...]}}"""
    out = {language: {} for language in LANGUAGES}
    if not path.exists():
        return out
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        noun, language, words = line.split("\t")
        out[language][noun] = [Word(*w.lower().split("/")) for w in words.split(",")]
    return out


def languages():
    """The languages that captions can be in, each with the share that it has when the tokenizer learns."""
    return dict({"en": 1.}, **{k: .12 for k, names in table().items() if names})


def words_of(noun):
    """Every name of a noun in the other languages, singular and plural."""
    return [form for names in table().values() for w in names.get(noun.id, ()) for form in {w.singular, w.plural}]


def other_words(language):
    """Everything that captions of a language contain besides names of things: words, or, where none stand between
    spaces, phrases."""
    def texts(table):
        for v in table.values() if isinstance(table, dict) else table:
            yield from texts(v) if isinstance(v, dict) else v.split("|")
    found = list(texts([PLACES[language], BACKDROPS[language], TIMES[language], AND[language]]))
    found += [w.rstrip("*") for v in COLOURS[language].values() for w in v.split()] + NUMBERS[language].split()
    found += [v for table in (OPENINGS, ENDINGS) for v in table.get(language, "").split("|")]
    found += MORE_WORDS[language].split()
    if not joint(language):
        return [text for text in found if text] + list(COUNTERS[language].values()) + [DEFAULT_COUNTER[language]]
    if language == "de":
        found += [w + end for w in list(found) if w in COLOURS["de"].values() for end in ("e", "er", "es", "en", "em")]
    return [word for text in found for word in text.split()]


def names(cast):
    for noun in cast.nouns:
        yield from words_of(noun)


def word(rng, language, obj, cast):
    """A name of an object, or None where the language has none."""
    if obj.noun < 0:
        return Word(*SOLIDS[language][obj.shape].split("/"))
    choice = table()[language].get(cast.nouns[obj.noun].id)
    return rng.choice(choice) if choice else None


def counter(language, obj, name, cast):
    category = cast.nouns[obj.noun].category if obj.noun >= 0 else ""
    return name.kind or COUNTERS[language].get(category, DEFAULT_COUNTER[language])


def can_tell(scene, language, cast):
    """Whether a scene can be told in a language."""
    if scene.layout not in ("single", "count", "next", "empty", "count next") or scene.weather or scene.mountains:
        return False
    return scene.layout != "empty" and all(
        not o.size and o.pattern == "plain" and (o.noun < 0 or cast.nouns[o.noun].id in table()[language])
        for o in scene.objects)


def _german(rng, colour, name, count, accusative):
    def ended(ending):
        stem = COLOURS["de"][colour]
        return stem[:-1] if stem.endswith("*") else stem + ending
    if count > 1:
        number = rng.choice((NUMBERS["de"].split()[count - 2], NUMBERS["de"].split()[count - 2], str(count)))
        return " ".join(w for w in (number, colour and ended("e"), name.plural) if w)
    article = {"m": "einen" if accusative else "ein", "f": "eine", "n": "ein", "p": ""}[name.kind]
    ending = {"m": "en" if accusative else "er", "f": "e", "n": "es", "p": "e"}[name.kind]
    return " ".join(w for w in (article, colour and ended(ending), name.singular) if w)


def _romance(rng, language, colour, name, count):
    number = NUMBERS[language].split()[count - 2] if count > 1 else ""
    if count > 1 and rng.random() < .3:
        number = str(count)
    article = {"fr": {"m": "un", "f": "une"}, "es": {"m": "un", "f": "una"}}[language]
    plural, gender = count > 1 or name.kind in ("mp", "fp"), name.kind[0]
    shade = COLOURS[language][colour].split()[(gender == "f") + 2 * plural] if colour else ""
    first = number or ({"fr": "des", "es": gender == "f" and "unas" or "unos"}[language] if plural else article[gender])
    return " ".join(w for w in (first, name.plural if count > 1 else name.singular, shade) if w)


def _asian(rng, language, colour, name, count, unit):
    shade = rng.choice(COLOURS[language][colour].split()) if colour else ""
    number = NUMBERS[language].split()[count - 2] if count > 1 else "一"
    if count > 1 and rng.random() < .3:
        number = str(count)
    if language == "zh":
        return (number + unit if count > 1 or rng.random() < .5 else "") + shade + name.singular
    return (number + unit + "の" if count > 1 or rng.random() < .1 else "") + shade + name.singular


def _phrase(rng, scene, group, cast, accusative=False):
    objs = [o for o in scene.objects if o.group == group]
    first, language = objs[0], scene.language
    name, colour = word(rng, language, first, cast), first.colour if first.names_colour else ""
    if language == "de":
        return _german(rng, colour, name, len(objs), accusative)
    if language in ("fr", "es"):
        return _romance(rng, language, colour, name, len(objs))
    return _asian(rng, language, colour, name, len(objs), counter(language, first, name, cast))


def _around(rng, mix, scene):
    """(place, time), either may be empty."""
    language = scene.language
    if scene.ground == "plain":
        place, time = BACKDROPS[language][scene.backdrop], ""
    else:
        place = rng.choice(PLACES[language][scene.ground].split("|"))
        time = rng.choice(TIMES[language][scene.time].split("|")) if scene.time != "day" else ""
    if rng.random() < mix.placeless + .1:
        place = ""
        if rng.random() < mix.timeless:
            time = ""
    scene.names_place = bool(place)
    scene.names_time = bool(time) or bool(place and scene.time == "day" and scene.ground not in TIMELESS)
    return place, time


def _spaced(rng, mix, scene, cast):
    language = scene.language
    opening = rng.choice(OPENINGS[language].split("|")) if rng.random() < mix.polite else ""
    accusative = language == "de" and bool(opening)
    tagged = tag(opening, 0) + tag(_phrase(rng, scene, 1, cast, accusative), 1)
    if scene.layout in ("next", "count next"):
        link = AND[language].split("|")[0]
        tagged += tag(link, 0) + tag(_phrase(rng, scene, 2, cast, accusative), 2)
    place, time = _around(rng, mix, scene)
    tagged += tag(place, 0) + tag(time, 0)
    if rng.random() < mix.polite * .4:
        tagged += tag(rng.choice(ENDINGS[language].split("|")), 0)
    return tagged


def _joined(rng, mix, scene, cast):
    """In Japanese and Chinese the place and the time stand first."""
    language, of = scene.language, {"ja": "の", "zh": "的"}[scene.language]
    subject = [(_phrase(rng, scene, 1, cast), 1)]
    if scene.layout in ("next", "count next"):
        subject += [(AND[language], 0), (_phrase(rng, scene, 2, cast), 2)]
    place, time = _around(rng, mix, scene)
    if language == "ja":
        around = [(w + of, 0) for w in (time, place) if w]
        if place and rng.random() < .3:
            around[-1] = (place + "に", 0)
    else:
        around = [(w, 0) for w in (time,) if w]
        around += [(rng.choice(("在", "")) + place + ("的" if rng.random() < .7 else ""), 0)] if place else []
    tagged = around + subject
    if rng.random() < mix.polite and language in OPENINGS and tagged[0][1]:
        tagged = [(rng.choice(OPENINGS[language].split("|")), 0)] + tagged
    elif rng.random() < mix.polite:
        tagged += [(rng.choice(ENDINGS[language].split("|")), 0)]
    return tagged


def describe(rng, mix, scene, cast):
    """The tagged words of a scene that can be told in its language."""
    return (_joined if joint(scene.language) == "" else _spaced)(rng, mix, scene, cast)
