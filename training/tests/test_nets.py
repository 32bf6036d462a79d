"""The networks, the samplers and the export format."""

import threads  # noqa: F401  (before torch)

import json
import pathlib
import tempfile
import unittest
import unittest.mock

import torch

import distil
import growth
import known
import low_res
import run
import safetensors_file
import schedule
from nets import kernels, tokenizer, unet
from optimiser import Muon, Optimiser
from tests import synthetic
from world.language import SHAPES


def small(**more):
    return unet.UNet(unet.config([16, 32], [1, 1], [False, True], 2, text=16, cross=16, head=8, **more))


class Kernels(unittest.TestCase):
    """Kernels in C against torch in float64."""

    @classmethod
    def setUpClass(cls):
        cls.kernels = kernels.load()
        if not cls.kernels:
            raise unittest.SkipTest("no AVX2, or no C compiler")
        variants = {"all": cls.kernels, "wider": kernels.load(kernels.WIDER), "least": kernels.load(kernels.LEAST)}
        cls.variants = {name: v for name, v in variants.items() if v}

    def check(self, function, exact, inputs, most, halves=()):
        """most: how large an error may be, compared with the largest number; of the results `halves`, 0 that of the
        function, which come from bfloat16, the errors' norm may be .05 of theirs instead."""
        y, expected = function(*inputs), exact(*[v.double() for v in inputs])
        gradient = torch.randn_like(y)
        results = (y, *torch.autograd.grad(y, inputs, gradient))
        expected = (expected, *torch.autograd.grad(expected, inputs, gradient.double()))
        for i, (a, b) in enumerate(zip(results, expected)):
            with self.subTest(result=i, shape=inputs[0].shape):
                if i in halves:
                    self.assertLess(float((a - b).norm() / b.norm()), .05)
                else:
                    self.assertLess(float((a - b).abs().max() / b.abs().max()), most)

    def test_convolutions_and_their_gradients(self):
        """The transforms of a tile add up to 100 times its numbers, which cancel again. They multiply rounding errors by
        about 20; those of bfloat16 (2 ** -9 at most, a third of it on average) to .03."""
        torch.manual_seed(0)
        for n, inputs, outputs, height, width in ((1, 4, 4, 4, 4), (3, 12, 32, 8, 8), (5, 32, 12, 12, 20),
                                                  (2, 8, 16, 64, 32), (17, 24, 8, 8, 8)):
            shapes = (n, inputs, height, width), (outputs, inputs, 3, 3), (outputs,)
            for name, variant in self.variants.items():
                with self.subTest(variant=name):
                    self.check(variant.convolve, lambda x, w, b: torch.conv2d(x, w, b, padding=1),
                               [torch.randn(s, requires_grad=True) for s in shapes], 3e-5, (1, 2) if variant.halves else ())

    def test_activations_of_norms_and_their_gradients(self):
        torch.manual_seed(0)

        def exact(x, scale, shift):
            h = torch.nn.functional.group_norm(x, 8, eps=1e-5)
            return torch.nn.functional.silu(h * scale[:, :, None, None] + shift[:, :, None, None])
        for n, channels, side in ((1, 8, 3), (3, 16, 4), (2, 64, 32), (5, 96, 7)):
            x = (3 * torch.randn(n, channels, side, side) + 20).requires_grad_()
            for variant in self.variants.values():
                self.check(lambda *v: variant.norm_silu(*v, 8, 1e-5), exact, [x] + [
                    torch.randn(n, channels, requires_grad=True) for _ in range(2)], 2e-5)

    def test_other_convolutions_are_left_to_torch(self):
        self.addCleanup(setattr, unet, "KERNELS", None)
        for more, side in (({"stride": 2}, 8), ({"dilation": 2}, 8), ({"padding": 0}, 8), ({"groups": 2}, 8),
                           ({"kernel_size": 5}, 8), ({}, 6), ({"out_channels": 10}, 8), ({"padding_mode": "circular"}, 8)):
            conv = unet.Conv(**dict({"in_channels": 8, "out_channels": 8, "kernel_size": 3, "padding": 1}, **more))
            x = torch.randn(2, 8, side, side)
            unet.KERNELS = None
            expected = conv(x)
            unet.KERNELS = self.kernels
            with self.subTest(more=more, side=side):
                self.assertTrue(torch.equal(conv(x), expected))

    def test_small_maps_are_left_to_torch_where_it_has_bfloat16(self):
        self.addCleanup(setattr, unet, "KERNELS", None)
        self.addCleanup(setattr, unet, "HALF", False)
        conv = unet.Conv(8, 8, 3, padding=1)
        for half, side, times in ((True, 4, 0), (True, 8, 1), (False, 4, 1), (False, 8, 1)):
            unet.HALF, unet.KERNELS = half, unittest.mock.Mock(wraps=self.kernels)
            with self.subTest(half=half, side=side):
                self.assertEqual(conv(torch.randn(2, 8, side, side)).dtype, torch.float32)
                self.assertEqual(unet.KERNELS.convolve.call_count, times)

    def test_projections_are_in_bfloat16_where_that_is_faster(self):
        self.addCleanup(setattr, unet, "HALF", False)
        torch.manual_seed(0)
        linear, x = unet.Linear(32, 16), torch.randn(4, 32)
        exact = linear(x)
        unet.HALF = True
        error = float((linear(x) - exact).detach().norm() / exact.detach().norm())
        self.assertTrue(1e-5 < error < .01, error)
        self.assertEqual(linear(x).dtype, torch.float32)

    def test_only_training_uses_them(self):
        self.addCleanup(setattr, unet, "KERNELS", None)
        torch.manual_seed(0)
        net, inputs = small(), (torch.randn(2, 3, 16, 16), torch.tensor([3, 5]), torch.randn(2, 7, 16))
        with torch.no_grad():
            for p in net.parameters():
                p.add_(.1 * torch.randn_like(p))
        plain = net(*inputs)
        plain.square().sum().backward()
        gradients = [p.grad.clone() for p in net.parameters()]
        unet.KERNELS = unittest.mock.Mock(wraps=self.variants["least"])
        with torch.no_grad():
            self.assertTrue(torch.equal(net(*inputs), plain))
        self.assertFalse(unet.KERNELS.method_calls)
        net.zero_grad()
        y = net(*inputs)
        y.square().sum().backward()
        resnets = sum(isinstance(m, unet.Resnet) for m in net.modules())
        self.assertEqual(unet.KERNELS.norm_silu.call_count, 2 * resnets + 1)
        self.assertEqual(unet.KERNELS.convolve.call_count, 2 * resnets + 2)
        torch.testing.assert_close(y, plain, rtol=1e-4, atol=1e-4)
        largest = max(float(g.abs().max()) for g in gradients)
        for p, expected in zip(net.parameters(), gradients):
            torch.testing.assert_close(p.grad, expected, rtol=1e-3, atol=1e-5 * largest)


