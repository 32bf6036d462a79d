"""Drawings to pixels: one PNG per drawing, kept, since a drawing takes half a second and a model ten."""

import functools
import json
import pathlib
import re
import subprocess
import tempfile

from PIL import Image

from . import model
from .fetch import fetch

SIDE = 1024
RSVG = ["rsvg-convert", "-w", str(SIDE), "-h", str(SIDE), "--keep-aspect-ratio"]


@functools.lru_cache(None)
def _icons(name, fetched):
    return json.loads((fetch(name, fetched) / "icons.json").read_text())


def icons(source, fetched):
    """The names of a package's drawings."""
    data = _icons(source, str(fetched))
    return set(data["icons"]) | set(data.get("aliases", {}))


def svg(source, slug, fetched):
    """The SVG text of one drawing of an icon package; KeyError where there is none."""
    data = _icons(source, str(fetched))
    seen = slug
    while seen not in data["icons"]:
        seen = data.get("aliases", {})[seen]["parent"]
    icon = data["icons"][seen]
    width, height = (icon.get(side, data.get(side, 16)) for side in ("width", "height"))
    body = re.sub(r"skew[XY]\(-?90\)", "scale(.001)", icon["body"])     # flat; librsvg gives up on a right angle
    return ('<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            'viewBox="0 0 %g %g" width="%g" height="%g">%s</svg>'
            % (width, height, width, height, body))


def draw(source, slug, fetched, kept):
    """The path of a drawing's PNG in the folder `kept`, made if need be."""
    path = pathlib.Path(kept) / source / (slug + ".png")
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    waiting = path.with_suffix(".part")
    if source == "sh3d":
        Image.fromarray(model.draw(slug, fetched)).save(waiting, "png")
        waiting.rename(path)
        return path
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "a.svg"
        file.write_text(svg(source, slug, fetched))
        out = pathlib.Path(folder) / "a.png"
        done = subprocess.run(RSVG + ["-o", str(out), str(file)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError("%s:%s: %s" % (source, slug, done.stderr.strip()[-300:]))
        waiting.write_bytes(out.read_bytes())
        waiting.rename(path)
    return path
