"""The renderer and the captions: what a caption says is what the scene holds and the picture shows."""

import threads  # noqa: F401  (before torch)

import copy
import dataclasses
import re
import unittest

import torch
import torch.nn.functional as F

from world import scene as worlds
from world.language import (COLOUR_WORDS, COLOURS, GROUND_WORDS, LAYOUTS, PATTERN_WORDS, PATTERNS,
                            SHAPE_WORDS, SOLIDS, TIME_WORDS)
from world.render import render


def mean_colour(picture, obj, res):
    """Mean of a small patch in the middle of an object."""
    x, y = int(obj.x * res), int((obj.y - .8 * obj.r) * res)
    return picture[:, y - 2:y + 3, x - 2:x + 3].mean((1, 2))


class Captions(unittest.TestCase):
    def test_objects_are_named_with_their_colour_and_pattern(self):
        for seed in range(400):
            s = worlds.sample(seed, worlds.Mix())
            for o in s.objects:
                words = [w.strip(",") for w, g in zip(s.words, s.groups) if g == o.group]
                text = " ".join(words)
                self.assertTrue(any(c in words for c in COLOUR_WORDS.get(o.colour, [o.colour])), s.caption)
                if o.pattern != "plain":
                    self.assertTrue(any(p in text for p in PATTERN_WORDS[o.pattern]), s.caption)
                stems = SHAPE_WORDS.get(o.shape, [o.shape]) + [o.shape]
                self.assertTrue(any(w.startswith(t[:4]) for w in words for t in stems + ["tori"]), s.caption)

    def test_relations_hold(self):
        for layout in LAYOUTS[2:]:
            for seed in range(60):
                s = worlds.sample(seed, worlds.Mix(), layout)
                first = [o for o in s.objects if o.group == 1]
                second = [o for o in s.objects if o.group == 2]
                if layout in ("left", "next"):
                    self.assertLess(first[0].x + .2, second[0].x)
                elif layout == "right":
                    self.assertGreater(first[0].x, second[0].x + .2)
                elif layout in ("above", "on top", "count above"):
                    self.assertTrue(all(o.y < second[0].y - second[0].r for o in first))
                elif layout in ("front", "behind"):
                    self.assertGreater(first[0].y, second[0].y)
                elif layout == "between":
                    third = next(o for o in s.objects if o.group == 3)
                    self.assertLess((second[0].x - first[0].x) * (third.x - first[0].x), 0)

    def test_held_out_combinations_are_kept_apart(self):
        for seed in range(300):
            self.assertFalse(worlds.HELDOUT.hits(worlds.sample(seed, worlds.Mix())))
        self.assertTrue(worlds.HELDOUT.hits(worlds.sample(1, worlds.Mix(), held_out=True)))

    def test_a_caption_knows_what_it_names(self):
        times = [w for words in TIME_WORDS.values() for w in words]
        for seed in range(400):
            s = worlds.sample(seed, worlds.Mix(), LAYOUTS[1 + seed % (len(LAYOUTS) - 1)])
            caption = s.caption.replace(",", "")
            places = GROUND_WORDS.get(s.ground, ["on a %s background" % s.backdrop])

            def says(phrases):      # a made-up word may stand inside a phrase
                return any(re.search(phrase.replace(" ", " (?:[a-z]+ )?"), caption) for phrase in phrases)
            self.assertEqual(says(places), s.names_place, caption)
            if s.time != "day" or says(times):
                self.assertEqual(says(times), s.names_time, caption)

    def test_a_place_without_a_time_is_by_day(self):
        silent = 0
        for seed in range(600):
            s = worlds.sample(seed, worlds.Mix(placeless=.5), LAYOUTS[1 + seed % (len(LAYOUTS) - 1)])
            if s.ground not in ("plain", "tiles") and not s.names_time:
                self.assertFalse(s.names_place, s.caption)
                silent += s.time != "day"
        self.assertGreater(silent, 10)

    def test_a_caption_may_leave_colours_open(self):
        for seed in range(200):
            s = worlds.sample(seed, worlds.Mix(colourless=1.), "single")
            words = COLOUR_WORDS.get(s.objects[0].colour, []) + [s.objects[0].colour]
            subject = " %s " % " ".join(w for w, g in zip(s.words, s.groups) if g)
            self.assertFalse(s.objects[0].names_colour)
            self.assertFalse(any(" %s " % w in subject for w in words), s.caption)
            self.assertTrue(worlds.sample(seed, worlds.Mix(), "single").objects[0].names_colour)

    def test_a_seed_is_a_scene(self):
        a, b = worlds.sample(5, worlds.Mix()), worlds.sample(5, worlds.Mix())
        self.assertEqual(a, b)