class Networks(unittest.TestCase):
    def test_names_are_those_of_the_layout(self):
        names = set(small().state_dict())
        for name in ("conv_in.weight", "time_embedding.linear_1.bias", "encoder_hid_proj.weight",
                     "add_embedding.pool.positional_embedding", "down_blocks.0.downsamplers.0.conv1.weight",
                     "down_blocks.1.attentions.0.add_k_proj.weight", "mid_block.attentions.0.to_out.0.bias",
                     "up_blocks.0.upsamplers.0.norm1.weight", "up_blocks.1.resnets.1.conv_shortcut.bias",
                     "conv_norm_out.weight", "conv_out.bias"):
            self.assertIn(name, names)

    def test_low_res_residual_adds_the_second_picture(self):
        torch.manual_seed(0)
        net = small(in_channels=6, residual=True)       # conv_out starts at zero
        x, text = torch.randn(2, 6, 16, 16), torch.randn(2, 4, 16)
        out = net(x, torch.tensor([5, 900]), text, torch.tensor([0, 10]))
        torch.testing.assert_close(out, x[:, 3:6])

    def test_pictures_do_not_see_each_other(self):
        torch.manual_seed(0)
        net = small()
        torch.nn.init.normal_(net.conv_out.weight)
        x, t, text = torch.randn(3, 3, 16, 16), torch.tensor([1, 2, 3]), torch.randn(3, 4, 16)
        torch.testing.assert_close(net(x, t, text)[1:2], net(x[1:2], t[1:2], text[1:2]), atol=1e-4, rtol=0)


    def test_in_bfloat16_it_is_nearly_the_same_and_trains_the_same_weights(self):
        torch.manual_seed(0)
        net = small()
        for p in net.parameters():
            torch.nn.init.normal_(p, std=p[0].numel() ** -.5 if p.dim() > 1 else .1)
        batch = torch.randn(4, 3, 16, 16), torch.tensor([10, 300, 600, 950]), torch.randn(4, 6, 16)
        wanted, features, out, grads = torch.randn(4, 3, 16, 16), [], [], []
        for called in (net, run.Bfloat16(net)):
            net.zero_grad()
            out.append(called(*batch, features=features))
            (out[-1] - wanted).pow(2).mean().backward()
            grads.append(torch.cat([p.grad.flatten() for p in net.parameters()]))
        for exact, near in (out, grads, features):
            error = float((exact.float() - near.float()).norm() / exact.float().norm())
            self.assertTrue(1e-5 < error < .05, error)      # 8 bits, some twenty layers
        self.assertEqual((out[1].dtype, grads[1].dtype, features[1].dtype), (torch.float32, torch.float32, torch.bfloat16))


