"""Textured models (OBJ) to drawings: a z-buffer in numpy, lit softly from the upper right as the icons are.

The models are those of Sweet Home 3D, in the zip archives (.sh3f) of the pinned Debian package. A source
"sh3d:Scopia/toaster@30" is the model toaster of the archive Scopia.sh3f, turned by 30 degrees.
"""

import dataclasses
import functools
import io
import pathlib
import re
import zipfile

import numpy
from PIL import Image

from .fetch import fetch

SIDE = 1024
LIGHT = numpy.array([.45, .62, .64])
CHUNK = 1 << 20         # fragments at a time


@functools.lru_cache(None)
def open_archive(name, fetched):
    return zipfile.ZipFile(fetch("sh3d", fetched) / "usr/share/sweethome3d/furniture" / (name + ".sh3f"))


@functools.lru_cache(None)
def catalogue(archive, fetched):
    """{model name: its entries} of an archive, from its properties file."""
    text = open_archive(archive, fetched).read("PluginFurnitureCatalog.properties").decode("latin-1")
    entries = {}
    for key, number, value in re.findall(r"^(\w+)#(\d+)=(.*?)\r?$", text, re.M):
        entries.setdefault(number, {})[key] = value.strip()
    return {pathlib.PurePosixPath(e["icon"]).stem: e for e in entries.values() if "model" in e}


@dataclasses.dataclass
class Material:
    colour: tuple = (.7, .7, .7)
    opacity: float = 1.
    shine: float = 0.
    texture: numpy.ndarray = None      # float [h, w, 4]


@dataclasses.dataclass
class Mesh:
    corners: numpy.ndarray      # float [triangles, 3, 3]
    normals: numpy.ndarray      # float [triangles, 3, 3]
    places: numpy.ndarray       # float [triangles, 3, 2]: where in the texture
    material: numpy.ndarray     # int [triangles]
    materials: list


def _texture(archive, folder, name):
    path = str(folder / name.replace("\\", "/"))
    try:
        with Image.open(io.BytesIO(archive.read(path))) as image:
            image = image.convert("RGBA")
            if max(image.size) > 1024:
                image.thumbnail((1024, 1024))
            return numpy.asarray(image, numpy.float32) / 255
    except KeyError:
        return None


def _materials(archive, folder, name):
    found, current = {}, None
    try:
        text = archive.read(str(folder / name)).decode("latin-1")
    except KeyError:
        return found
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "newmtl":
            current = found.setdefault(" ".join(words[1:]), Material())
        elif current is None:
            continue
        elif words[0] == "Kd":
            current.colour = tuple(float(w) for w in words[1:4])
        elif words[0] == "Ks":
            current.shine = max(float(w) for w in words[1:4])
        elif words[0] == "d" and len(words) > 1:
            current.opacity = float(words[-1])
        elif words[0] == "map_Kd":
            current.texture = _texture(archive, folder, words[-1])
    return found


def _triangles(corners):
    """A polygon, convex or not, as triples of its corners' numbers: ears are cut off until none is left."""
    left = list(range(len(corners)))
    if len(left) > 4:
        points = numpy.array(corners)
        normal = numpy.cross(points - points[0], numpy.roll(points, -1, 0) - points[0]).sum(0)
        axes = [k for k in range(3) if k != numpy.abs(normal).argmax()]
        turn = 1 if normal[numpy.abs(normal).argmax()] * (1, -1, 1)[numpy.abs(normal).argmax()] > 0 else -1
        flat = [(float(points[k, axes[0]]), float(points[k, axes[1]])) for k in left]

        def side(a, b, c):
            (ax, ay), (bx, by), (cx, cy) = flat[a], flat[b], flat[c]
            return turn * ((bx - ax) * (cy - ay) - (by - ay) * (cx - ax))

        while len(left) > 4:
            for k in range(len(left)):
                a, b, c = left[k - 1], left[k], left[(k + 1) % len(left)]
                if side(a, b, c) > 0 and not any(
                        side(a, b, o) >= 0 and side(b, c, o) >= 0 and side(c, a, o) >= 0
                        for o in left if flat[o] not in (flat[a], flat[b], flat[c])):
                    break
            else:
                k = 0       # nothing but slivers
            yield left[k - 1], left[k], left[(k + 1) % len(left)]
            del left[k]
    for k in range(1, len(left) - 1):
        yield left[0], left[k], left[k + 1]


