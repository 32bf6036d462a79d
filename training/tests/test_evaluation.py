"""Judging: what a scene truly holds passes its caption and fails every other one."""

import threads  # noqa: F401  (before torch)

import copy
import pathlib
import random
import stat
import sys
import tempfile
import types
import unittest

import torch
from PIL import Image

import checker
import sheet
from evaluation import diversity, edit, guidance, nouns, sheets, sr, table
from evaluation.engine import Engine, tensor
from evaluation.judge import RELATIONS, SIZED_LAYOUTS, assign, judge, mean
from tests import synthetic
from world import scene as worlds
from world import staging
from world.cast import Cast
from world.language import COLOUR_NAMES, GROUNDS, LAYOUTS, NUMBERS, PATTERNS, SHAPES, TIMES
from world.render import render


def truth(scene):
    """What a checker without errors sees."""
    return {"ground": scene.ground, "time": scene.time, "backdrop": scene.backdrop, "certainty": 1.,
            "objects": [{"shape": o.shape, "colour": o.colour, "pattern": o.pattern, "x": o.x,
                         "y": o.y - .95 * o.r, "r": o.r, "half": .95 * o.r, "grey": o.shape, "score": 1.,
                         "certainty": 1.}
                        for o in scene.objects]}


def scenes(count, layouts=LAYOUTS[1:]):
    return [worlds.sample(i, worlds.Mix(), layouts[i % len(layouts)], None) for i in range(count)]


def other(names, name):
    return names[(names.index(name) + 1) % len(names)]


class Editing(unittest.TestCase):
    def test_what_is_asked_for_is_not_there_yet_and_lies_within_the_mask(self):
        for number, (name, (make, _)) in enumerate(edit.CASES.items()):
            rng = random.Random(number)
            for seed in range(6):
                image, hole, scene = make(rng, worlds.Mix(), seed)
                after = edit.shown([scene])[0]
                self.assertTrue(scene.caption and scene.names_place, name)
                self.assertNotEqual(image.tobytes(), after.tobytes(), name)
                if hole:
                    own = image.copy()
                    own.paste(after, mask=hole)
                    self.assertTrue(edit.kept_as_they_were(image, own, hole))
                    self.assertFalse(edit.kept_as_they_were(image, image.point(lambda v: v ^ 1), hole))
                if name == "add an object":     # outside the mask, nothing but a touch of shadow differs
                    error = (tensor([own]) - tensor([after])).abs()
                    self.assertLess(float(error.max()), .15, (name, seed))

    def test_a_daub_is_a_colour_of_the_palette(self):
        self.assertEqual(edit.daub((.9, .1, .1)), edit.PALETTE[0])
        image, _, scene = edit.painted(random.Random(0), worlds.Mix(), 1)
        self.assertLessEqual(len(image.getcolors()), 2 + len(scene.objects))


