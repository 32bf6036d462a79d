"""`imagend generate --image` and `imagend upscale` on the fake engine."""
import json
import os
import subprocess
import tempfile

from harness import PROGRAM, main, make_png, read_png


def run(command, *args, **more):
    done = subprocess.run([PROGRAM, command, *args], capture_output=True, timeout=60, **more)
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


def refused(command, *args, status=2):
    """What is said of arguments that are refused before a model is loaded."""
    got, text = run(command, *args, env={**os.environ, "FAKE_OPEN_FAILS": "1"})
    assert got == status and "no usable Vulkan device" not in text, (args, got, text)
    assert text.startswith("imagend: ") and text.count("\n") == 1, text
    return text


class Folder:
    """A temporary folder with some input images."""

    def __enter__(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.name = self.temporary.name
        self.write("wide.png", make_png(80, 60, lambda x, y: (3 * x, 4 * y, 77)))
        self.write("mask.png", make_png(80, 60, lambda x, y: (255 * (x >= 40),) * 3))
        self.write("black.png", make_png(80, 60, lambda x, y: (0, 0, 0)))
        self.write("clear.png", make_png(80, 60, lambda x, y: (9, 9, 9, 0 if x >= 40 else 255)))
        self.write("small.png", make_png(8, 6, lambda x, y: (x, y, 0)))
        return self

    def __exit__(self, *_):
        self.temporary.cleanup()

    def path(self, name):
        return os.path.join(self.name, name)

    def write(self, name, data):
        with open(self.path(name), "wb") as f:
            f.write(data)
        return self.path(name)

    def read(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()


def test_an_edit_has_the_shape_of_its_input():
    with Folder() as folder:
        for flags, size in (((), (80, 60)), (("--size", "64"), (64, 64)), (("--size", "30x60"), (30, 60))):
            status, text = run("generate", "x", "--image", folder.path("wide.png"), "--seed", "1",
                               *flags, "-o", folder.path("out.png"))
            assert status == 0 and f"{size[0]}x{size[1]}" in text, text
            assert read_png(folder.read("out.png"))[:2] == size


def test_what_a_mask_keeps_is_the_input_itself():
    with Folder() as folder:
        source = read_png(folder.read("wide.png"))[2]
        for mask in ("mask.png", "clear.png"):
            status, text = run("generate", "x", "--image", folder.path("wide.png"), "--mask",
                               folder.path(mask), "--seed", "1", "-o", folder.path("out.png"))
            assert status == 0, text
            width, height, rows = read_png(folder.read("out.png"))
            assert (width, height) == (80, 60)
            for before, after in zip(source, rows):
                assert before[:120] == after[:120]
                assert before[160:] != after[160:]
        # An image's own transparent pixels are a mask too.
        status, text = run("generate", "x", "--image", folder.path("clear.png"), "--seed", "1", "-o",
                           folder.path("own.png"))
        rows = read_png(folder.read("own.png"))[2]
        assert status == 0 and all(r[:120] == bytes([9] * 120) for r in rows), text
        assert any(r[160:] != bytes([9] * 80) for r in rows)


def test_strength_is_the_share_of_steps_and_is_told():
    with Folder() as folder:
        for flags, says in ((("--strength", "0.5"), b'Stage denoising strength: "0.5,1"'),
                            (("--strength", "0.5"), b", Denoising strength: 0.5,"),
                            ((), b", Denoising strength: 0.7,"),
                            (("--mask", folder.path("mask.png")), b", Denoising strength: 1,")):
            status, text = run("generate", "x", "--image", folder.path("wide.png"), *flags, "-o",
                               folder.path("out.png"))
            assert status == 0, text
            assert says in folder.read("out.png"), (flags, folder.read("out.png")[:900])
        run("generate", "x", "--size", "64", "-o", folder.path("out.png"))
        assert b"trength" not in folder.read("out.png")


def test_what_reaches_the_engine():
    with Folder() as folder:
        seen = folder.path("seen")
        run("generate", "x", "--image", folder.path("wide.png"), "--mask", folder.path("mask.png"),
            "--strength", "0.5,0.75", "-o", folder.path("out.png"), env={**os.environ, "FAKE_SEEN": seen})
        run("upscale", folder.path("small.png"), "--scale", "16", "-o", folder.path("out.png"),
            env={**os.environ, "FAKE_SEEN": seen})
        edits = [json.loads(line).get("edit") for line in folder.read("seen").splitlines()]
        assert [e for e in edits if e] == [
            {"size": [80, 60], "drawn": 40 * 60, "feather": 1, "scale": 0, "strength": [0.5, 0.75, 0]},
            {"size": [8, 6], "drawn": -1, "feather": 1, "scale": 16, "strength": [0, 0, 0]}], edits


def test_provenance():
    with Folder() as folder:
        for extension in ("png", "jpg", "webp"):
            out = "out." + extension
            for flags, says in (((), b"digitalsourcetype/trainedAlgorithmicMedia"),
                                (("--image", folder.path("wide.png")),
                                 b"digitalsourcetype/compositeWithTrainedAlgorithmicMedia")):
                for leave_out in (False, True):
                    status, text = run("generate", "x", "--size", "64", *flags, "-o", folder.path(out),
                                       *(("--no-provenance",) if leave_out else ()))
                    assert status == 0, text
                    assert (says in folder.read(out)) != leave_out, (out, flags)
                    assert (b"DigitalSourceType" in folder.read(out)) != leave_out


def test_standard_input():
    with Folder() as folder:
        status, text = run("generate", "x", "--image", "-", "-o", folder.path("out.png"),
                           input=folder.read("wide.png"))
        assert status == 0 and read_png(folder.read("out.png"))[:2] == (80, 60), text
        status, text = run("upscale", "-", "-o", folder.path("out.png"),
                           input=folder.read("small.png"))
        assert status == 0 and read_png(folder.read("out.png"))[:2] == (32, 24), text


def test_upscale():
    with Folder() as folder:
        for name, flags, size in (("small.png", (), (32, 24)),
                                  ("small.png", ("--scale", "16"), (128, 96)),
                                  ("wide.png", ("--prompt", "a wide thing"), (320, 240))):
            status, text = run("upscale", folder.path(name), *flags, "-o", folder.path("out.png"))
            assert status == 0 and f"{size[0]}x{size[1]}" in text, text
            data = folder.read("out.png")
            assert read_png(data)[:2] == size and b"Upscale by: " in data


def test_bad_images_are_refused_before_loading():
    with Folder() as folder:
        good, png = folder.path("wide.png"), folder.read("wide.png")
        huge = png[:16] + (20000).to_bytes(4, "big") + png[20:]
        crc = __import__("zlib").crc32(huge[12:29]).to_bytes(4, "big")
        for data, says in ((b"", "is empty"), (b"hello, world", "is not a PNG, JPEG or WebP"),
                           (b"GIF89a..", "is a GIF file"), (png[:-20], "is truncated"),
                           (png[:40], "is truncated"),
                           (huge[:29] + crc + huge[33:], "has 20000x60 pixels; at most 16384")):
            bad = folder.write("bad.png", data)
            for args in (("generate", "x", "--image", bad), ("upscale", bad)):
                text = refused(*args)
                assert says in text and "bad.png" in text and "the image" in text, text
            text = refused("generate", "x", "--image", good, "--mask", bad)
            assert says in text and "the mask" in text, text
        text = refused("generate", "x", "--image", folder.path("none.png"), status=1)
        assert "none.png" in text, text
        with open(folder.path("large.png"), "wb") as f:
            f.truncate((50 << 20) + 1)
        text = refused("upscale", folder.path("large.png"))
        assert "larger than 50 MB" in text, text


def test_wrong_usage_is_named():
    with Folder() as folder:
        good, small = folder.path("wide.png"), folder.path("small.png")
        folder.write("long.png", make_png(9000, 1, lambda x, y: (x % 256, 0, 0)))
        for args, says in (
                (("generate", "x", "--mask", good), "--mask needs --image"),
                (("generate", "x", "--strength", "0.5"), "--strength needs --image"),
                (("generate", "x", "--image", good, "--strength", "0"), "use 0.01 to 1"),
                (("generate", "x", "--image", good, "--strength", "0.001"), "use 0.01 to 1"),
                (("generate", "x", "--image", good, "--strength", "1,1,1,1"), "at most 3 numbers"),
                (("generate", "x", "--steps", "1,1,1,1"), "at most 3 numbers"),
                (("generate", "x", "--guidance", "1,1,1,1"), "at most 3 numbers"),
                (("generate", "x", "--noise-level", "1,1,1"), "at most 2 numbers"),
                (("generate", "x", "--image", folder.path("long.png")), "9000x1 pixels; at most 8192 on "
                 "each side can be edited"),
                (("generate", "x", "--image", good, "--size", "9000"), "9000x9000 is too large for an edit"),
                (("upscale", folder.path("long.png")), "9000x1 pixels; at most 8192 on each side can be "
                 "enlarged"),
                (("generate", "x", "--image", good, "--strength", "1.5"), "use 0.01 to 1"),
                (("generate", "x", "--image", good, "--strength", "x"), "use 0.01 to 1"),
                (("generate", "x", "--image", good, "--strength", "1,1,1"), "uses only 2 stages"),
                (("generate", "x", "--image", good, "--strength", "0.01"), "leaves no step"),
                (("generate", "x", "--image", good, "--size", "1025"), "larger than"),
                (("generate", "x", "--image", good, "--mask", small), "8x6"),
                (("generate", "x", "--image", good, "--mask", folder.path("black.png")),
                 "marks no pixel to repaint"),
                (("upscale",), "an image is missing"),
                (("upscale", good, small), "takes one image"),
                (("upscale", good, "--scale", "3"), "scale 3 must be 4 or 16"),
                (("upscale", good, "--scale", "x"), "--scale cannot be"),
                (("upscale", good, "--steps", "3"), "unknown option --steps")):
            text = refused(*args)
            assert says in text, (args, text)


if __name__ == "__main__":
    main(globals())
