"""Two-class toy sets drawn by formula: the three of the k-mixup paper, and two for zeta-mixup; and small digits.

The k-mixup paper prints neither formulas nor sizes, but its table 9 prints xi, the root mean square perturbation, and

    xi^2 = E|x - x'|^2 E[min(lam, 1 - lam)^2],   lam ~ Beta(alpha, alpha),

so every column of one set must give the same E|x - x'|^2. They do, all fifteen of them, if the printed digits were cut
off and not rounded; rounded, the alpha = 16 column of Four Bars is 2 % off the others. The sizes below lie in the
window that the columns leave: one_ring 0.2975 in (0.2884, 0.3070), four_bars 7.373 in (7.301, 7.488), swiss_roll
43.7 in (43.32, 44.31). Shape, proportions and number of points are our choice; notebook 01 does the sum.
"""

from dataclasses import dataclass
from math import pi

import numpy as np
import torch
from torch import Tensor

from mixlab.data.subsets import random_labels as with_random_labels


@dataclass(frozen=True)
class ToySet:
    """train_x, test_x (n, d) float32 and train_y, test_y (n,) class indices."""

    name: str
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: tuple[str, ...]


def one_ring(n_train=512, n_test=2000, rng=0, scale=1.0) -> ToySet:
    """A disc of radius 0.3 inside a ring between radii 0.45 and 0.55, both filled evenly."""

    def draw(labels, rng):
        inner, outer = np.array([0.0, 0.45])[labels], np.array([0.3, 0.55])[labels]
        radius = np.sqrt(rng.uniform(inner**2, outer**2))  # even over the area, not over the radius
        angle = rng.uniform(0, 2 * pi, len(labels))
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)

    return _toy_set("one_ring", ("disc", "ring"), draw, n_train, n_test, rng, scale)


def four_bars(n_train=512, n_test=2000, rng=0, scale=1.0) -> ToySet:
    """Four upright bars side by side, 1.5 apart, 0.5 wide, 3.2 tall, of classes 0, 1, 0, 1 from left to right."""

    def draw(labels, rng):
        centre = 1.5 * (labels + 2 * rng.integers(0, 2, len(labels)) - 1.5)
        return np.stack([rng.uniform(centre - 0.25, centre + 0.25), rng.uniform(-1.6, 1.6, len(labels))], axis=1)

    return _toy_set("four_bars", ("first and third", "second and fourth"), draw, n_train, n_test, rng, scale)


def swiss_roll(n_train=512, n_test=2000, rng=0, scale=1.0) -> ToySet:
    """Two arms of a spiral wound into each other, one and a half turns, from radius 1 to 7.55."""

    def draw(labels, rng):
        way = rng.uniform(0, 1, len(labels))
        radius, angle = 1 + 6.55 * way, 3 * pi * way + pi * labels
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)

    return _toy_set("swiss_roll", ("one arm", "other arm"), draw, n_train, n_test, rng, scale)


def half_moons(n_train=512, n_test=2000, rng=0, scale=1.0) -> ToySet:
    """Two half circles of radius 1 that reach into each other; no noise, so each is a curve of dimension 1."""

    def draw(labels, rng):
        angle = rng.uniform(0, pi, len(labels)) + pi * labels
        return np.stack([np.cos(angle) + labels - 0.5, np.sin(angle) + 0.5 * labels - 0.25], axis=1)

    return _toy_set("half_moons", ("upper moon", "lower moon"), draw, n_train, n_test, rng, scale)


def helix(n_train=512, n_test=2000, rng=0, scale=1.0) -> ToySet:
    """A double helix in three dimensions: radius 1, two turns, height 4; each strand is a curve of dimension 1."""

    def draw(labels, rng):
        way = rng.uniform(0, 1, len(labels))
        angle = 4 * pi * way + pi * labels
        return np.stack([np.cos(angle), np.sin(angle), 4 * way - 2], axis=1)

    return _toy_set("helix", ("one strand", "other strand"), draw, n_train, n_test, rng, scale)


def digits(n_train=1000, random_labels=0.0, rng=0) -> ToySet:
    """scikit-learn's handwritten digits, 8 x 8 pixels in [0, 1] laid out flat (64); what is not trained on is the test.

    random_labels: the share of the training images whose label is drawn anew from all ten, so that with 0.4 about 36%
    are wrong. One rng gives one split, whatever the share: with 0 the same images have their true labels.
    """
    from sklearn.datasets import load_digits

    images = load_digits()
    _check_count("n_train", n_train, most=len(images.target) - 1)
    if not 0 <= random_labels <= 1:
        raise ValueError(f"random_labels must be a share in [0, 1], not {random_labels!r}")
    rng = np.random.default_rng(rng)
    order = rng.permutation(len(images.target))
    x, y = torch.from_numpy(images.data[order] / 16).float(), torch.from_numpy(images.target[order])
    data = ToySet("digits", x[:n_train], y[:n_train], x[n_train:], y[n_train:], tuple("0123456789"))
    return with_random_labels(data, random_labels, rng) if random_labels else data


TOYS = {toy.__name__: toy for toy in (one_ring, four_bars, swiss_roll, half_moons, helix)}


def _toy_set(name, classes, draw, n_train, n_test, rng, scale) -> ToySet:
    """Both classes equally often (up to one), in random order; rng is a seed or a NumPy generator."""
    _check_count("n_train", n_train)
    _check_count("n_test", n_test)
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"scale must be a positive number, not {scale!r}")
    rng = np.random.default_rng(rng)
    parts = []
    for n in (n_train, n_test):
        labels = rng.permutation(np.arange(n) % 2)
        parts += [torch.from_numpy(scale * draw(labels, rng)).float(), torch.from_numpy(labels)]
    return ToySet(name, *parts, classes)


def _check_count(argument, value, most=None) -> None:
    if not isinstance(value, int | np.integer) or value < 1 or (most and value > most):
        wanted = f"a whole number from 1 to {most}" if most else "a whole number of at least 1"
        raise ValueError(f"{argument} must be {wanted}, not {value!r}")