class Judging(unittest.TestCase):
    def assert_wrong(self, scene, seen, attribute):
        """Only this attribute is wrong, and therefore the whole."""
        scores = judge(scene, seen)
        self.assertLess(scores.pop(attribute), 1., (attribute, scene.caption))
        self.assertEqual(scores.pop("whole"), 0., (attribute, scene.caption))
        self.assertEqual(set(scores.values()), {1.}, (attribute, scene.caption))

    def test_the_truth_passes(self):
        for s in scenes(400):
            scores = judge(s, truth(s))
            self.assertEqual(set(scores.values()), {1.}, (s.caption, scores))
            self.assertEqual("relation" in scores, s.layout in RELATIONS)

    def test_wrong_names_fail(self):
        for s in scenes(200):
            for attribute, names in (("shape", SHAPES), ("colour", COLOUR_NAMES)):
                wrong, o = copy.deepcopy(s), s.objects[-1]
                setattr(wrong.objects[-1], attribute, other(names, getattr(o, attribute)))
                self.assert_wrong(wrong, truth(s), attribute)

    def test_a_pattern_is_judged_where_one_is_named(self):
        for s in scenes(100, ["single", "count"]):
            wrong = copy.deepcopy(s)
            for o in wrong.objects:
                o.pattern = other(PATTERNS, o.pattern)
            scores = judge(wrong, truth(s))
            self.assertEqual(scores.get("pattern"), None if wrong.objects[0].pattern == "plain" else 0.)
            self.assertEqual(scores["whole"], 0.)

    def test_wrong_counts_fail(self):
        for s in scenes(60, ["count"]):
            more, fewer = copy.deepcopy(s), truth(s)
            more.objects.append(copy.deepcopy(s.objects[0]))
            self.assertEqual(judge(more, truth(s))["count"], 0.)
            self.assertLess(judge(more, truth(s))["shape"], 1.)
            fewer["objects"].append(dict(fewer["objects"][0], x=0.))
            self.assert_wrong(s, fewer, "count")

    def test_swapped_objects_fail(self):
        swapped = 0
        for s in scenes(240, ["left", "right", "above", "on top", "front", "behind", "between"]):
            a, b = s.objects[:2]
            if (a.shape, a.colour, a.pattern) == (b.shape, b.colour, b.pattern):
                continue
            seen = truth(s)
            for k in ("shape", "colour", "pattern"):
                seen["objects"][0][k], seen["objects"][1][k] = getattr(b, k), getattr(a, k)
            scores = judge(s, seen)
            self.assertEqual((scores["relation"], scores["whole"]), (0., 0.), s.caption)
            self.assertEqual((scores["shape"], scores["colour"]), (1., 1.), s.caption)
            swapped += 1
        self.assertGreater(swapped, 200)

    def test_wrong_surroundings_fail_where_they_are_named(self):
        free = 0
        for s in scenes(400):
            for attribute, names, named in (("ground", GROUNDS, "scene"), ("time", TIMES, "time")):
                seen = truth(s)
                seen[attribute] = other(names, seen[attribute])
                if named in judge(s, seen):
                    self.assert_wrong(s, seen, named)
                else:
                    self.assertEqual(judge(s, seen)["whole"], 1.)
                    free += 1
            if s.ground == "plain" and s.names_place:
                self.assert_wrong(s, dict(truth(s), backdrop="another"), "scene")
        self.assertGreater(free, 20)

    def test_a_colour_that_is_left_open_is_not_judged(self):
        s = worlds.sample(1, worlds.Mix(colourless=1.), "single")
        seen = truth(s)
        seen["objects"][0]["colour"] = other(COLOUR_NAMES, s.objects[0].colour)
        self.assertNotIn("colour", judge(s, seen))
        s.objects[0].names_colour = True
        self.assertEqual(judge(s, seen)["colour"], 0.)

    def test_sizes_are_told_apart(self):
        for s in scenes(200, list(SIZED_LAYOUTS)):
            for i, o in enumerate(s.objects):
                if o.size:
                    wrong = copy.deepcopy(s)
                    wrong.objects[i].size = "large" if o.size == "small" else "small"
                    self.assert_wrong(wrong, truth(s), "size")

    def test_the_best_assignment_is_found(self):
        s = next(s for s in scenes(300, ["next"]) if s.objects[0].shape != s.objects[1].shape)
        a, b = s.objects
        a.colour = b.colour = "red"
        seen = truth(s)["objects"]
        seen[0].update(colour="blue", score=.5)         # its shape alone tells what it is meant to be
        self.assertEqual([f["shape"] for f in assign(s.objects, seen)], [a.shape, b.shape])
        self.assertEqual(assign(s.objects, []), (None, None))

    def test_nothing_is_no_match(self):
        s = scenes(1)[0]
        scores = judge(s, dict(truth(s), objects=[]))
        self.assertEqual((scores["shape"], scores["colour"], scores["count"], scores["whole"]), (0, 0, 0, 0))

    def test_means_are_over_those_that_have_it(self):
        self.assertEqual(mean([{"a": 1., "b": 0.}, {"a": 0.}]), {"a": .5, "b": 0.})


