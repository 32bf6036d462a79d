"""Brings the drawings here: the packages of vocabulary/sources.json, by name, version and hash.

They come through `npm pack` and `apt-get download` from whatever registry and mirror these tools are set
up for, and are kept in a folder of their own; nothing of them is committed.
"""

import base64
import fcntl
import hashlib
import json
import pathlib
import subprocess
import tarfile
import tempfile

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


def _npm(pin, folder):
    _run(["npm", "pack", "--silent", "%s@%s" % (pin["package"], pin["version"])], folder)
    archive = next(folder.glob("*.tgz"))
    kind, expected = pin["integrity"].split("-", 1)
    _check(archive, expected, base64.b64encode(_digest(archive, kind).digest()).decode())
    with tarfile.open(archive) as tar:
        for member in tar:      # plain files inside the package only
            path = pathlib.PurePosixPath(member.name)
            if member.isfile() and not path.is_absolute() and ".." not in path.parts:
                tar.extract(member, folder)
    archive.unlink()


def _debian(pin, folder):
    _run(["apt-get", "download", "%s=%s" % (pin["package"], pin["version"])], folder)
    archive = next(folder.glob("*.deb"))
    _check(archive, pin["sha256"], _digest(archive, "sha256").hexdigest())
    _run(["dpkg", "-x", archive.name, "."], folder)
    archive.unlink()


def fetch(name, folder):
    """The folder of one pinned package ("fluent", "noto", "cldr" or "sh3d"), fetched if need be. Processes
    that want the same package wait for the one that fetches it."""
    pins = json.loads(SOURCES.read_text())
    folder = pathlib.Path(folder).resolve()
    target = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / (name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=folder) as part:
                whole = pathlib.Path(part) / name
                whole.mkdir()
                if name in pins["npm"]:
                    _npm(pins["npm"][name], whole)
                else:
                    _debian(pins["debian"][name], whole)
                whole.rename(target)        # a package that was cut short is fetched again
    return target / "package" if name in pins["npm"] else target