class Pictures(unittest.TestCase):
    def scenes(self, count=12):
        return [worlds.sample(s, worlds.Mix()) for s in range(count)]

    def test_plain_objects_have_their_colour(self):
        for seed in range(60):
            s = worlds.sample(seed, worlds.Mix(pattern=0), "single")
            o = s.objects[0]
            if o.shape not in ("sphere", "cube", "cylinder", "heart") or s.time == "sunset":
                continue
            seen = mean_colour(render([s], 64)[0], o, 64)
            near = min(COLOURS, key=lambda c: float(
                (F.normalize(seen - .02, dim=0) - F.normalize(torch.tensor(COLOURS[c]), dim=0)).norm()
                + .4 * abs(float(seen.mean()) - sum(COLOURS[c]) / 3)))
            grey = ("white", "black")
            self.assertTrue(near == o.colour or (near in grey and o.colour in grey), (s.caption, near))

    def test_objects_are_where_the_scene_says(self):
        for seed in range(80):
            s = worlds.sample(seed, worlds.Mix(pattern=0), "single")
            o = s.objects[0]
            bare = dataclasses.replace(s, objects=[])
            changed = (render([s], 128) - render([bare], 128)).abs().amax(1)[0]
            place = (torch.arange(128) + .5) / 128
            near = ((place[None] - o.x) / o.r) ** 2 + ((place[:, None] - o.y) / o.r + 1) ** 2 < 1.5 ** 2
            above = place[:, None] < o.y - .5 * o.r         # where no shadow falls
            self.assertLess(float(changed[above & ~near].amax()), .02, s.caption)
            changed = changed * above
            x = float((changed * place[None]).sum() / changed.sum())
            self.assertLess(abs(x - o.x), .3 * o.r, s.caption)

    def test_patterns_show(self):
        for pattern in PATTERNS[1:]:
            for seed in range(12):
                s = worlds.sample(seed, worlds.Mix(pattern=0), "single")
                o = s.objects[0]
                if o.shape not in SOLIDS or o.colour == "white":
                    continue
                plain, other = render([s], 64), copy.deepcopy(s)
                other.objects[0].pattern = pattern
                self.assertGreater(float((render([other], 64) - plain).abs().amax()), .15, (pattern, s.caption))

    def test_resolutions_agree(self):
        scenes = self.scenes()
        small, large = render(scenes, 64), F.avg_pool2d(render(scenes, 512), 8)
        error = (small - large).pow(2).mean((1, 2, 3))
        self.assertGreater(float(-10 * torch.log10(error.max())), 26)
        self.assertGreater(float(-10 * torch.log10(error.mean())), 31)

    def test_a_window_is_part_of_the_picture(self):
        scenes = self.scenes(6)
        whole = render(scenes, 256)
        origins = [(40 + 20 * i, 90) for i in range(6)]
        parts = render(scenes, 256, origins, (64, 80))
        for i, (x, y) in enumerate(origins):
            torch.testing.assert_close(parts[i], whole[i, :, y:y + 64, x:x + 80], atol=2e-3, rtol=0)

    def test_the_batch_does_not_matter(self):
        scenes = self.scenes(5)
        torch.testing.assert_close(render(scenes, 64)[3:4], render(scenes[3:4], 64), atol=1e-4, rtol=0)


if __name__ == "__main__":
    unittest.main()