class Checking(unittest.TestCase):
    def test_targets_are_where_the_objects_are(self):
        cast = Cast.of(synthetic.atlas())
        some = scenes(24) + [staging.sample(i, staging.NounMix(solids=0), cast) for i in range(24)]
        heat, rows, where = checker.targets(some, cast)
        net = checker.Checker([n.id for n in cast.nouns])
        self.assertEqual(len(rows), sum(len(s.objects) for s in some))
        for n, x, y, r, _, shape, colour, pattern in rows.tolist():
            self.assertGreater(heat[int(n), int(y * checker.CELLS), int(x * checker.CELLS)], .6)
            o = min(some[int(n)].objects, key=lambda o: abs(o.x - x) + abs(o.y - .95 * o.r - y))
            self.assertEqual((net.label(int(shape)), checker.SHADES[int(colour)], PATTERNS[int(pattern)]),
                             (o.shape, o.colour or "own", o.pattern))
            self.assertGreater(r, o.r - 1e-6)
        for s, (ground, time, backdrop) in zip(some, where.tolist()):
            self.assertEqual((GROUNDS[ground], TIMES[time]), (s.ground, s.time))
            self.assertEqual(backdrop >= 0, s.ground == "plain")

    def test_close_ups_are_the_same_at_every_size_and_place(self):
        s = scenes(1, ["single"])[0]
        o = s.objects[0]
        for picture_side, tolerance in ((64, .12), (512, .02)):
            images = torch.stack(torch.meshgrid(*[(torch.arange(picture_side) + .5) / picture_side] * 2,
                                                indexing="ij"))[None].expand(1, 2, -1, -1)
            shown = checker.close_ups(images, torch.tensor([0]), torch.tensor([o.x]), torch.tensor([.5]),
                                      torch.tensor([.2]))
            middle = shown[0, :, 23:25, 23:25].mean((1, 2))
            self.assertLess(abs(float(middle[0]) - .5) + abs(float(middle[1]) - o.x), tolerance)
            span = float(shown[0, 0, -1, 0] - shown[0, 0, 0, 0])
            self.assertLess(abs(span - 2 * 1.35 * .2 * 47 / 48), tolerance)

    def test_losses_are_finite_without_objects_or_backdrops(self):
        torch.manual_seed(0)
        net = checker.Checker(["cat", "dog"])
        some = scenes(8, ["empty"])
        loss, _ = checker.losses(net, render(some, 64) * 2 - 1, *checker.targets(some, None))
        self.assertTrue(torch.isfinite(loss))

    def test_a_checker_goes_on_with_more_nouns(self):
        torch.manual_seed(0)
        old, more = checker.Checker(["cat", "dog"]).eval(), checker.Checker(["owl", "dog", "cat"]).eval()
        more.load_state_dict(old.state_dict())
        shown = torch.rand(3, 3, 48, 48)
        a, b = old.grey_kinds(shown), more.grey_kinds(shown)
        torch.testing.assert_close(a[:, :len(SHAPES)], b[:, :len(SHAPES)])
        torch.testing.assert_close(a[:, len(SHAPES):], b[:, [-1, -2]])

    def test_what_is_seen_has_names(self):
        torch.manual_seed(0)
        some = scenes(4)
        for seen in checker.detect(checker.Checker(["cat", "dog"]).eval(), render(some, 64) * 2 - 1, threshold=.01):
            self.assertIn(seen["ground"], GROUNDS)
            self.assertTrue(0 < seen["certainty"] <= 1)
            for f in seen["objects"]:
                for name in (f["shape"], f["grey"]):
                    self.assertIn(name, SHAPES + ["noun:cat", "noun:dog"])


class Nouns(unittest.TestCase):
    def made(self):
        context = types.SimpleNamespace(cast=Cast.of(synthetic.atlas()), seed=5, count=12, waves=None)
        return context.cast, nouns.Maker(context).rows(1)

    def test_every_noun_is_asked_for(self):
        cast, rows = self.made()
        self.assertEqual({s.objects[0].noun for s in rows["one noun"]}, set(range(len(cast.nouns))))

    def test_scenes_are_of_their_row(self):
        _, rows = self.made()
        for s in rows["counting 2..5"]:
            self.assertTrue(any(w in s.caption for w in NUMBERS[len(s.objects)]), s.caption)
        for s in rows["colours of two nouns"]:
            self.assertTrue(all(o.variant for o in s.objects) and len(s.objects) == 2, s.caption)
        for s in rows["places and times"]:
            self.assertTrue(s.names_place, s.caption)
        self.assertEqual({len({o.group for o in s.objects}) for s in rows["two nouns"]}, {2, 3})

    def test_the_truth_passes_and_another_noun_does_not(self):
        cast, rows = self.made()
        for name, some in rows.items():
            for s in some:
                scores = nouns.extra(s, judge(s, truth(s)))
                self.assertEqual(set(scores.values()), {1.}, (name, s.caption, scores))
                wrong = truth(s)
                for f in wrong["objects"]:
                    f["shape"] = "noun:none"
                scores = nouns.extra(s, judge(s, wrong))
                self.assertEqual((scores["shape"], scores["grey"], scores["whole"]), (0., 1., 0.))
                self.assertEqual(scores.get("both", 0.) + scores.get("counted", 0.), 0.)

    def test_sheets_show_what_training_never_saw(self):
        context = types.SimpleNamespace(cast=Cast.of(synthetic.atlas()), seed=5, count=3, waves=None)
        captions = sheets.held_out(context)
        self.assertTrue(captions)
        self.assertEqual(captions, sheets.held_out(context))
        context.cast = None
        self.assertEqual(len(sheets.held_out(context)), 48)

    def test_weak_nouns_are_listed(self):
        cast, rows = self.made()
        entries = [(s, s, truth(s), truth(s)) for s in rows["one noun"]]
        for f in entries[0][2]["objects"]:
            f["shape"] = "noun:other"
        found = nouns.by_noun(entries, cast)
        first = cast.nouns[entries[0][0].objects[0].noun].id
        self.assertEqual([n for n, r in found.items() if r["drawn"] < .5], [first])
        self.assertEqual(found[first]["seen"], ["other"])


