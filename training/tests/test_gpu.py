"""What goes to a bare machine comes back: atlas, pieces, weights."""

import threads  # noqa: F401  (before torch)

import pathlib
import tempfile
import unittest

import sentencepiece
import torch

import gpu
from atlas import SIDES, Atlas, compact
from nets import pieces, tokenizer
from run import Checkpoint, annealing
from tests import synthetic
from world import staging
from world.cast import Cast


class Packing(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = pathlib.Path(self.folder.name)

    def test_an_atlas_comes_back_as_it_was(self):
        before = synthetic.atlas()
        compact.pack(before.folder, self.path / "a.zip")
        compact.unpack(self.path / "a.zip", self.path / "atlas")
        compact.unpack(self.path / "a.zip", self.path / "shared", processes=2)
        after, shared = Atlas(self.path / "atlas"), Atlas(self.path / "shared")
        for side in SIDES:
            self.assertTrue(torch.equal(after.levels[side], shared.levels[side]), side)
        self.assertEqual(after.nouns, before.nouns)
        for name in ("drawings", "info", "code", "glow_of"):
            self.assertTrue(torch.equal(getattr(after, name), getattr(before, name)), name)
        for side in SIDES:
            error = (after.levels[side].float() - before.levels[side].float()).abs()
            self.assertLess(float(error.mean()), 1.5, side)
            self.assertLess(float(error.pow(2).mean().sqrt()), 4, side)

    def test_captions_are_cut_as_sentencepiece_cuts_them(self):
        cast = Cast.of(synthetic.atlas())
        captions = [staging.sample(s, staging.NounMix(), cast).caption for s in range(3000)]
        tokenizer.train(captions, self.path / "spiece.model", 420)
        model = sentencepiece.SentencePieceProcessor()
        model.Load(str(self.path / "spiece.model"))
        pieces.export(model, self.path / "pieces.json")
        mine = pieces.Pieces(self.path / "pieces.json")
        for text in captions[:400] + ["", "  two   balls ", "qxzjv 12:5 & co", "\u8349\u5730 a \u5730\u5730b", "a\uff1ab"]:
            self.assertEqual(mine.EncodeAsIds(text), model.EncodeAsIds(text), text)

    def test_a_checkpoint_comes_back_with_its_weights(self):
        weights = {"a": torch.randn(3, 4), "_extra_state": ["x"]}
        state = {"config": {"x": 1}, "net": {"a": torch.zeros(3, 4)}, "ema": weights, "aux": weights, "optimiser": {},
                 "seen": 7, "seconds": 3., "ema_steps": 9}
        torch.save(gpu.small(state), self.path / "base.pt")
        run = self.path / "run"
        Checkpoint(run).save(dict(state, seen=3))
        gpu.merge(self.path / "base.pt", run)
        back, before = Checkpoint(run).load("cpu"), torch.load(run / "state.before.pt")
        self.assertEqual((back["seen"], back["config"], before["seen"]), (7, {"x": 1}, 3))
        self.assertNotIn("optimiser", back)
        for name in ("net", "ema", "aux"):
            self.assertEqual(back[name]["a"].dtype, torch.float32)
            torch.testing.assert_close(back[name]["a"], weights["a"], atol=1e-3, rtol=1e-3)
        self.assertEqual(back["aux"]["_extra_state"], ["x"])

    def test_kept_weights_make_run_folders(self):
        runs, back = self.path / "runs", self.path / "back"
        weights = {"a": torch.randn(3, 4), "_extra_state": ["x"]}
        for run in ("text", "base", "base-other", "checker"):
            Checkpoint(runs / run).save({"config": {"x": 1}, "net": weights, "ema": weights, "aux": weights, "seen": 7,
                                         "optimiser": {}, "seconds": 3., "ema_steps": 9})
        torch.save({"config": {"y": 2}, "model": weights, "parser": weights}, runs / "text" / "text.pt")
        (runs / "text" / "spiece.model").write_bytes(b"pieces")
        (back / "atlas").mkdir(parents=True)
        gpu.keep(runs, self.path / "packed")
        self.assertFalse((self.path / "packed" / "checker.pt").exists())
        gpu.keep(runs, self.path / "kept", gpu.KEPT)
        self.assertEqual({f.relative_to(self.path / "kept").as_posix() for f in (self.path / "kept").rglob("*.*")},
                         {"base.pt", "checker.pt", "text/text.pt", "text/spiece.model"})
        gpu.unpack(self.path / "kept", back)
        self.assertTrue((back / "checker" / "state.pt").exists())
        state, text = Checkpoint(back / "base").load("cpu"), torch.load(back / "text" / "text.pt")
        self.assertEqual((state["seen"], state["ema_steps"], text["config"]), (7, 0, {"y": 2}))
        for values in (state["net"], state["ema"], state["aux"], text["model"]):
            torch.testing.assert_close(values["a"].float(), weights["a"], atol=1e-3, rtol=1e-3)

    def test_annealing_falls_to_two_per_cent(self):
        self.assertEqual([annealing(p) for p in (-1., 0.)], [1., 1.])
        self.assertAlmostEqual(annealing(1.), .02)
        self.assertAlmostEqual(annealing(.5), .51)


if __name__ == "__main__":
    unittest.main()
