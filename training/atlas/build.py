"""Builds the atlas: python3 -m atlas.build --out out/atlas [--waves 1,2]. See atlas/__init__.py for the format."""

import threads  # noqa: F401  (before torch)

import argparse
import json
import multiprocessing
import os
import pathlib
import shutil
import time

import numpy
import torch
from PIL import Image

from . import FORMAT, LARGE, SIDES, VARIANTS, nouns, sprites
from .draw import draw, icons
from .recolour import OWN_HUE, WHOLE, WHOLE_AND_DARK, measure, recolour

LEAST_SHARE = (.5, .25, 0.)     # of the opaque area that has to change for a colour word, by breadth
OTHER_ARTIST = .15      # how often the drawings of another set than the first drawing's are shown
GLOW_SIDES = (96, 256)


def _pixels(source, fetched, kept):
    kind, name = source.split(":", 1)
    with Image.open(draw(kind, name, fetched, kept)) as image:
        return numpy.array(image.convert("RGBA"))


def _prepare(job):
    """One drawing: its sprites in its own colours, as bytes."""
    source, fetched, kept = job
    try:
        planes = sprites.cropped(_pixels(source, fetched, kept))
    except Exception as error:
        return source, "%s: %s" % (type(error).__name__, error)
    return source, {side: sprites.to_bytes(sprites.squared(planes, side)).numpy()
                    for side in LARGE + (sprites.WORKING,)}


def prepare(sources, fetched, kept, processes):
    """{source: {side: uint8 [4, side, side]}}; whoever cannot be drawn is named, and ends the build."""
    jobs = [(source, fetched, kept) for source in sources]
    done, failed, start = {}, [], time.time()
    with multiprocessing.Pool(processes, os.nice, (10,)) as pool:
        for source, result in pool.imap_unordered(_prepare, jobs, 2):
            if isinstance(result, str):
                failed.append("%s: %s" % (source, result))
                continue
            done[source] = result
            if len(done) % 100 == 0:
                print("%d of %d drawings, %d s" % (len(done), len(jobs), time.time() - start), flush=True)
    if failed:
        raise SystemExit("these drawings could not be made:\n  " + "\n  ".join(failed))
    return done


def shares(noun):
    """How often each drawing of a noun is shown."""
    first = noun.sources[0].split(":")[0]
    same = [source.split(":")[0] == first for source in noun.sources]
    others = len(same) - sum(same)
    kept = 1 - OTHER_ARTIST * (others > 0)
    return [kept / sum(same) if own else OTHER_ARTIST / others for own in same]


