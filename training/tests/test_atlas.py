"""The table of nouns, its names in other languages, and the atlas: a tiny one drawn here."""

import threads  # noqa: F401  (before torch)

import collections
import concurrent.futures
import contextlib
import io
import json
import pathlib
import tempfile
import time
import unittest
import unittest.mock
import zipfile

import numpy
import torch
from PIL import Image

from atlas import SIDES, VARIANTS, Atlas, fetch, model, notice, nouns, sprites
from atlas.build import build, shares
from atlas.nouns import CATEGORIES, FLAGS, SIZES, Name, Noun
from atlas.recolour import OWN_HUE, WHOLE, WHOLE_AND_DARK, measure, recolour
from world.cast import SEAGOING, SPACEFARING
from world.language import COLOUR_NAMES, COLOURS, GROUND_WORDS, SHAPE_WORDS, SHAPES, SIZE_WORDS

NAMES = nouns.TABLE.with_name("names.tsv")
# never to be drawn: trademarks, what is sensitive, and what is a sign rather than a thing
EXCLUDED = """technologist video-game alien-monster singer kaaba prayer-beads hamsa nazar-amulet coffin
    headstone funeral-urn bomb dagger crossed-swords water-pistol cigarette syringe drop-of-blood briefs bikini
    love-hotel turban skullcap headscarf pregnant breast-feeding middle-finger pile-of-poo flag- -flag -button
    keycap -sign arrow -oclock -thirty mahjong cityscape sunrise sunset""".split()
BRANDS = """vw- peugeot renault seat_leon smart chevrolet ford daf yamaha apple iphone playstation ps4 rubix billet
    kitchenaid peterbilt van suv mp3 plug- switch""".split()
ALLOWED = {"carousel-horse", "closed-mailbox-with-raised-flag", "flag-in-hole", "bow-and-arrow", "heart-with-arrow"}


