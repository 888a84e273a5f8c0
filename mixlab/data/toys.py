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

from mixlab.checks import check_number, check_whole
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


def one_ring(n_train=512, n_test=2000, rng=0) -> ToySet:
    """A disc of radius 0.3 inside a ring between radii 0.45 and 0.55, both filled evenly."""

    def draw(labels, rng):
        inner, outer = np.array([0.0, 0.45])[labels], np.array([0.3, 0.55])[labels]
        radius = np.sqrt(rng.uniform(inner**2, outer**2))  # even over the area, not over the radius
        return radius * _on_circle(rng.uniform(0, 2 * pi, len(labels)))

    return _toy_set("one_ring", ("disc", "ring"), draw, n_train, n_test, rng)


def four_bars(n_train=512, n_test=2000, rng=0) -> ToySet:
    """Four upright bars side by side, 1.5 apart, 0.5 wide, 3.2 tall, of classes 0, 1, 0, 1 from left to right."""

    def draw(labels, rng):
        centre = 1.5 * (labels + 2 * rng.integers(0, 2, len(labels)) - 1.5)
        return rng.uniform(centre - 0.25, centre + 0.25), rng.uniform(-1.6, 1.6, len(labels))

    return _toy_set("four_bars", ("first and third", "second and fourth"), draw, n_train, n_test, rng)


def swiss_roll(n_train=512, n_test=2000, rng=0) -> ToySet:
    """Two arms of a spiral wound into each other, one and a half turns, from radius 1 to 7.55."""

    def draw(labels, rng):
        way = rng.uniform(0, 1, len(labels))
        return (1 + 6.55 * way) * _on_circle(3 * pi * way + pi * labels)

    return _toy_set("swiss_roll", ("one arm", "other arm"), draw, n_train, n_test, rng)


def half_moons(n_train=512, n_test=2000, rng=0) -> ToySet:
    """Two half circles of radius 1 that reach into each other; no noise, so each is a curve of dimension 1."""

    def draw(labels, rng):
        across, up = _on_circle(rng.uniform(0, pi, len(labels)) + pi * labels)
        return across + labels - 0.5, up + 0.5 * labels - 0.25

    return _toy_set("half_moons", ("upper moon", "lower moon"), draw, n_train, n_test, rng)


def helix(n_train=512, n_test=2000, rng=0) -> ToySet:
    """A double helix in three dimensions: radius 1, two turns, height 4; each strand is a curve of dimension 1."""

    def draw(labels, rng):
        way = rng.uniform(0, 1, len(labels))
        return *_on_circle(4 * pi * way + pi * labels), 4 * way - 2

    return _toy_set("helix", ("one strand", "other strand"), draw, n_train, n_test, rng)


def digits(n_train=1000, random_labels=0.0, rng=0) -> ToySet:
    """scikit-learn's handwritten digits, 8 x 8 pixels in [0, 1] laid out flat (64); what is not trained on is the test.

    random_labels: the share of the training images whose label is drawn anew from all ten, so that with 0.4 about 36%
    are wrong. One rng gives one split, whatever the share: with 0 the same images have their true labels.
    """
    from sklearn.datasets import load_digits

    images = load_digits()
    if check_whole("n_train", n_train) >= len(images.target):
        raise ValueError(f"n_train must be less than {len(images.target)}, the digits there are, not {n_train}")
    check_number("random_labels", random_labels, 0, 1)
    rng = np.random.default_rng(rng)
    order = rng.permutation(len(images.target))
    x, y = torch.from_numpy(images.data[order] / 16).float(), torch.from_numpy(images.target[order])
    data = ToySet("digits", x[:n_train], y[:n_train], x[n_train:], y[n_train:], tuple("0123456789"))
    return with_random_labels(data, random_labels, rng) if random_labels else data


TOYS = {toy.__name__: toy for toy in (one_ring, four_bars, swiss_roll, half_moons, helix)}


def _on_circle(angle):
    return np.stack([np.cos(angle), np.sin(angle)])


def _toy_set(name, classes, draw, n_train, n_test, rng) -> ToySet:
    """Both classes equally often (up to one), in random order. rng: a seed or a NumPy generator; draw: coordinates."""
    rng, parts = np.random.default_rng(rng), []
    for argument, n in (("n_train", n_train), ("n_test", n_test)):
        labels = rng.permutation(np.arange(check_whole(argument, n)) % 2)
        parts += [torch.from_numpy(np.stack(draw(labels, rng), axis=1)).float(), torch.from_numpy(labels)]
    return ToySet(name, *parts, classes)