class Sampling(unittest.TestCase):
    def test_timesteps_are_spread_and_may_have_a_focus(self):
        torch.manual_seed(0)
        even = schedule.stratified_timesteps(1000)
        self.assertLessEqual(int((even - torch.arange(1000)).abs().max()), 1)
        t = schedule.stratified_timesteps(4000, focus=2.5)
        self.assertTrue((t[1:] >= t[:-1]).all())
        self.assertTrue(0 <= int(t[0]) and int(t[-1]) < schedule.STEPS)
        share = [float(((t >= a) & (t < b)).float().mean()) for a, b in ((0, 200), (200, 600), (600, 1000))]
        for mine, wanted in zip(share, (.2 / 2.2, 1 / 2.2, 1 / 2.2)):
            self.assertAlmostEqual(mine, wanted, delta=.002)

    def test_a_perfect_model_is_followed(self):
        target = torch.rand(2, 3, 8, 8) * 2 - 1
        for times in [schedule.dpm_timesteps(steps) for steps in (1, 2, 4, 20)] + [torch.tensor([999, 400, 120, 5])]:
            out = schedule.dpm_2m(lambda x, t: target, torch.randn(2, 3, 8, 8), times)
            torch.testing.assert_close(out, target, atol=1e-4, rtol=0)

    def test_a_perfect_model_is_followed_in_few_steps(self):
        target = torch.rand(2, 3, 8, 8) * 2 - 1
        for steps in (1, 2, 6):
            out = schedule.ddim(lambda x, t: target, torch.randn(2, 3, 8, 8), steps)
            torch.testing.assert_close(out, target, atol=1e-4, rtol=0)

    def test_a_distilled_step_lands_where_the_teachers_steps_do(self):
        torch.manual_seed(0)
        teacher = small()
        torch.nn.init.normal_(teacher.conv_out.weight, std=.02)
        text, null = torch.randn(1, 4, 16), torch.randn(1, 4, 16)

        def guided(x, t):
            if not 300 <= t[0] <= 800:
                return teacher(x, t, text)
            return null_x0(x, t) + 3 * (teacher(x, t, text) - null_x0(x, t))

        def null_x0(x, t):
            return teacher(x, t, null)
        with torch.no_grad():
            x = torch.randn(1, 3, 16, 16)
            fine = schedule.ddim(guided, x, 4)          # 999 749 499 249
            coarse = x
            for t, middle, after in ((999, 749, 499), (499, 249, -1)):
                times = torch.tensor([[t, middle, after]])
                x0 = distil.teacher_target(teacher, schedule.Guidance(3., 300, 800), coarse, times, text, null)
                coarse = schedule.ddim_step(coarse, x0, times[:, 0], times[:, -1])
        torch.testing.assert_close(coarse, fine, atol=1e-3, rtol=0)

    def test_a_ladder_reaches_from_noise_to_none(self):
        rungs = distil.ladder(5, 4)
        self.assertEqual(rungs[:, 0].tolist(), schedule.trailing_timesteps(5).tolist())
        self.assertEqual(rungs[1:, 0].tolist(), rungs[:-1, -1].tolist())
        self.assertEqual(rungs[-1, -1].item(), -1)
        self.assertTrue((rungs[:, 1:] < rungs[:, :-1]).all())

    def test_windows_upscale_as_the_whole_picture_does(self):
        low = torch.rand(1, 3, 64, 64)
        whole = torch.nn.functional.interpolate(low, size=(256, 256), mode="bilinear", align_corners=False)
        origin, lows = torch.tensor([[64., 128.]]), torch.tensor([[15., 31.]])
        window = low_res.upscale_window(low[:, :, 31:49, 15:33], lows, origin, 64, 64, 256)
        torch.testing.assert_close(window, whole[:, :, 128:192, 64:128], atol=1e-4, rtol=0)

    def test_a_stage_below_draws_the_picture_again_where_it_is(self):
        class Perfect(torch.nn.Module):     # nets that know the answer
            config = {"sample_size": 256}

            def forward(self, x, t, text, level=None):
                return x[:, 3:] if level is not None else exact
        exact = torch.rand(2, 3, 64, 64) * 2 - 1
        drawn = low_res.Below(Perfect(), Perfect()).redraw(exact, torch.zeros(2, 4, 16))
        whole = torch.nn.functional.interpolate(exact, size=(256, 256), mode="bilinear", align_corners=False)
        torch.testing.assert_close(drawn, whole)


