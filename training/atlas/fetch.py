"""Brings the drawings here: the packages of vocabulary/sources.json, by name, version and hash.

They come through `npm pack` and `apt-get download` from whatever registry and mirror these tools are set
up for, and are kept in a folder of their own; nothing of them is committed.
"""

import base64
import hashlib
import json
import pathlib
import subprocess
import tarfile

SOURCES = pathlib.Path(__file__).resolve().parent.parent / "vocabulary" / "sources.json"


class FetchError(Exception):
    pass


def _digest(path, kind):
    return hashlib.new(kind, path.read_bytes())


def _check(path, expected, found):
    if found != expected:
        path.unlink()
        raise FetchError("%s has the hash %s, but %s is pinned; it was removed" % (path, found, expected))


def _run(command, folder):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise FetchError("%s failed: %s" % (" ".join(command), done.stderr.strip()[-400:]))


def _npm(name, pin, folder):
    target = folder / name
    if (target / "package" / "package.json").exists():
        return target / "package"
    target.mkdir(parents=True, exist_ok=True)
    _run(["npm", "pack", "--silent", "%s@%s" % (pin["package"], pin["version"])], target)
    archive = next(target.glob("*.tgz"))
    kind, expected = pin["integrity"].split("-", 1)
    _check(archive, expected, base64.b64encode(_digest(archive, kind).digest()).decode())
    with tarfile.open(archive) as tar:
        for member in tar:      # plain files inside the package only
            path = pathlib.PurePosixPath(member.name)
            if member.isfile() and not path.is_absolute() and ".." not in path.parts:
                tar.extract(member, target)
    archive.unlink()
    return target / "package"


def _debian(name, pin, folder):
    target = folder / name
    if (target / "usr").exists():
        return target
    target.mkdir(parents=True, exist_ok=True)
    _run(["apt-get", "download", "%s=%s" % (pin["package"], pin["version"])], target)
    archive = next(target.glob("*.deb"))
    _check(archive, pin["sha256"], _digest(archive, "sha256").hexdigest())
    _run(["dpkg", "-x", archive.name, "."], target)
    archive.unlink()
    return target


def fetch(name, folder):
    """The folder of one pinned package ("fluent", "noto", "cldr" or "sh3d"), fetched if need be."""
    pins = json.loads(SOURCES.read_text())
    folder = pathlib.Path(folder).resolve()
    if name in pins["npm"]:
        return _npm(name, pins["npm"][name], folder)
    return _debian(name, pins["debian"][name], folder)
