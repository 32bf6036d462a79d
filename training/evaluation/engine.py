"""Pictures drawn, edited and enlarged by the C engine, through the command line."""

import pathlib
import subprocess
import tempfile

import numpy
import torch
from PIL import Image


class Engine:
    def __init__(self, program, model, options=()):
        self.program, self.model, self.options = program, model, list(options)

    def draw(self, prompts, seed, size=64, options=()):
        """PIL pictures, one per prompt, the k-th with seed + k."""
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            (folder / "prompts.txt").write_text("\n".join(prompts) + "\n")
            command = [self.program, "generate", "--prompts", folder / "prompts.txt", "--model", self.model,
                       "--seed", str(seed), "--size", str(size), "--quiet", "-o", folder / "p.png"]
            done = subprocess.run(command + self.options + list(options))
            if done.returncode:
                raise SystemExit("imagend generate failed with %d" % done.returncode)
            return [Image.open(folder / ("p-%d.png" % (i + 1))).convert("RGB") for i in range(len(prompts))]

    def edit(self, image, mask, prompt, seed, size, options=()):
        """A PIL picture changed; mask: white where it is drawn anew, or None."""
        given = {"image": image} if mask is None else {"image": image, "mask": mask}
        return self._one(["generate", prompt, "--size", str(size), *self.options], given, seed, options)

    def upscale(self, image, prompt, seed, options=()):
        """Four times as large. What the part's options say of drawing does not apply."""
        return self._one(["upscale", "--prompt", prompt], {"": image}, seed, options)

    def _one(self, command, given, seed, options):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            command = [self.program, *command, "--model", self.model, "--seed", str(seed), "--quiet", "-o",
                       folder / "out.png", *options]
            for name, image in given.items():
                image.save(folder / (name + "in.png"))
                command += (["--" + name] if name else []) + [folder / (name + "in.png")]
            done = subprocess.run(command)
            if done.returncode:
                raise SystemExit("imagend %s failed with %d" % (command[1], done.returncode))
            return Image.open(folder / "out.png").convert("RGB")


def tensor(pictures):
    """PIL pictures of one size -> [N, 3, H, W] in -1..1."""
    data = torch.from_numpy(numpy.stack([numpy.asarray(p) for p in pictures]))
    return data.permute(0, 3, 1, 2).float() / 127.5 - 1