class Growing(unittest.TestCase):
    def test_a_net_with_one_more_level_takes_over_the_others(self):
        torch.manual_seed(0)
        old = small()
        deep = unet.UNet(unet.config([16, 32, 32], [1, 1, 1], [False, True, True], 2, text=16, cross=16, head=8))
        taken, count = growth.take(deep, (old.config, old.state_dict()))
        self.assertTrue(.3 * count < taken < count)
        mine, before = deep.state_dict(), old.state_dict()
        for name, there in (("conv_in.weight", "conv_in.weight"),
                            ("down_blocks.1.resnets.0.conv1.weight", "down_blocks.1.resnets.0.conv1.weight"),
                            ("up_blocks.1.resnets.0.conv1.bias", "up_blocks.0.resnets.0.conv1.bias"),
                            ("up_blocks.2.resnets.1.conv2.weight", "up_blocks.1.resnets.1.conv2.weight")):
            self.assertTrue(torch.equal(mine[name], before[there]), name)

    def test_a_run_goes_on_with_a_larger_net(self):
        torch.manual_seed(0)
        old = small()
        state = {"config": old.config, "net": {}, "ema": old.state_dict(), "ema_steps": 9, "seen": 7, "seconds": 3.,
                 "aux": {"a": 1}, "optimiser": {}}
        for channels, aux in (([16, 32, 32], {"a": 1}), ([16, 64, 64], None)):
            deep = unet.UNet(unet.config(channels, [1, 1, 1], [False, True, True], 2, text=16, cross=16, head=8))
            out = growth.grown(state, deep)
            self.assertEqual((out["config"], out["seen"], out["ema_steps"], out.get("aux")), (deep.config, 7, 0, aux))
            self.assertNotIn("optimiser", out)
            self.assertTrue(torch.equal(out["ema"]["conv_in.weight"], old.state_dict()["conv_in.weight"]))
            self.assertNotEqual(out["ema"]["conv_in.weight"].data_ptr(), out["net"]["conv_in.weight"].data_ptr())

    def test_text_vectors_of_another_encoder_are_not_taken(self):
        old = small()
        wide = unet.UNet(unet.config([16, 32], [1, 1], [False, True], 2, text=24, cross=16, head=8))
        before = wide.state_dict()["encoder_hid_proj.weight"].clone()
        growth.take(wide, (old.config, old.state_dict()))
        self.assertTrue(torch.equal(wide.state_dict()["encoder_hid_proj.weight"], before))
        self.assertTrue(torch.equal(wide.state_dict()["conv_in.weight"], old.state_dict()["conv_in.weight"]))

    def test_heads_are_renumbered_by_name(self):
        old, fresh = torch.arange(5.), torch.full((6,), -1.)
        out = growth.renumbered(old, fresh, 2, ["a", "b", "c"], ["b", "x", "c", "a"])
        self.assertEqual(out.tolist(), [0., 1., 3., -1., 4., 2.])


