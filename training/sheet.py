"""Contact sheets: pictures in a grid with their captions."""

import threads  # noqa: F401  (before torch)

import argparse
import pathlib
import textwrap

import numpy
import torch
from PIL import Image, ImageDraw

from atlas import Atlas
from world import scene, staging
from world.cast import Cast
from world.render import render


def to_bytes(images):
    """[N, 3, H, W] in 0..1 -> list of PIL images."""
    data = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(numpy.ascontiguousarray(p)) for p in data]


def save(path, pictures, captions, columns=8, side=None):
    """pictures: PIL, all of one size; side: the edge that each has on the sheet."""
    side = side or pictures[0].width
    rows = (len(pictures) + columns - 1) // columns
    sheet = Image.new("RGB", (columns * (side + 6), rows * (side + 36)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (picture, caption) in enumerate(zip(pictures, captions)):
        x, y = (i % columns) * (side + 6), (i // columns) * (side + 36)
        sheet.paste(picture.resize((side, side), Image.BICUBIC), (x, y))
        caption = caption.encode("latin-1", "replace").decode("latin-1")    # all that the font has
        for k, line in enumerate(textwrap.wrap(caption, max(8, side // 6))[:3]):
            draw.text((x + 2, y + side + 1 + 11 * k), line, fill="black")
    sheet.save(path, quality=88)


def main():
    args = argparse.ArgumentParser(description="A sheet of exact renders.")
    args.add_argument("path")
    args.add_argument("--count", type=int, default=48)
    args.add_argument("--res", type=int, default=64)
    args.add_argument("--side", type=int, default=None)
    args.add_argument("--columns", type=int, default=8)
    args.add_argument("--seed", type=int, default=0)
    args.add_argument("--mix", default=None, help="JSON of world.scene.Mix, or with --atlas of world.staging.NounMix")
    args.add_argument("--atlas", type=pathlib.Path, default=None, help="scenes with the nouns of this atlas")
    args.add_argument("--waves", type=int, nargs="*", help="of the vocabulary; all that the atlas has without it")
    opt = args.parse_args()
    numbers, atlas = range(opt.seed, opt.seed + opt.count), None
    if opt.atlas:
        atlas = Atlas(opt.atlas, opt.waves)
        mix, cast = staging.NounMix.load(opt.mix), Cast.of(atlas)
        scenes = [staging.sample(i, mix, cast) for i in numbers]
    else:
        scenes = [scene.sample(i, scene.Mix.load(opt.mix)) for i in numbers]
    pictures = [p for s in scenes for p in to_bytes(render([s], opt.res, atlas=atlas))]
    save(opt.path, pictures, [s.caption for s in scenes], opt.columns, opt.side)


if __name__ == "__main__":
    main()