class Table(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.table = nouns.load()

    def test_a_word_means_one_noun(self):
        for words in ([n.id for n in self.table], [w.singular for n in self.table for w in n.names],
                      [s for n in self.table for s in n.sources]):
            self.assertEqual([w for w, k in collections.Counter(words).items() if k > 1], [])

    def test_the_shapes_keep_their_words(self):
        taken = set(SHAPES) | {w for words in SHAPE_WORDS.values() for w in words}
        self.assertEqual([w.singular for n in self.table for w in n.names if w.singular in taken], [])

    def test_every_row_is_well_formed(self):
        for noun in self.table:
            self.assertIn(noun.category, CATEGORIES)
            self.assertIn(noun.size, SIZES)
            self.assertIn(noun.wave, (1, 2, 3))
            self.assertEqual(set(noun.flags) - set(FLAGS), set(), noun.id)
            self.assertFalse(noun.has("n") and (noun.has("c") or noun.has("d")), noun.id)
            for name in noun.names:
                self.assertRegex(name.singular, r"^[a-z][a-z' -]*[a-z]$")
                self.assertIn(name.kind, ("count", "mass", "plural"))
                taken = set(COLOUR_NAMES) - {"orange"} | {w for words in SIZE_WORDS.values() for w in words}
                self.assertFalse(set(name.singular.split()) & taken, name.singular)

    def test_no_excluded_drawing(self):
        for source in (s for n in self.table for s in n.sources):
            kind, slug = source.split(":")
            excluded = BRANDS if kind == "sh3d" else EXCLUDED
            slug = slug.split("/")[-1]
            self.assertFalse([x for x in excluded if x in slug.lower() and slug not in ALLOWED], source)

    def test_waves_are_spread_over_the_categories(self):
        first = [n for n in self.table if n.wave == 1]
        self.assertTrue(180 <= len(first) <= 280)
        self.assertGreaterEqual(len([n for n in self.table if n.wave < 3]), 600)
        for category in CATEGORIES:
            mine = [n for n in self.table if n.category == category]
            self.assertGreaterEqual(len(mine), 10, category)
            if any(n.wave < 3 for n in mine):
                self.assertGreaterEqual(sum(n.wave == 1 for n in mine), 5, category)
        waves = [n.wave for n in self.table]
        self.assertEqual(waves, sorted(waves))

    def test_plurals_and_articles(self):
        for text, plural, article in (
                ("cat", "cats", "a"), ("mouse/mice", "mice", "a"), ("bread/-", "bread", ""), ("box", "boxes", "a"),
                ("/jeans", "jeans", ""), ("slice of pizza", "slices of pizza", "a"), ("puppy", "puppies", "a"),
                ("house with a garden", "houses with a garden", "a"), ("donkey", "donkeys", "a"),
                ("ufo/ufos", "ufos", "a"), ("umbrella", "umbrellas", "an"), ("hourglass", "hourglasses", "an"),
                ("unicorn", "unicorns", "a"), ("eucalyptus/eucalyptuses", "eucalyptuses", "a"),
                ("suv/suvs", "suvs", "an"), ("owl", "owls", "an"), ("ewe", "ewes", "a"), ("t-shirt", "t-shirts", "a")):
            name = Name.parse(text)
            self.assertEqual((name.plural, name.article), (plural, article), text)
        said = {w.singular: w.plural for n in self.table for w in n.names}
        for word, plural in (("sheep", "sheep"), ("wolf", "wolves"), ("goose", "geese"), ("fish", "fish"),
                             ("knife", "knives"), ("tomato", "tomatoes"), ("cactus", "cacti"), ("die", "dice")):
            self.assertEqual(said[word], plural)

    def test_names_in_other_languages(self):
        kinds = {"de": {"m", "f", "n", "p"}, "fr": {"m", "f", "mp", "fp"}, "es": {"m", "f", "mp", "fp"}}
        told, owner = collections.defaultdict(set), {}
        for line in NAMES.read_text(encoding="utf-8").splitlines()[1:]:
            noun, language, words = line.split("\t")
            told[noun].add(language)
            for word in words.split(","):
                singular, plural, kind = word.split("/")
                self.assertTrue(singular and plural, line)
                if language in kinds:
                    self.assertIn(kind, kinds[language], line)
                    self.assertEqual(singular == plural or not kind.endswith("p"), True, line)
                else:
                    self.assertEqual(singular, plural)
                self.assertEqual(owner.setdefault((language, singular.lower()), noun), noun, line)
        self.assertEqual(set(told) - {n.id for n in self.table}, set())
        for noun in self.table:
            self.assertEqual(told[noun.id], {"de", "fr", "es", "ja", "zh"}, noun.id)

    def test_the_world_knows_them_by_their_ids(self):
        ids = {n.id for n in self.table}
        self.assertEqual((SEAGOING | SPACEFARING) - ids, set())

    def test_no_noun_is_called_like_a_place(self):
        places = {w for words in GROUND_WORDS.values() for phrase in words for w in (phrase.split()[-1],)}
        self.assertEqual([n.id for n in self.table if n.name in places], [])


class Notice(unittest.TestCase):
    def test_every_source_is_credited(self):
        text = (nouns.TABLE.parent.parent.parent / "NOTICE").read_text(encoding="utf-8")
        for pin in [p for kind in json.loads(fetch.SOURCES.read_text()).values() for p in kind.values()]:
            self.assertIn("%s %s" % (pin["package"], pin["version"]), text)
        for licence in ("Permission is hereby granted, free of charge", "UNICODE LICENSE V3",
                        "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION",
                        "http://creativecommons.org/licenses/by/3.0/"):
            self.assertIn(licence, text)
        models = [line.split(":")[0] for line in text.splitlines() if " by " in line and ", CC" in line]
        self.assertEqual(models, notice.used())


class Models(unittest.TestCase):
    """A box of two colours with a hole cut out of its front by a texture."""

    def setUp(self):
        corners = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
        faces = [(1, 5, 7, 3), (0, 2, 6, 4), (2, 3, 7, 6), (0, 4, 5, 1), (0, 1, 3, 2), (4, 6, 7, 5)]
        text = ["mtllib a.mtl"] + ["v %d %d %d" % c for c in corners] + ["vt 0 0", "vt 1 0", "vt 1 1", "vt 0 1"]
        for number, face in enumerate(faces):
            text += ["usemtl " + ("front" if number == 0 else "rest")]
            text += ["f " + " ".join("%d/%d" % (k + 1, i + 1) for i, k in enumerate(face))]
        picture = numpy.full((32, 32, 4), 255, numpy.uint8)
        picture[..., 2:3] = 0
        picture[12:20, 12:20, 3] = 0
        data = io.BytesIO()
        Image.fromarray(picture).save(data, "png")
        files = {"m/a.obj": "\n".join(text), "m/a.mtl": "newmtl front\nmap_Kd t.png\nnewmtl rest\nKd 0 0 1\n",
                 "m/t.png": data.getvalue()}
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        mesh = model._load(zipfile.ZipFile(packed), "m/a.obj")
        self.mesh, self.size = mesh, numpy.array([1., 1., 1.])
        self.mesh.corners = mesh.corners - [.5, 0, .5]

    def test_what_is_near_hides_what_is_far(self):
        picture = model.render(self.mesh, self.size, 0)
        half = model.SIDE // 2
        self.assertEqual(picture[..., 3].max(), 255)
        red, green, blue, alpha = picture[int(half * 1.5), half].astype(int)
        self.assertTrue(red > 120 and green > 120 and blue < 90 and alpha == 255)   # the yellow front
        red, green, blue, alpha = picture[int(half * 1.1), half].astype(int)
        self.assertTrue(blue > 80 and red < 90 and alpha == 255)     # the back, through the hole in it
        self.assertEqual(picture[2, 2, 3], 0)

    def test_it_turns(self):
        left, right = (model.render(self.mesh, self.size, yaw).astype(float) for yaw in (30, -30))
        self.assertLess(numpy.abs(left[..., 3] - right[:, ::-1, 3])[:, 2:-2].mean(), 3)
        self.assertGreater(numpy.abs(left - right)[..., 0].mean(), 12)


class Pins(unittest.TestCase):
    def test_a_changed_package_is_refused_and_removed(self):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "a.tgz"
            file.write_bytes(b"abc")
            with self.assertRaisesRegex(fetch.FetchError, "pinned"):
                fetch._check(file, "x", "y")
            self.assertFalse(file.exists())

    def test_a_package_is_fetched_once_and_whole(self):
        calls = []

        def pack(pin, folder):
            calls.append(pin["package"])
            (folder / "package").mkdir()
            time.sleep(.05)
            if len(calls) == 1:
                raise fetch.FetchError("cut short")
            (folder / "package" / "icons.json").write_text("{}")

        with tempfile.TemporaryDirectory() as folder, unittest.mock.patch.object(fetch, "_npm", pack):
            with self.assertRaisesRegex(fetch.FetchError, "cut short"):
                fetch.fetch("noto", folder)
            with concurrent.futures.ThreadPoolExecutor() as pool:
                found = list(pool.map(lambda _: (fetch.fetch("noto", folder) / "icons.json").exists(), range(3)))
        self.assertEqual((found, len(calls)), ([True] * 3, 2))

    def test_every_source_is_pinned(self):
        pins = json.loads(fetch.SOURCES.read_text())
        kinds = {s.split(":")[0] for n in nouns.load() for s in n.sources}
        self.assertLessEqual(kinds, set(pins["npm"]) | set(pins["debian"]))
        for pin in pins["npm"].values():
            self.assertRegex(pin["integrity"], r"^sha512-[A-Za-z0-9+/]{86}==$")
        for pin in pins["debian"].values():
            self.assertRegex(pin["sha256"], r"^[0-9a-f]{64}$")


def disc(side, colour, hole=None):
    """A disc of one colour, standing left of the middle of an else empty drawing; hole: another in it."""
    y, x = numpy.mgrid[0:side, 0:side] / side
    out = numpy.zeros((side, side, 4), numpy.uint8)
    for radius, paint in ((.3, colour), (.14, hole)):
        if paint:
            inside = (x - .4) ** 2 + (y - .5) ** 2 < radius ** 2
            out[inside] = [round(255 * c) for c in paint] + [255]
    return out


def ready(drawings):
    done = {}
    for source, pixels in drawings.items():
        planes = sprites.cropped(pixels)
        done[source] = {side: sprites.to_bytes(sprites.squared(planes, side)).numpy()
                        for side in (sprites.WORKING, 256, 512)}
    return done


class Building(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.out = pathlib.Path(cls.folder.name) / "atlas"
        rows = ["ball\tsports and toys\t1\t2\t\tfluent:ball noto:ball\tballoon", "egg\tfood\t1\t1\tn\tfluent:egg\tegg",
                "lamp\thousehold\t2\t2\tgd\tfluent:lamp\tlamp"]
        cls.nouns = [Noun.from_row(r) for r in rows]
        drawings = {"fluent:ball": disc(300, (.8, .2, .2)), "noto:ball": disc(300, (.2, .3, .9)),
                    "fluent:egg": disc(300, (.8, .6, .4)), "fluent:lamp": disc(300, (.15, .15, .2), (1., .85, .3))}
        cls.ready = ready(drawings)
        with contextlib.redirect_stdout(io.StringIO()):
            build(cls.out, cls.nouns, cls.ready)
        cls.atlas = Atlas(cls.out)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_what_is_written_is_read(self):
        a = self.atlas
        self.assertEqual([n for n in a.nouns], self.nouns)
        rows = 11 + 11 + 1 + 11
        for side in SIDES:
            self.assertEqual(tuple(a.levels[side].shape), (rows, 4, side, side))
        self.assertEqual(a.colours(0), list(range(VARIANTS)))
        self.assertEqual(a.colours(1), [0])
        self.assertEqual(tuple(a.code.shape), (rows, 96))
        self.assertEqual(sorted(r for r in a.drawings.flatten().tolist() if r >= 0), list(range(rows)))
        self.assertEqual([round(s, 2) for s in a.shares[0].tolist()], [.85, .15])
        self.assertEqual([n.id for n in Atlas(self.out, waves=(2,)).nouns], ["lamp"])

    def test_sprites_are_cropped_and_stand_on_the_lower_edge(self):
        for side in (32, 96, 256, 512):
            sprite = self.atlas.sprites(self.atlas.index[0, :1], side)[0]
            rows, columns = (sprite[3] > .3).any(1), (sprite[3] > .3).any(0)
            for edge in (rows, rows.flip(0), columns, columns.flip(0)):
                self.assertTrue(edge[:1 + side // 128].any(), side)
        info = dict(zip(("left", "right", "top", "bottom", "foot", "foot_width"), self.atlas.info[0].tolist()))
        self.assertAlmostEqual(info["foot"], .5, delta=.02)
        self.assertAlmostEqual(info["top"] - info["bottom"], 1, delta=.01)
        self.assertLess(info["foot_width"], .75)

    def test_a_coloured_sprite_has_that_colour_at_every_resolution(self):
        for variant, name in enumerate(COLOUR_NAMES, 1):
            for noun, drawing, side in ((0, 0, 32), (0, 1, 96), (0, 0, 256)):
                row = self.atlas.drawings[noun, drawing, variant]
                sprite = self.atlas.sprites(row[None], side)[0]
                mean = sprite[:3].sum((1, 2)) / sprite[3].sum()
                self.assertLess((mean - torch.tensor(COLOURS[name])).abs().max(), .06, name)

    def test_glow_is_where_it_is_bright_and_warm(self):
        rows = torch.stack((self.atlas.index[2, 0], self.atlas.index[0, 0]))
        glow = self.atlas.glow(rows, 48)
        self.assertEqual(tuple(glow.shape), (2, 1, 48, 48))
        self.assertGreater(glow[0, 0, 24, 24], .9)
        self.assertEqual(glow[0, 0, 4, 24], 0)
        self.assertEqual(glow[1].max(), 0)

    def test_codes_keep_their_axes_when_nouns_are_added(self):
        before = self.atlas.code[self.atlas.index[1, 0]].clone()
        with contextlib.redirect_stdout(io.StringIO()):
            build(self.out, self.nouns[:2], self.ready, self.out / "basis.npz")
        again = Atlas(self.out)
        self.assertLess((again.code[again.index[1, 0]] - before).abs().max(), 1e-4)
        with contextlib.redirect_stdout(io.StringIO()):
            build(self.out, self.nouns, self.ready)

    def test_how_much_a_colour_word_changes(self):
        two = sprites.squared(sprites.cropped(disc(200, (.9, .5, .1), (.1, .1, .1))), 96)[None]
        share = [measure(two, breadth)[0, 5].item() for breadth in (OWN_HUE, WHOLE, WHOLE_AND_DARK)]
        self.assertLess(share[0], .9)
        self.assertAlmostEqual(share[2], 1, delta=.01)
        green = recolour(two, measure(two, OWN_HUE), torch.tensor([1 + COLOUR_NAMES.index("green")]))[0]
        self.assertLess((green[:3, 48, 48] - two[0, :3, 48, 48]).abs().max(), .02)     # the dark part
        self.assertGreater(green[1, 80, 48], 2 * green[0, 80, 48])

    def test_a_second_drawing_is_taken_where_it_fits(self):
        def sources(flags, *own):
            return nouns.with_second(Noun("a", "animals", 1, 1, flags, own, ()), {"cat"}).sources
        self.assertEqual(sources("h", "fluent:cat"), ("fluent:cat", "noto:cat"))
        for flags, own in (("o", "fluent:cat"), ("t", "fluent:cat"), ("", "fluent:dog"), ("", "noto:cat")):
            self.assertEqual(sources(flags, own), (own,))

    def test_shares_of_equal_drawings(self):
        noun = Noun("a", "animals", 1, 1, "", ("fluent:a", "fluent:b"), ())
        self.assertEqual(shares(noun), [.5, .5])


if __name__ == "__main__":
    unittest.main()
