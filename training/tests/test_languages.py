"""Captions in other languages: gender, number and counters are right, and what is said is what is shown."""

import threads  # noqa: F401  (before torch)

import contextlib
import unittest
from unittest import mock

from nets import tokenizer
from tests import synthetic
from world import foreign, staging
from world.cast import Cast
from world.foreign import Word
from world.staging import NounMix, Wanted

TABLE = {
    "de": {"disc": [Word("scheibe", "scheiben", "f")], "bird": [Word("vogel", "vögel", "m")], "leaf": [Word("blatt", "blätter", "n")]},
    "fr": {"disc": [Word("assiette", "assiettes", "f")], "bird": [Word("oiseau", "oiseaux", "m")]},
    "es": {"disc": [Word("rueda", "ruedas", "f")], "bird": [Word("pájaro", "pájaros", "m")]},
    "ja": {"disc": [Word("皿", "皿", "枚")], "bird": [Word("鳥", "鳥", "羽")]},
    "zh": {"disc": [Word("盘子", "盘子", "个")], "bird": [Word("鸟", "鸟", "只")]},
}


@contextlib.contextmanager
def names():
    with mock.patch.object(foreign, "table", lambda: TABLE):
        yield


def phrase(language, noun, variant=0, count=1, ground="plain"):
    cast = Cast.of(synthetic.atlas())
    mix = NounMix(solids=0., polite=0., placeless=-1., timeless=0., sized=0., weather=0., languages={language: 1.})
    layout = "single" if count == 1 else "count"
    for seed in range(400):
        s = staging.sample(seed, mix, cast, layout, None, Wanted((cast.number[noun],), (variant,), ground, "day", count))
        words = [w for w, g in zip(s.words, s.groups) if g]
        yield foreign.joint(language).join(words), s


class Grammar(unittest.TestCase):
    def told(self, *args, **more):
        with names():
            return {text for text, _ in phrase(*args, **more)}

    def test_german(self):
        self.assertEqual(self.told("de", "bird", 1), {"ein roter vogel"})
        self.assertEqual(self.told("de", "disc", 6), {"eine blaue scheibe"})
        self.assertEqual(self.told("de", "leaf"), {"ein blatt"})
        self.assertEqual(self.told("de", "disc", 7, 3), {"drei lila scheiben", "3 lila scheiben"})

    def test_romance(self):
        self.assertEqual(self.told("fr", "disc", 9), {"une assiette blanche"})
        self.assertEqual(self.told("fr", "bird", 4, 2), {"deux oiseaux verts", "2 oiseaux verts"})
        self.assertEqual(self.told("es", "disc", 1), {"una rueda roja"})
        self.assertEqual(self.told("es", "bird", 6, 4), {"cuatro pájaros azules", "4 pájaros azules"})

    def test_asian(self):
        self.assertEqual(self.told("ja", "bird", 1, 3), {"三羽の赤い鳥", "三羽の赤色の鳥", "3羽の赤い鳥", "3羽の赤色の鳥"})
        self.assertTrue({"盘子", "一个盘子"} >= self.told("zh", "disc"))
        self.assertIn("两只黑色的鸟", self.told("zh", "bird", 10, 2))

    def test_the_place_is_named(self):
        with names():
            for language in foreign.LANGUAGES:
                for _, s in list(phrase(language, "bird", ground="beach"))[:40]:
                    self.assertTrue(any(w in s.caption for w in foreign.PLACES[language]["beach"].split("|")), s.caption)
                    self.assertTrue(s.names_place and s.names_time)

    def test_what_a_language_cannot_tell_is_told_in_english(self):
        cast = Cast.of(synthetic.atlas())
        with names():
            for layout in ("left", "on top", "between", "empty"):
                s = staging.sample(3, NounMix(solids=0., languages={"de": 1.}), cast, layout)
                self.assertEqual(s.language, "en")
            s = staging.sample(3, NounMix(languages={"ja": 1.}), cast, "single", None, Wanted((cast.number["post"],)))
            self.assertEqual(s.language, "en")

    def test_every_word_of_the_grammar_is_lower_case(self):
        tables = [foreign.COLOURS, foreign.PLACES, foreign.TIMES, foreign.BACKDROPS, foreign.SOLIDS]
        for language in foreign.LANGUAGES:
            for table in tables:
                for words in table[language].values():
                    self.assertEqual(words, words.lower())
            self.assertEqual(len(foreign.COLOURS[language]), 10)


class Pieces(unittest.TestCase):
    def test_groups_of_joined_words(self):
        class Fake:
            texts = [" ", "三", "羽の", "赤い鳥", "と", "皿"]
            model = type("M", (), {"EncodeAsIds": staticmethod(lambda text: [0, 1, 2, 3, 4, 5])})()
            length = 12
            unspaced = tokenizer.Tokenizer.unspaced
        ids, groups = tokenizer.Tokenizer.encode_words(Fake(), ["三羽の赤い鳥", "と", "皿"], [1, 0, 2], False)
        self.assertEqual(ids, [0, 1, 2, 3, 4, 5, 1, 0, 0, 0, 0, 0])
        self.assertEqual(groups[:6], [0, 1, 1, 1, 0, 2])


if __name__ == "__main__":
    unittest.main()
