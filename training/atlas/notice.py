"""The models of Sweet Home 3D that the table of nouns uses, with author and licence, for NOTICE at the root:

python3 -m atlas.notice > models.txt
"""

import argparse
import html
import re

from . import model, nouns

LICENCES = {
    "BlendSwap-CC-0": "CC0 1.0", "BlendSwap-CC-BY": "CC BY 3.0", "KatorLegaz": "CC BY 3.0 US",
    "Scopia": "CC BY 3.0",
}
AUTHORS = {"KatorLegaz": "Andrew Kator & Jennifer Legaz", "Scopia": "Scopia Visual Interfaces Systems, s.l."}


def used():
    """The models of the table: sorted "Scopia/toaster"."""
    return sorted({s.split(":")[1].split("@")[0] for n in nouns.load() for s in n.sources if s.startswith("sh3d:")})


def _credit(archive, folder):
    """(title, author, address) from the licence file beside a model; empty where it has none."""
    for name in archive.namelist():
        if not name.startswith(folder + "/") or not re.search(r"license[^/]*\.(txt|html)$", name, re.I):
            continue
        text = html.unescape(archive.read(name).decode("utf-8", "replace"))
        told = re.search(r'downloading "(.+?)" by (.+?)[\r\n]', text)
        page = re.search(r"Downloaded from (\S+)", text)
        if told:
            return told[1].strip(), told[2].strip(), page[1] if page else ""
        told = re.search(r"<title>\s*(.+?) by (.+?) - (\d+) - ", text, re.S)
        if told:
            return told[1].strip(), told[2].strip(), "http://www.blendswap.com/blends/view/" + told[3]
    return "", "", ""


def lines(fetched):
    for name in used():
        kind, short = name.split("/")
        entry = model.catalogue(kind, str(fetched))[short]
        folder = entry["model"].lstrip("/").rsplit("/", 1)[0]
        title, author, page = _credit(model.open_archive(kind, str(fetched)), folder)
        author = author or AUTHORS.get(kind) or entry.get("creator", "unknown")
        yield "%s: %s by %s, %s%s" % (name, '"%s"' % (title or entry["name"]), author, LICENCES[kind],
                                      ", " + page if page else "")


def main():
    args = argparse.ArgumentParser(description="Credits of the models that the table of nouns uses.")
    args.add_argument("--fetched", default="out/fetched", help="where fetched packages are kept")
    for line in lines(args.parse_args().fetched):
        print(line)


if __name__ == "__main__":
    main()