class Measures(unittest.TestCase):
    def test_no_caption_is_judged_as_its_own_chance(self):
        for n in (2, 3, 100):
            items = [object() for _ in range(n)]
            out = table.deranged(items, n)
            self.assertEqual(set(out), set(items))
            self.assertFalse(any(a is b for a, b in zip(items, out)))

    def test_effective_number(self):
        self.assertAlmostEqual(diversity.effective_number(list("abcd") * 3), 4)
        self.assertAlmostEqual(diversity.effective_number("aaaa"), 1)

    def test_burnt_pixels(self):
        picture = Image.new("RGB", (4, 4), (10, 128, 250))
        self.assertEqual(guidance.burnt([picture]), 0.)
        picture.putpixel((0, 0), (255, 9, 9))
        picture.putpixel((1, 0), (9, 0, 9))
        self.assertEqual(guidance.burnt([picture]), 2 / 16)

    def test_detail_is_what_is_finer_than_three_pixels(self):
        slope = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
        stripes = (torch.arange(64) % 2).float().expand(1, 3, 64, 64)
        self.assertLess(sr.detail(slope), .01)
        self.assertAlmostEqual(sr.detail(stripes), ((62 * 4 + 2 * 1) / 9 / 64) ** .5, 5)    # two columns at the edge

    def test_sheets_take_any_caption(self):
        pictures = [Image.new("RGB", (8, 8), (k, 0, 0)) for k in (10, 200)]
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "sheet.png"
            sheet.save(path, pictures, ["\u8349 ball", ""], 2, 16)
            saved = Image.open(path)
            self.assertEqual([saved.getpixel((x, 8))[0] for x in (8, 8 + 22)], [10, 200])

    def test_open_captions_have_their_object(self):
        class Context:
            seed, mix = 0, worlds.Mix()
        for s in diversity.exact_scenes(Context, ("star", "yellow"), "grass", 5):
            self.assertEqual((s.ground, s.time, s.objects[0].shape), ("grass", "day", "star"))

    def test_pictures_come_in_the_order_of_the_prompts(self):
        program = """#!%s
import sys
from PIL import Image
words = [w for w in sys.argv[2:] if w != "--quiet"]
value = dict(zip(words[::2], words[1::2]))
for i, line in enumerate(open(value["--prompts"])):
    shade = int(line) + int(value["--seed"]) + int(value["--steps"])
    Image.new("RGB", (2, 2), (shade, 0, 255)).save(value["-o"].replace(".png", "-%%d.png" %% (i + 1)))
""" % sys.executable
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "program"
            path.write_text(program)
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
            drawn = Engine(path, "model").draw([str(i) for i in range(12)], 100, options=["--steps", "7"])
        values = tensor(drawn)
        self.assertEqual(values.shape, (12, 3, 2, 2))
        self.assertEqual(((values[:, 0, 0, 0] + 1) * 127.5).round().tolist(), [107. + i for i in range(12)])
        self.assertTrue((values[:, 2] == 1).all())


if __name__ == "__main__":
    unittest.main()