def _load(archive, path):
    """An OBJ file as triangles; missing normals are those of the faces."""
    folder = pathlib.PurePosixPath(path).parent
    points, places, normals = [], [[0., 0.]], [[0., 0., 0.]]
    names, materials, triangles, used = {}, {}, [], []
    current = 0
    for line in archive.read(path).decode("latin-1").replace("\\\n", " ").splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "v":
            points.append([float(w) for w in words[1:4]])
        elif words[0] == "vt":
            places.append([float(w) for w in words[1:3]])
        elif words[0] == "vn":
            normals.append([float(w) for w in words[1:4]])
        elif words[0] == "f":
            face = [_indices(w, len(points), len(places), len(normals)) for w in words[1:]]
            for a, b, c in _triangles([points[corner[0]] for corner in face]):
                triangles.append((face[a], face[b], face[c]))
                used.append(current)
        elif words[0] == "mtllib":
            for name in words[1:]:
                materials.update(_materials(archive, folder, name))
        elif words[0] == "usemtl":
            current = names.setdefault(" ".join(words[1:]), len(names))
    index = numpy.array(triangles)
    corners = numpy.array(points)[index[..., 0]]
    own = numpy.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, None].repeat(3, 1)
    given = numpy.array(normals)[index[..., 2]]
    flat = (numpy.abs(given).sum(2) == 0)[..., None]
    listed = [materials.get(name, Material()) for name in names] or [Material()]
    return Mesh(corners, numpy.where(flat, own, given), numpy.array(places)[index[..., 1]],
                numpy.array(used), listed)


def _indices(word, points, places, normals):
    """"1/2/3" to indices into the lists, of which those of places and normals begin with "none"."""
    parts = (word.split("/") + ["", ""])[:3]
    counts = (points, places, normals)
    out = []
    for part, count, offset in zip(parts, counts, (-1, 0, 0)):
        number = int(part) if part else 0
        out.append(count + number if number < 0 else number + offset if part else 0)
    return out


def _matrix(entry):
    numbers = entry.get("modelRotation")
    return numpy.array([float(n) for n in numbers.split()]).reshape(3, 3) if numbers else numpy.eye(3)


@functools.lru_cache(2)
def load(name, fetched):
    """The mesh of "Scopia/toaster" in its real size, in centimetres, standing on the ground."""
    archive, model = name.split("/")
    entry = catalogue(archive, str(fetched))[model]
    mesh = _load(open_archive(archive, str(fetched)), entry["model"].lstrip("/"))
    turn = _matrix(entry)
    corners, normals = mesh.corners @ turn.T, mesh.normals @ turn.T
    low, high = corners.reshape(-1, 3).min(0), corners.reshape(-1, 3).max(0)
    size = numpy.array([float(entry[k]) for k in ("width", "height", "depth")])
    scale = size / numpy.maximum(high - low, 1e-9)
    corners = (corners - (low + high) / 2) * scale + [0, size[1] / 2, 0]
    return dataclasses.replace(mesh, corners=corners, normals=normals / scale), size


def _view(corners, normals, size, yaw):
    """Screen places in pixels with depth, and normals as the camera sees them."""
    flat = size[1] / max(size[0], size[2])
    pitch = numpy.radians(34 if flat < .2 else 24 if flat < .45 else 17)
    turn = numpy.radians(yaw)
    spin = numpy.array([[numpy.cos(turn), 0, numpy.sin(turn)], [0, 1, 0], [-numpy.sin(turn), 0, numpy.cos(turn)]])
    lean = numpy.array([[1, 0, 0], [0, numpy.cos(pitch), -numpy.sin(pitch)],
                        [0, numpy.sin(pitch), numpy.cos(pitch)]])
    move = lean @ spin
    seen = (corners - [0, size[1] / 2, 0]) @ move.T
    away = 3.2 * numpy.linalg.norm(size)
    factor = away / (away - seen[..., 2:])
    flat_places = seen[..., :2] * factor
    low, high = flat_places.reshape(-1, 2).min(0), flat_places.reshape(-1, 2).max(0)
    scale = (SIDE - 8) / (high - low).max()
    middle = (low + high) / 2
    x = (flat_places[..., 0] - middle[0]) * scale + SIDE / 2
    y = SIDE / 2 - (flat_places[..., 1] - middle[1]) * scale
    turned = normals @ move.T
    return numpy.stack((x, y, away - seen[..., 2]), -1), turned / numpy.maximum(
        numpy.linalg.norm(turned, axis=-1, keepdims=True), 1e-9)


