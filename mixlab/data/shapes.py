"""Shapes: a colour data set of ten classes that is drawn, not downloaded.

Every picture is one object on a textured ground, with confetti behind it and in front of it. Colour, size, place, turn
and proportions are random and say nothing about the class; only the outline does. Some outlines lie close to each
other on purpose (a diamond is a slanted square, a ring has a hole that a disc has not, a star is a cross with one more
arm), so a network that has learned the classes still has something to confuse.

An outline is a signed distance. In pixels, `0.5 - distance` clamped to [0, 1] is how much of a pixel the object covers.
Coordinates run from -1 to 1 over the picture, x to the right and y down, so `size` only sets the sharpness.
"""

from dataclasses import dataclass

import numpy as np
import torch

from mixlab.checks import check_whole
from mixlab.data.outlines import CLASSES, OUTLINES, TURNS, length

BLOCK_PIXELS = 2**16  # pixels drawn at once (64 images of 32 x 32): small enough to stay in the processor's cache


@dataclass(frozen=True, eq=False)
class Shapes:
    """images uint8 (n, 3, size, size); labels int64 (n,), indices into CLASSES; boxes int64 (n, 4) of the objects.

    A box is (top, left, bottom, right), half open: `image[:, top:bottom, left:right]` is the object.
    """

    images: torch.Tensor
    labels: torch.Tensor
    boxes: torch.Tensor


