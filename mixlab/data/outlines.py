"""The ten outlines of the drawn data set, and how far each may turn.

Each takes u, v (n, h, w), coordinates in which the object about fills the unit circle, and a free proportion t
(n, 1, 1) in [0, 1]. The result (n, h, w) is a signed distance: negative inside, positive outside.
"""

import math

import numpy as np


def length(u, v):
    return np.sqrt(u * u + v * v)


def _ring(u, v, t):
    hole, rim = 0.14 + 0.4 * t, 0.92
    return np.abs(length(u, v) - (rim + hole) / 2) - (rim - hole) / 2


def _square(u, v, t):  # corners from sharp to well rounded
    u, v = np.abs(u) - (0.78 - 0.4 * t), np.abs(v) - (0.78 - 0.4 * t)
    return length(np.maximum(u, 0), np.maximum(v, 0)) + np.minimum(np.maximum(u, v), 0) - 0.4 * t


def _diamond(u, v, t):  # a rhombus, always longer than wide
    length, width = 1.05, 0.69 + 0.13 * t
    return (width * np.abs(u) + length * np.abs(v) - length * width) / np.sqrt(length**2 + width**2)


def _star(u, v, t):  # mirrors fold the plane onto half of one point of the star, where the outline is a single line
    c, s = math.cos(math.radians(54)), math.sin(math.radians(54))  # the direction of a notch; the tip is at (0, 1)
    for _ in range(2):
        u = np.abs(u)
        below = np.maximum(s * u - c * v, 0)
        u, v = u - 2 * s * below, v + 2 * c * below
    notch = 0.4 + 0.1 * t
    across, along = 1 - notch * s, notch * c
    return (across * np.abs(u) + along * (v - 1)) / np.sqrt(across**2 + along**2)


def _cross(u, v, t):
    u, v = np.abs(u), np.abs(v)
    return np.maximum(np.maximum(u, v) - 0.95, np.minimum(u, v) - (0.2 + 0.12 * t))


def _bars(u, v, t):  # three; rint finds the nearest
    stripe = np.abs(v - 0.62 * np.clip(np.rint(v / 0.62), -1, 1)) - (0.15 + 0.05 * t)
    return np.maximum(stripe, np.abs(u) - 0.8)


def _checker(u, v, t):  # four by four cells: where even stripes cross even ones or odd ones odd ones
    cell = 0.38 + 0.03 * t
    even_u, even_v, odd_u, odd_v = (np.abs(np.abs(w + cell / 2) - cell) - cell / 2 for w in (u, v, -u, -v))
    return np.minimum(np.maximum(even_u, even_v), np.maximum(odd_u, odd_v))


OUTLINES = {
    "disc": lambda u, v, t: length(u, v) - (0.85 + 0.1 * t),
    "ring": _ring,
    "crescent": lambda u, v, t: np.maximum(length(u, v) - 0.97, 0.78 - length(u - 0.8 + 0.3 * t, v)),  # a disc, bitten
    "square": _square,
    "diamond": _diamond,
    "triangle": lambda u, v, t: np.maximum(math.sqrt(0.75) * np.abs(u) - 0.5 * v, v) - (0.47 + 0.06 * t),
    "star": _star,
    "cross": _cross,
    "bars": _bars,
    "checker": _checker,
}
CLASSES = tuple(OUTLINES)
TURNS = [20 if name == "square" else 180 for name in CLASSES]  # either way, in degrees; a square at 45 is a diamond
