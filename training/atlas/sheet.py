"""Contact sheets of an atlas: python3 -m atlas.sheet FILE [--colours] [--small] [--first 0 --count 120]."""

import argparse

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from . import VARIANTS, Atlas

GREY = torch.tensor([.82, .83, .85])[:, None, None]


def _over(sprite, ground=GREY):
    return sprite[:3] + ground * (1 - sprite[3:])


def _small(atlas, row, height=32, frame=64, shown=96):
    """A sprite as high as half a base picture, at the base's size, enlarged."""
    info = atlas.info[row]
    side = max(8, round(height / max(.4, (info[2] - info[3]).item())))
    side = min(side, frame - 6)
    sprite = F.interpolate(atlas.sprites(row[None], 96), size=(side, side), mode="bilinear",
                           align_corners=False, antialias=True)[0].clamp(0, 1)
    canvas = torch.zeros(4, frame, frame)
    left, top = (frame - side) // 2, frame - 8 - side
    canvas[:, max(0, top):max(0, top) + side, left:left + side] = sprite
    return F.interpolate(_over(canvas)[None], size=(shown, shown), mode="bicubic", align_corners=False)[0]


def _image(planes):
    return Image.fromarray((planes.clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy())


def save(path, pictures, names, columns):
    side = pictures[0].shape[-1]
    sheet = Image.new("RGB", (columns * (side + 4), -(-len(pictures) // columns) * (side + 14)), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (picture, name) in enumerate(zip(pictures, names)):
        x, y = i % columns * (side + 4), i // columns * (side + 14)
        sheet.paste(_image(picture), (x, y))
        pen.text((x + 1, y + side + 1), name[:side // 6], fill="black")
    sheet.save(path)


def main():
    args = argparse.ArgumentParser(description="A sheet of an atlas's nouns.")
    args.add_argument("path")
    args.add_argument("--atlas", default="out/atlas")
    args.add_argument("--colours", action="store_true", help="a noun a line, in all its colours")
    args.add_argument("--all", action="store_true", help="every drawing, not only the first")
    args.add_argument("--small", action="store_true", help="32 px high in 64 px, enlarged")
    args.add_argument("--category", default=None)
    args.add_argument("--first", type=int, default=0)
    args.add_argument("--count", type=int, default=120)
    args.add_argument("--columns", type=int, default=14)
    opt = args.parse_args()
    atlas = Atlas(opt.atlas)
    numbers = [i for i, n in enumerate(atlas.nouns) if opt.category in (None, n.category)]
    rows, names = [], []
    for number in numbers[opt.first:opt.first + opt.count]:
        index = atlas.drawings[number]
        if opt.colours:
            rows += [index[0, v].item() for v in range(VARIANTS)]
            names += [atlas.nouns[number].name] + [""] * (VARIANTS - 1)
        else:
            shown = [row for row in index[:, 0].tolist() if row >= 0][:None if opt.all else 1]
            rows += shown
            names += [atlas.nouns[number].name] * len(shown)
    empty = torch.ones(3, 96, 96)
    pictures = []
    for row in rows:
        if row < 0:
            pictures.append(empty)
        elif opt.small:
            pictures.append(_small(atlas, torch.tensor(row)))
        else:
            pictures.append(_over(atlas.sprites(torch.tensor([row]), 96)[0]))
    save(opt.path, pictures, names, VARIANTS if opt.colours else opt.columns)


if __name__ == "__main__":
    main()
