"""The trainers' sources of pictures and what they are taught beside them, on a synthetic atlas."""

import threads  # noqa: F401  (before torch)

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import types
import unittest
import unittest.mock

import torch

import composing
import probe
import run
import schedule
import train_base
import train_text
from nets import kernels, t5, tokenizer, unet
from optimiser import Optimiser
from tests import synthetic
from world import staging
from world.cast import Cast
from world.language import SHAPES


def _one_dies(rank, opt, average):
    if not rank:
        raise ValueError("the first worker")
    average.mix(rank, [torch.zeros(1)])


def _waits(rank, opt, average):
    (opt.folder / str(rank)).write_text(str(os.getpid()))
    time.sleep(60)


def _is_running(pid):
    stat = pathlib.Path("/proc/%s/stat" % pid)
    return stat.exists() and stat.read_text().rpartition(") ")[2][0] != "Z"


class Workers(unittest.TestCase):
    def test_they_end_with_their_parent(self):
        code = ("import pathlib, signal, sys, types, torch, run; from tests import test_training as t;"
                "signal.signal(signal.SIGINT, signal.SIG_IGN);"
                "run.start(types.SimpleNamespace(workers=2, folder=pathlib.Path(sys.argv[1])), t._waits, torch.nn.Linear(1, 1))")
        with tempfile.TemporaryDirectory() as folder:
            parent = subprocess.Popen([sys.executable, "-B", "-c", code, folder])
            files, end = [pathlib.Path(folder, name) for name in "01"], time.time() + 60
            while time.time() < end and not all(f.exists() and f.read_text() for f in files):
                time.sleep(0.1)
            parent.kill()
            parent.wait()
            pids, end = [f.read_text() for f in files], time.time() + 20
            while time.time() < end and any(map(_is_running, pids)):
                time.sleep(0.1)
            self.assertFalse(any(map(_is_running, pids)))

    def test_a_dead_worker_ends_the_others(self):
        with self.assertRaisesRegex(torch.multiprocessing.ProcessRaisedException, "the first worker"):
            run.start(types.SimpleNamespace(workers=2), _one_dies, torch.nn.Linear(1, 1, bias=False))