class Writer:
    """All files of an atlas, written to a folder beside the wanted one and put in its place at the end."""

    def __init__(self, out, table):
        self.out, self.table = pathlib.Path(out), table
        self.part = self.out.with_name(self.out.name + ".part")
        shutil.rmtree(self.part, ignore_errors=True)
        self.part.mkdir(parents=True)

    def save(self, name, array):
        numpy.save(self.part / (name + ".npy"), array)

    def array(self, name, shape):
        return numpy.lib.format.open_memmap(self.part / (name + ".npy"), "w+", numpy.uint8, shape)

    def finish(self, about):
        (self.part / "atlas.json").write_text(json.dumps(about, ensure_ascii=False))
        old = self.out.with_name(self.out.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        if self.out.exists():
            self.out.rename(old)        # whoever has it mapped keeps what it has
        self.part.rename(self.out)
        shutil.rmtree(old, ignore_errors=True)


def _plan(table, ready):
    """Which drawings there are, what can be coloured, and so which rows: (drawings, measured, rows, index)."""
    drawings, rows = [], []
    index = numpy.full((len(table), max(len(n.sources) for n in table), VARIANTS), -1, numpy.int32)
    measured = []
    for number, noun in enumerate(table):
        for position, (source, share) in enumerate(zip(noun.sources, shares(noun))):
            square = torch.from_numpy(ready[source][sprites.WORKING]).float()[None] / 255
            breadth = WHOLE_AND_DARK if noun.has("d") else WHOLE if noun.has("c") else OWN_HUE
            numbers = measure(square, breadth)[0]
            enough = numbers[5] >= LEAST_SHARE[breadth] and not noun.has("n")
            for variant in range(VARIANTS if enough else 1):
                index[number, position, variant] = len(rows)
                rows.append((len(drawings), variant))
            measured.append(numbers)
            drawings.append([source, number, share, -1])
    return drawings, torch.stack(measured), rows, index


def _write_rows(writer, drawings, measured, rows, ready):
    levels = {side: writer.array("level_%d" % side, (len(rows), 4, side, side)) for side in SIDES}
    info = torch.zeros(len(rows), 8)
    rows = torch.tensor(rows)
    for number, (source, *_) in enumerate(drawings):
        mine = (rows[:, 0] == number).nonzero()[:, 0]
        square = torch.from_numpy(ready[source][sprites.WORKING]).float()[None] / 255
        coloured = recolour(square.expand(len(mine), -1, -1, -1).clone(),
                            measured[number:number + 1].expand(len(mine), -1), rows[mine, 1])
        info[mine] = sprites.info(square[0])
        for row, sprite in zip(mine.tolist(), coloured):
            for side, planes in sprites.sized(sprite).items():
                levels[side][row] = sprites.to_bytes(planes).numpy()
    return levels, info


def _write_large(writer, table, drawings, ready):
    for side in LARGE:
        store = writer.array("large_%d" % side, (len(drawings), 4, side, side))
        for number, (source, *_) in enumerate(drawings):
            store[number] = ready[source][side]
    glowing = []
    for drawing in drawings:
        noun = table[drawing[1]]
        if noun.has("g"):
            drawing[3] = len(glowing)
            square = torch.from_numpy(ready[drawing[0]][256]).float() / 255
            glowing.append(sprites.glow(square, noun.category in ("buildings", "vehicles")))
    for side in GLOW_SIDES:
        masks = torch.zeros(len(glowing), side, side)
        for row, mask in enumerate(glowing):
            masks[row] = torch.nn.functional.interpolate(mask[None, None], size=(side, side), mode="bilinear",
                                                         align_corners=False, antialias=True)[0, 0]
        writer.save("glow_%d" % side, sprites.to_bytes(masks).numpy())


def _basis(kept, thumbs, rows, index):
    """The axes of the visual codes: those of a file, so that a trained encoder stays right, or new ones."""
    if kept and pathlib.Path(kept).exists():
        data = numpy.load(kept)
        return tuple(torch.from_numpy(data[name]) for name in ("mean", "axes", "scale"))
    weights = torch.zeros(len(rows))        # a noun counts once as it is and once in all its colours
    for noun in index:
        first = noun[0][noun[0] >= 0]
        weights[first[0]] = 1.
        weights[first[1:]] = 1. / max(1, len(first) - 1)
    return sprites.code_basis(thumbs, weights)


def build(out, table, ready, basis_file=None):
    """Writes the atlas of the nouns of `table` from prepared drawings; basis_file: see _basis."""
    writer = Writer(out, table)
    drawings, measured, rows, index = _plan(table, ready)
    levels, info = _write_rows(writer, drawings, measured, rows, ready)
    _write_large(writer, table, drawings, ready)
    thumbs = sprites.thumbnails(torch.from_numpy(numpy.asarray(levels[sprites.THUMBNAIL])))
    basis = _basis(basis_file, thumbs, rows, index)
    code = sprites.codes(thumbs, basis)
    told = 1 - ((thumbs - basis[0] - (code * basis[2]) @ basis[1]) ** 2).sum() / ((thumbs - basis[0]) ** 2).sum()
    numpy.savez(writer.part / "basis.npz", mean=basis[0].numpy(), axes=basis[1].numpy(), scale=basis[2].numpy())
    for name, array in (("info", info), ("code", code), ("recolour", measured)):
        writer.save(name, array.numpy().astype(numpy.float32))
    writer.save("index", index)
    writer.save("rows", numpy.array(rows, numpy.int32))
    writer.finish({"format": FORMAT, "nouns": [n.to_dict() for n in table], "drawings": drawings,
                   "sides": list(SIDES), "large": list(LARGE)})
    print("%d nouns, %d drawings, %d rows; the codes tell %.3f of the thumbnails' variance"
          % (len(table), len(drawings), len(rows), told))


def main():
    args = argparse.ArgumentParser(description="Fetches the drawings and builds the atlas of the nouns.")
    args.add_argument("--out", default="out/atlas")
    args.add_argument("--waves", default="1,2,3", help="which waves of vocabulary/nouns.tsv")
    args.add_argument("--fetched", default="out/fetched", help="where fetched packages are kept")
    args.add_argument("--drawings", default="out/drawings", help="where drawings are kept")
    args.add_argument("--second", action="store_true",
                      help="another artist's drawing as well, where there is one, for every seventh picture")
    args.add_argument("--processes", type=int, default=2)
    args.add_argument("--basis", default=None,
                      help="the axes of the visual codes: a basis.npz, or \"new\" (a trained encoder does not fit "
                           "them); by default those of --out, where it has some")
    opt = args.parse_args()
    waves = {int(w) for w in opt.waves.split(",")}
    table = [n for n in nouns.load() if n.wave in waves]
    if opt.second:
        table = [nouns.with_second(n, icons("noto", opt.fetched)) for n in table]
    sources = sorted({source for noun in table for source in noun.sources})
    if opt.basis not in (None, "new") and not pathlib.Path(opt.basis).exists():
        raise SystemExit("--basis %s: there is no such file" % opt.basis)
    ready = prepare(sources, opt.fetched, opt.drawings, opt.processes)
    build(opt.out, table, ready, opt.basis or pathlib.Path(opt.out) / "basis.npz")


if __name__ == "__main__":
    main()