def draw(n, rng, size=32, labels=None):
    """Draw n pictures of size x size pixels.

    rng: a numpy Generator or an int seed. Same n, seed and size: same pictures. Another size: the same scenes, sharper.
    Another n: other pictures, the first ones included. Labels are spread evenly over the classes and shuffled, unless
    labels (n,) asks for given classes; two calls that ask for different ones differ in the objects' outlines alone.
    """
    check_whole("n", n)
    check_whole("size", size, least=16)
    if not isinstance(rng, np.random.Generator):
        rng = np.random.default_rng(check_whole("rng", rng, least=0))
    labels = rng.permutation(np.arange(n) % len(CLASSES)) if labels is None else _asked_for(labels, n)
    scene = _scene(n, rng)
    images, boxes = np.empty((n, 3, size, size), np.uint8), np.empty((n, 4), np.int64)
    step = max(1, BLOCK_PIXELS // size**2)
    for start in range(0, n, step):
        block = slice(start, start + step)
        part = {name: value[block] for name, value in scene.items()}
        cover = coverage(labels[block], part["place"], size)
        boxes[block] = _bounds(cover)
        images[block] = _paint(part, cover, size, rng)
    return Shapes(*map(torch.from_numpy, (images, labels, boxes)))


def coverage(labels, place, size):
    """The share of every pixel that the object covers, (n, size, size) float32 in [0, 1].

    labels (n,); place (n, 5): centre x, centre y and radius on the scale from -1 to 1, turn in [-1, 1] as a share of
    what the class allows, and the free proportion in [0, 1].
    """
    labels, place = np.asarray(labels), np.asarray(place, np.float32)
    distance = np.empty((len(labels), size, size), np.float32)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        cx, cy, radius, turn, t = (column[:, None, None] for column in place[rows].T)
        angle = np.deg2rad(TURNS[label] * turn)
        c, s = np.cos(angle) / radius, np.sin(angle) / radius
        x, y = _frame(size, cx, cy)
        distance[rows] = OUTLINES[CLASSES[label]](c * x + s * y, c * y - s * x, t) * radius
    return _cover(distance, size)


def _asked_for(labels, n):
    labels = np.asarray(labels)
    if labels.shape != (n,) or labels.dtype.kind not in "iu" or not np.isin(labels, range(len(CLASSES))).all():
        raise ValueError(f"labels must be {n} whole numbers in 0..{len(CLASSES) - 1}, got {labels!r}")
    return labels.astype(np.int64)


def _scene(n, rng):
    """Everything random but the grain, a row per picture: where things are and what colour they have."""
    lightness, hue = rng.uniform(0.3, 0.9, n), rng.random(n)
    sign = np.where(rng.random(n) < (lightness - 0.3) / 0.6, -1, 1)  # on a dark ground mostly a light object
    uniform, scene = rng.uniform, {}
    scene["strokes"], scene["paints"] = _strokes(n, rng, lightness)
    scene["place"] = _place(n, rng)
    scene["ground"] = _colour(lightness, uniform(0.02, 0.12, n), hue)
    near = lightness + uniform(-0.08, 0.08, n)
    scene["other"] = _colour(near, uniform(0.02, 0.12, n), hue + rng.normal(0, 0.12, n))
    far = lightness + sign * uniform(0.2, 0.45, n)
    scene["body"] = _colour(far, uniform(0.06, 0.2, n), rng.random(n))
    scene["shade"] = uniform(-0.12, 0.12, (n, 2))
    scene["waves"] = _waves(n, rng)
    scene["grain"] = uniform(0.005, 0.05, (n, 1))
    return {name: value.astype(np.float32) for name, value in scene.items()}


def _place(n, rng):
    """As `coverage` takes it. A checker board's corners reach furthest, to 1.16 radii, and still lie inside."""
    radius = rng.uniform(0.44, 0.7, n)
    centre = rng.uniform(-1, 1, (2, n)) * (1 - 1.16 * radius)
    return np.stack([*centre, radius, rng.uniform(-1, 1, n), rng.random(n)], 1)


def _waves(n, rng, count=3):
    """The ground's texture: per wave a frequency along x and y, a phase and a share; (n, count, 4)."""
    angle, frequency = rng.random((n, count)) * 2 * np.pi, np.exp(rng.uniform(np.log(0.2), np.log(3), (n, count)))
    share = rng.dirichlet(np.ones(count), n)
    return np.stack([frequency * np.cos(angle), frequency * np.sin(angle), rng.random((n, count)), share], 2)


def _strokes(n, rng, lightness, count=4):
    """Confetti, never as wide as an object: centre, half length as a vector, half width (n, count, 5); its colours."""
    angle, half = rng.random((n, count)) * 2 * np.pi, rng.uniform(0, 0.5, (n, count)) ** 2
    centre, width = rng.uniform(-1, 1, (2, n, count)), rng.uniform(0.03, 0.08, (n, count))
    lightness = lightness[:, None] + rng.uniform(-0.4, 0.4, (n, count))
    colour = _colour(lightness, rng.uniform(0.04, 0.2, (n, count)), rng.random((n, count)))
    return np.stack([*centre, half * np.cos(angle), half * np.sin(angle), width], 2), colour


def _paint(scene, cover, size, rng):
    """Ground, half of the confetti, object, the other half, grain; (n, 3, size, size) uint8."""
    scene = {name: value[..., None, None] for name, value in scene.items()}
    x, y = _frame(size)
    ground, shade = scene["ground"], scene["shade"]
    image = ground + _texture(scene["waves"], x, y)[:, None] * (scene["other"] - ground)
    body = scene["body"] + (shade[:, 0] * x + shade[:, 1] * y)[:, None]
    layers = [(_stroke(*scene["strokes"][:, i].swapaxes(0, 1), size), scene["paints"][:, i]) for i in range(4)]
    for share, paint in [*layers[:2], (cover, body), *layers[2:]]:
        image += share[:, None] * (paint - image)
    image += scene["grain"] * rng.standard_normal(image.shape, np.float32)
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _texture(waves, x, y):
    """A sum of waves (n, size, size) in [0, 1]; 8 f (1 - 2 |f|) is a sine made of parabolas."""
    total = 0.5
    for fx, fy, phase, share in waves.swapaxes(0, 1).swapaxes(1, 2):
        f = fx * x + fy * y + phase
        f -= np.rint(f)
        total = total + 4 * share * f * (1 - 2 * np.abs(f))
    return total


def _stroke(cx, cy, hx, hy, width, size):
    """Coverage (n, size, size) by a line with round ends."""
    x, y = _frame(size, cx, cy)
    along = np.clip((x * hx + y * hy) / (hx * hx + hy * hy + 1e-9), -1, 1)
    return _cover(length(x - along * hx, y - along * hy) - width, size)


def _frame(size, cx=0.0, cy=0.0):
    """Pixel centres as coordinates x (…, 1, size) and y (…, size, 1) around (cx, cy)."""
    grid = ((np.arange(size) + 0.5) * (2 / size) - 1).astype(np.float32)
    return grid - cx, grid[:, None] - cy


def _cover(distance, size):
    return np.clip(0.5 - distance * (size / 2), 0, 1)


def _bounds(cover):
    """The smallest box (n, 4) around every pixel that is covered to a quarter or more."""
    hits = [(cover >= 0.25).any(axis) for axis in (2, 1)]  # rows, columns
    first = [hit.argmax(1) for hit in hits]
    return np.stack([*first, *(hit.shape[1] - hit[:, ::-1].argmax(1) for hit in hits)], 1)


def _colour(lightness, chroma, hue):
    """Colours (…, 3) in [0, 1] from lightness, chroma and hue (in turns) of Björn Ottosson's OKLab (2020).

    Equal steps in it look about equal, so contrast can be drawn as a step in lightness.
    """
    hue = 2 * np.pi * hue
    a, b, lightness = chroma * np.cos(hue), chroma * np.sin(hue), np.clip(lightness, 0.1, 1)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    red = 4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short
    green = -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short
    blue = -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short
    return np.clip(np.stack([red, green, blue], -1), 0, 1) ** (1 / 2.2)