def _fragments(screen, which):
    """Yields (triangle, pixel, weights [n, 3], depth) of the triangles `which`, grouped by their size."""
    x, y = screen[which, :, 0], screen[which, :, 1]
    left, top = numpy.floor(x.min(1)).astype(int), numpy.floor(y.min(1)).astype(int)
    extent = numpy.maximum(numpy.ceil(x.max(1)) - left, numpy.ceil(y.max(1)) - top).astype(int).clip(1)
    level = numpy.ceil(numpy.log2(extent)).astype(int)
    for size in numpy.unique(level):
        box = 1 << size
        members = numpy.nonzero(level == size)[0]
        for part in numpy.array_split(members, max(1, len(members) * box * box // CHUNK)):
            if len(part):
                yield from _inside(screen, which[part], left[part], top[part], box)


def _planes(screen, triangles):
    """Per triangle and corner the numbers (a, b, c) with a x + b y + c = the corner's weight at (x, y)."""
    p = screen[triangles][..., :2].astype(numpy.float64)
    p, q = numpy.roll(p, -1, 1), numpy.roll(p, -2, 1)       # the corners opposite to each
    a, b = p[..., 1] - q[..., 1], q[..., 0] - p[..., 0]
    c = p[..., 0] * q[..., 1] - q[..., 0] * p[..., 1]
    area = c.sum(1, keepdims=True)
    area = numpy.where(numpy.abs(area) < 1e-9, numpy.inf, area)
    return numpy.stack((a, b, c), -1) / area[..., None]


def _inside(screen, triangles, left, top, box):
    planes = _planes(screen, triangles)
    planes[..., 2] += planes[..., 0] * (left[:, None] + .5) + planes[..., 1] * (top[:, None] + .5)
    planes = planes.astype(numpy.float32)
    steps = numpy.arange(box, dtype=numpy.float32)
    weight = [planes[:, k, 0, None, None] * steps[None, None] + (
        planes[:, k, 1, None, None] * steps[None, :, None] + planes[:, k, 2, None, None]) for k in range(3)]
    least = numpy.minimum(numpy.minimum(weight[0], weight[1]), weight[2])
    flat = numpy.flatnonzero(least >= -1e-5)
    t, place = numpy.divmod(flat, box * box)
    r, s = numpy.divmod(place, box)
    y, x = top[t] + r, left[t] + s
    on = (y >= 0) & (y < SIDE) & (x >= 0) & (x < SIDE) & numpy.isfinite(planes[t, 0, 0]) & planes[t].any((1, 2))
    if not on.any():
        return
    flat, t, y, x = flat[on], t[on], y[on], x[on]
    # weights on the screen to weights in space
    inverse = numpy.stack([w.ravel()[flat] for w in weight], 1) / screen[triangles[t], :, 2]
    depth = 1 / inverse.sum(1)
    yield triangles[t], y * SIDE + x, inverse * depth[:, None], depth


def _sample(texture, places):
    height, width = texture.shape[:2]
    u = (places[:, 0] % 1) * width - .5
    v = (1 - places[:, 1] % 1) * height - .5
    x, y = numpy.floor(u).astype(int), numpy.floor(v).astype(int)
    fx, fy = (u - x)[:, None], (v - y)[:, None]
    def at(i, j):
        return texture[(y + j) % height, (x + i) % width]
    return (at(0, 0) * (1 - fx) + at(1, 0) * fx) * (1 - fy) + (at(0, 1) * (1 - fx) + at(1, 1) * fx) * fy


def _paint(mesh, normals, triangle, weights):
    """Colours of fragments, float [n, 4], lit."""
    out = numpy.zeros((len(triangle), 4))
    normal = (normals[triangle] * weights[..., None]).sum(1)
    normal /= numpy.maximum(numpy.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    normal *= numpy.where(normal[:, 2:] < 0, -1, 1)         # both sides of a face are shown
    key = (normal @ LIGHT).clip(0)
    half = LIGHT + [0, 0, 1]
    gleam = (normal @ (half / numpy.linalg.norm(half))).clip(0) ** 40
    light = .62 + .46 * key - .1 * (normal[:, 1] < -.3)
    for number, material in enumerate(mesh.materials):
        mine = mesh.material[triangle] == number
        if not mine.any():
            continue
        colour = numpy.tile([*material.colour, material.opacity], (mine.sum(), 1))
        if material.texture is not None:
            places = (mesh.places[triangle[mine]] * weights[mine][..., None]).sum(1)
            sample = _sample(material.texture, places)
            colour = numpy.concatenate((sample[:, :3], sample[:, 3:] * material.opacity), 1)
        # what is quite black gets a little light, so that its form can be seen
        lifted = .08 + .92 * colour[:, :3]
        out[mine, :3] = lifted * light[mine, None] + .3 * min(1., material.shine) * gleam[mine, None]
        out[mine, 3] = colour[:, 3]
    return out.clip(0, 1)


def _layer(mesh, screen, normals, which, before):
    """(colours [pixels, 4], depth [pixels]): the nearest fragments of some triangles, before a depth."""
    depth = before.copy()
    shown = numpy.full(SIDE * SIDE, -1)
    where = numpy.zeros((SIDE * SIDE, 3))
    cut_out = numpy.array([m.texture is not None and m.texture[..., 3].min() < .5 for m in mesh.materials])
    for triangle, pixel, weights, near in _fragments(screen, which):
        keep = near < depth[pixel]
        holes = keep & cut_out[mesh.material[triangle]]
        if holes.any():
            keep[holes] = _paint(mesh, normals, triangle[holes], weights[holes])[:, 3] > .5
        triangle, pixel, weights, near = triangle[keep], pixel[keep], weights[keep], near[keep]
        order = numpy.argsort(-near)            # of several on one pixel the nearest is written last
        depth[pixel[order]], shown[pixel[order]], where[pixel[order]] = near[order], triangle[order], weights[order]
    colour = numpy.zeros((SIDE * SIDE, 4), numpy.float32)
    seen = numpy.nonzero(shown >= 0)[0]
    if len(seen):
        colour[seen] = _paint(mesh, normals, shown[seen], where[seen])
    return colour, depth


def render(mesh, size, yaw):
    """uint8 [SIDE, SIDE, 4], straight alpha."""
    screen, normals = _view(mesh.corners, mesh.normals, size, yaw)
    opacity = numpy.array([m.opacity for m in mesh.materials])[mesh.material]
    everything = numpy.arange(len(screen))
    far = numpy.full(SIDE * SIDE, numpy.inf)
    solid, depth = _layer(mesh, screen, normals, everything[opacity > .95], far)
    solid[:, 3] = depth < numpy.inf
    glass, front = _layer(mesh, screen, normals, everything[(opacity <= .95) & (opacity > .02)], depth)
    share = numpy.where(front < depth, numpy.maximum(glass[:, 3], .35), 0)[:, None]
    alpha = share + solid[:, 3:] * (1 - share)
    rgb = (glass[:, :3] * share + solid[:, :3] * solid[:, 3:] * (1 - share)) / numpy.maximum(alpha, 1e-6)
    return (numpy.concatenate((rgb, alpha), 1).reshape(SIDE, SIDE, 4).clip(0, 1) * 255).round().astype(numpy.uint8)


def draw(name, fetched):
    """The pixels of "Scopia/toaster@30"."""
    model, yaw = name.split("@")
    mesh, size = load(model, fetched)
    return render(mesh, size, float(yaw))
