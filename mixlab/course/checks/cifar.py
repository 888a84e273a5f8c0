"""Exercises of 07 CIFAR."""

import math

import numpy as np

from mixlab.course.exercises import check


@check(
    cases=lambda rng: [(10,), (2,), (int(rng.integers(3, 1000)),)],
    mistakes={
        "that is the chance of a lucky guess: the loss is minus its logarithm": lambda classes: 1 / classes,
        "the logarithm of a number below one is negative, and a loss is not": lambda classes: -math.log(classes),
        "that is in bits: PyTorch takes the natural logarithm": lambda classes: math.log2(classes),
    },
)
def first_loss(classes):
    return math.log(classes)


@check(
    cases=lambda rng: [
        (np.array([0.9, 0.9, 0.9, 0.9]), np.array([1, 1, 0, 0])),
        (np.array([0.6, 0.7, 0.8]), np.array([1, 1, 1])),
        (rng.uniform(0.5, 1, 20), rng.integers(0, 2, 20)),
    ],
    mistakes={
        "a gap has no sign: a network may be too modest too": lambda sure, right: sure.mean() - right.mean(),
        "take the two means first: one image is only right or wrong": lambda sure, right: np.abs(sure - right).mean(),
    },
)
def bin_gap(confidence, right):
    return abs(float(np.mean(confidence)) - float(np.mean(right)))


def _names_the_unfair(answer):
    fair = {"A": "its two sides differ in the method alone", "C": "each seed is compared with the same seed"}
    if not set(answer) <= set("ABCD"):
        return 'the answer is letters from A to D, such as "AC"'
    for letter in sorted(set(answer) & set(fair)):
        return f"{letter} is fair: {fair[letter]}"
    return None if set(answer) == {"B", "D"} else "there is another one: what differs besides the method?"


@check(
    judge=_names_the_unfair,
    mistakes={
        "B, whose sides differ in weight decay, is one of two": lambda: "B",
        "D, which looks at the test set to choose an epoch, is one of two": lambda: "D",
        "pairs of one seed share their first weights, which makes a comparison sharper": lambda: "BCD",
    },
)
def unfair():
    return "BD"