class Folder(unittest.TestCase):
    """A run of train_text.py, untrained, and options that name it."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.path = pathlib.Path(cls.folder.name)
        (cls.path / "mix.json").write_text(json.dumps({"solids": .3}))
        atlas = synthetic.atlas()
        cls.cast = Cast.of(atlas)
        captions = [staging.sample(s, staging.NounMix(), cls.cast).caption for s in range(3000)]
        tokenizer.train(captions, cls.path / "spiece.model", 420)
        cls.tok = tokenizer.Tokenizer(cls.path / "spiece.model")
        torch.manual_seed(0)
        cls.encoder = t5.T5Encoder(dict(t5.default_config(len(cls.tok)), d_model=16, d_ff=16, num_heads=1, num_layers=1)).eval()

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def options(self, **more):
        return argparse.Namespace(**dict(dict(
            mix=self.path / "mix.json", atlas=synthetic.atlas().folder, waves=[1], device="cpu", pool=256, reuse=2.,
            text=self.path, composers=0, object_weight=4., aux_weight=.1, focus=2.), **more))


class Half(unittest.TestCase):
    def test_products_are_in_bfloat16_where_that_is_faster(self):
        self.addCleanup(setattr, t5, "HALF", False)
        self.addCleanup(setattr, unet, "HALF", False)
        self.addCleanup(setattr, unet, "KERNELS", None)
        for seconds, device, expected in ((1, "cpu", True), (3, "cpu", False), (1, "cuda", False)):
            taken = {torch.bfloat16: seconds, torch.float32: 2}
            with unittest.mock.patch.object(run, "seconds_of_product", lambda a: taken[a.dtype]):
                run.choose_arithmetic(device)
            self.assertEqual((unet.HALF, t5.HALF), (expected, expected))
            self.assertIs(unet.KERNELS, kernels.load() if device == "cpu" else None)


class Probe(Folder):
    def test_errors_are_those_on_objects_and_elsewhere(self):
        torch.save({"config": self.encoder.config, "model": self.encoder.state_dict()}, self.path / "text.pt")
        images = probe.Images(self.options(count=70))
        inside, outside = images.masks, 1 - images.masks
        self.assertEqual((len(images.images), len(images.text)), (70, 70))
        squares = images.images.pow(2).mean(1, True)
        grey = [float((squares * m).sum() / m.sum()) for m in (inside, outside)]
        for errors in probe.errors(lambda noisy, t, text: torch.zeros_like(noisy), images):
            for a, b in zip(errors, grey):
                self.assertAlmostEqual(a, b, places=4)
        # knows the noise of the first part of the first timestep only
        noise = iter(images.noise[probe.TIMESTEPS[0]].split(probe.AT_ONCE))

        def knows(noisy, t, text):
            alpha, sigma = schedule.signal_noise(t)
            return (noisy - sigma * next(noise)) / alpha if int(t[0]) == probe.TIMESTEPS[0] else noisy
        known, *unknown = probe.errors(knows, images)
        self.assertLess(max(known), 1e-9)
        self.assertGreater(min(map(min, unknown)), .1)


class Pools(Folder):
    def check(self, pool):
        seen = 0
        for _ in range(12):
            images, text, maps, masks = pool.batch(32)
            seen += 32
            self.assertEqual((images.shape, text.shape), ((32, 3, 64, 64), (32, tokenizer.LENGTH, 16)))
            self.assertTrue(-1 <= float(images.min()) and float(images.max()) <= 1)
            self.assertEqual(int((maps[:, 0] > 0).any()), int((masks > .5).any()))
        return seen

    def test_pictures_are_composed_as_they_are_shown(self):
        pool = composing.Pool(self.options(), self.encoder, self.tok, 5)
        seen = self.check(pool)
        self.assertEqual(pool.composer.seed - 5, 8 * composing.PART + seen // 2)
        ids = {o for o in pool.composer.mix.nouns}
        self.assertNotIn("glasses", ids)        # of the second wave

    def test_other_processes_compose(self):
        pool = composing.FedPool(self.options(composers=2), self.encoder, self.tok, 5)
        try:
            self.check(pool)
            self.assertEqual(pool.filled, 256)
        finally:
            for process in pool.processes:
                process.terminate()
                process.join()

    def test_some_captions_are_withheld(self):
        pool = composing.Pool(self.options(), self.encoder, self.tok, 5, untold=1.)
        _, text, _, _ = pool.batch(8)
        torch.testing.assert_close(text, pool.null.expand(8, -1, -1))


class Teaching(Folder):
    def test_the_second_task_is_learned_from_what_is_seen(self):
        """A head that is shown the maps themselves learns to name them."""
        torch.manual_seed(0)
        pool = composing.Pool(self.options(reuse=1000.), self.encoder, self.tok, 5)
        ids = [n.id for n in self.cast.nouns]
        aux = train_base.Auxiliary(24, ids)
        adam = torch.optim.Adam(aux.parameters(), .05)
        table = torch.randn(2 + len(SHAPES) + len(ids), 24)
        codes = synthetic.atlas().code
        for _ in range(150):
            _, _, maps, _ = pool.batch(16)
            loss, parts = aux(table[maps[:, 0]].permute(0, 3, 1, 2), maps, codes)
            adam.zero_grad()
            loss.backward()
            adam.step()
        self.assertLess(float(parts["kind"]), .2)

    def test_fixed_sizes_change_nothing(self):
        """What a CUDA graph needs computes the same loss and gradient; nothing seen is no error."""
        torch.manual_seed(0)
        pool = composing.Pool(self.options(reuse=1000.), self.encoder, self.tok, 5)
        aux = train_base.Auxiliary(8, [n.id for n in self.cast.nouns])
        features, codes = torch.randn(16, 8, 32, 32), synthetic.atlas().code
        _, _, maps, _ = pool.batch(16)
        for maps in (maps, maps * 0):
            results = []
            for aux.fixed_sizes in (False, True):
                aux.zero_grad()
                loss, parts = aux(features, maps, codes)
                loss.backward()
                results.append([loss.detach(), *parts.values(), *(p.grad.clone() for p in aux.parameters())])
            for one, other in zip(*results):
                torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)

    def test_a_head_goes_on_with_more_nouns(self):
        old, more = train_base.Auxiliary(8, ["a", "b"]), train_base.Auxiliary(8, ["b", "c", "a"])
        more.load_state_dict(old.state_dict())
        n = len(SHAPES)
        self.assertTrue(torch.equal(more.kind.weight[n], old.kind.weight[n + 1]))
        self.assertTrue(torch.equal(more.kind.weight[n + 2], old.kind.weight[n]))
        self.assertTrue(torch.equal(more.kind.weight[:n], old.kind.weight[:n]))

    def test_a_run_goes_on_where_it_stopped(self):
        out = self.path / "base"
        net_file = self.path / "net.json"
        net_file.write_text(json.dumps({"channels": [16, 16], "layers": [1, 1], "attention": [False, True], "patch": 2,
                                        "text": 16, "cross": 16, "head": 8}))
        opt = run.options(argparse.ArgumentParser(), data_seed=1).parse_args(["--out", str(out), "--samples", "64"])
        vars(opt).update(vars(self.options()), net=net_file, pool=512, batch=16)
        for samples, steps in ((64, 4), (128, 8)):
            opt.samples = samples
            torch.manual_seed(1)
            net, aux = train_base.make_nets(opt)
            opt.net = self.path / "no such file"        # the run has its network
            optimiser = Optimiser(net, aux.parameters(), every=2)
            codes = synthetic.atlas().code
            average = types.SimpleNamespace(workers=1, mix=lambda *args: None)
            run.loop(0, opt, average, net, optimiser, lambda seed: composing.Pool(opt, self.encoder, self.tok, seed),
                     lambda *batch: train_base.losses(opt, net, aux, codes, *batch), aux)
            state = torch.load(out / "state.pt")
            self.assertEqual((state["seen"], state["ema_steps"]), (samples, steps))


class Encoder(Folder):
    def test_targets_name_what_the_words_mean(self):
        atlas = synthetic.atlas()
        for seed in range(60):
            s = staging.sample(seed, staging.NounMix(solids=0.), self.cast)
            ids, groups = self.tok.encode_words(s.words, s.groups)
            classes, places, rows = train_text.object_targets(s, groups, atlas)
            for group, (kind, colour, _, _, count), row in zip(groups, classes, rows):
                objs = [o for o in s.objects if o.group == group]
                if not group:
                    self.assertEqual((kind, row), (train_text.NOT_SAID, -1))
                    continue
                self.assertEqual((kind, count), (train_text.kind_of(objs[0]), len(objs) - 1))
                if objs[0].noun >= 0:
                    self.assertEqual((colour, row), (objs[0].variant, int(atlas.drawings[objs[0].noun, 0, objs[0].variant])))

    def test_codes_are_planted_in_whole_names(self):
        torch.manual_seed(0)
        atlas = synthetic.atlas()
        config = dict(t5.default_config(len(self.tok)), d_model=128)
        encoder = t5.T5Encoder(config)
        before = encoder.shared.weight.clone()
        count = train_text.plant_codes(encoder, self.tok, self.cast, atlas)
        changed = (encoder.shared.weight != before).any(1)
        self.assertEqual(int(changed.sum()), count)
        whole = [self.tok.pieces(w)[0] for w in ("disc", "post", "leaf", "bird", "boat") if len(self.tok.pieces(w)) == 1]
        self.assertTrue(whole and all(changed[i] for i in whole))

    def test_a_run_saves_what_it_goes_on_from(self):
        out, atlas = self.path / "text", synthetic.atlas()
        out.mkdir()
        opt = types.SimpleNamespace(out=out, rate=1e-3, batch=8, anchor=None, steps=2)
        for steps in (2, 3):
            opt.steps = steps
            train_text.train(opt, staging.NounMix(), self.cast, atlas, self.tok)
            saved = torch.load(out / "text.pt")
            self.assertEqual((saved["steps"], saved["nouns"]), (steps, [n.id for n in atlas.nouns]))
        before = saved["model"]["shared.weight"].clone()
        opt.steps, opt.anchor, opt.rate = 4, self.path / "anchor", 0.
        opt.anchor.mkdir()
        (opt.anchor / "text.pt").write_bytes((out / "text.pt").read_bytes())
        (opt.anchor / "spiece.model").write_bytes((self.path / "spiece.model").read_bytes())
        train_text.train(opt, staging.NounMix(), self.cast, atlas, self.tok)
        torch.testing.assert_close(torch.load(out / "text.pt")["model"]["shared.weight"], before)

    def test_a_parser_goes_on_with_more_nouns(self):
        old = train_text.Parser(8, 2)
        saved = {"parser": old.state_dict(), "nouns": ["a", "b"]}
        new = train_text.load_parser(saved, 8, ["b", "c", "a"])
        n, rest = len(SHAPES), sum(old.fields[1:])
        weight = old.objects.weight
        self.assertTrue(torch.equal(new.objects.weight[-rest:], old.state_dict()["objects.weight"][-rest:]))
        self.assertTrue(torch.equal(new.objects.weight[n], weight[n + 1]))
        self.assertTrue(torch.equal(new.objects.weight[n + 2], weight[n]))


if __name__ == "__main__":
    unittest.main()