class Optimising(unittest.TestCase):
    def test_taking_turns_moves_as_far(self):
        """With a steady gradient a matrix ends where it would if it were moved in every step."""
        ends = []
        for every in (1, 4):
            torch.manual_seed(0)
            p = torch.nn.Parameter(torch.zeros(128, 128))
            muon, slope = Muon([p], decay=0., every=every), torch.randn(128, 128)
            for _ in range(8):
                p.grad = slope.clone()
                muon.step(.01)
            ends.append(p.detach())
        torch.testing.assert_close(ends[0], ends[1], atol=2e-3, rtol=0)

    def test_matrices_of_one_shape_do_not_see_each_other(self):
        torch.manual_seed(0)
        shapes = [(16, 24), (24, 16), (16, 24), (16, 4, 3, 2)]
        start, grads = ([torch.randn(s) for s in shapes] for _ in range(2))

        def moved(numbers):
            params = [torch.nn.Parameter(start[i].clone()) for i in numbers]
            for p, i in zip(params, numbers):
                p.grad = grads[i].clone()
            Muon(params).step(1e-2)
            return params
        for i, together in enumerate(moved(range(len(shapes)))):
            self.assertFalse(torch.equal(together, start[i]))
            torch.testing.assert_close(together, moved([i])[0], rtol=1e-5, atol=1e-6)

    def test_matrices_take_turns(self):
        params = [torch.nn.Parameter(torch.zeros(96, 96)) for _ in range(3)] + [torch.nn.Parameter(torch.zeros(16, 16))]
        muon = Muon(params, every=3)
        moved = []
        for _ in range(3):
            before = [p.detach().clone() for p in params]
            for p in params:
                p.grad = torch.randn_like(p)
            muon.step(.1)
            moved.append([not torch.equal(p, b) for p, b in zip(params, before)])
        self.assertTrue(all(row[3] for row in moved))
        self.assertTrue(all(sum(row[k] for row in moved) == 1 for k in range(3)))
        self.assertTrue(all(sum(row[:3]) == 1 for row in moved))

    def test_state_of_what_has_grown_is_forgotten(self):
        def trained(width):
            net = torch.nn.Linear(4, width)
            optimiser = Optimiser(net, muon=False)
            net(torch.randn(2, 4)).sum().backward()
            optimiser.step(.1)
            return net, optimiser
        _, old = trained(3)
        net, new = trained(5)
        new.load_state_dict(old.state_dict())
        net(torch.randn(2, 4)).sum().backward()
        new.step(.1)


class Files(unittest.TestCase):
    def test_an_export_recommends_what_the_shipped_cascade_does(self):
        shipped = schedule.CASCADE_FILE.parents[3] / "models/default/cascade.json"
        self.assertEqual(json.loads(schedule.CASCADE_FILE.read_text()), json.loads(shipped.read_text()))

    def test_safetensors_round_trip(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "x.safetensors"
            tensors = {"b": torch.rand(3, 2).half(), "a": torch.arange(4), "c": torch.rand(1)}
            safetensors_file.save(path, tensors)
            for name, tensor in safetensors_file.load(path).items():
                self.assertTrue(torch.equal(tensor, tensors[name]))

    def test_the_vocabulary_names_every_noun_with_its_words(self):
        atlas = synthetic.atlas()
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "vocabulary.json"
            known.write(path, atlas, [1])
            data = json.loads(path.read_text(encoding="utf-8"))
        nouns = {n["name"]: n for n in data["nouns"]}
        self.assertEqual(set(nouns), {n.name for n in atlas.nouns if n.wave == 1})
        self.assertEqual(nouns["leaf"]["words"], ["leaf", "leaves"])
        self.assertEqual([nouns[n]["colours"] for n in ("disc", "leaf")], [True, False])
        self.assertTrue(nouns["bread"]["example"].startswith("bread "))
        self.assertEqual(set(data["categories"]), {n["category"] for n in data["nouns"]})
        self.assertEqual([s["name"] for s in data["shapes"]], SHAPES)
        self.assertIn("on the beach", data["places"]["beach"])
        self.assertTrue({"beach", "red", "please", "the"} <= set(data["other_words"]))
        self.assertTrue({"rotes", "strand", "海の上", "plage"} <= set(data["other_words"]))
        self.assertFalse({"leaf", "sphere"} & set(data["other_words"]))

    def test_the_vocabulary_of_the_shipped_model(self):
        shipped = json.loads((pathlib.Path(__file__).parents[2] / "models/default/vocabulary.json").read_text(encoding="utf-8"))
        self.assertEqual(shipped, known.vocabulary(synthetic.atlas(), []))

    def test_words_tokenize_as_their_sentence(self):
        from world import scene as worlds
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "spiece.model"
            captions = [worlds.sample(s, worlds.Mix()) for s in range(3000)]
            tokenizer.train((s.caption for s in captions), path, 400)
            tok = tokenizer.Tokenizer(path)
            for s in captions[:300]:
                self.assertEqual(tok.encode_words(s.words, s.groups)[0], tok.encode([s.caption])[0][0].tolist())
            self.assertNotIn(2, tok.encode(["zyxwvu quarks"])[0][0].tolist())


if __name__ == "__main__":
    unittest.main()
