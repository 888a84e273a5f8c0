"""Exercises of 05 LaMix."""

import math

import torch

from mixlab.course.checks import normal, soft, uniform
from mixlab.course.exercises import check


def _batch(n, c):
    """Labels 0, 1, … again and again as rows, and the next one as partner."""
    return torch.eye(c)[torch.arange(n) % c], torch.arange(n).roll(1)


def _mixup(x, y, partner, lam):
    return lam[:, None] * x + (1 - lam[:, None]) * x[partner], mixed(x, y, partner, lam)[1]


@check(
    cases=lambda rng: [
        (uniform(rng, 0.1, 1, n, 2), *_batch(n, c), uniform(rng, 0.6, 0.9, n)) for n, c in ((3, 4), (5, 3))
    ],
    mistakes={
        "that is mixup: in LaMix the input does not move with lam": _mixup,
        "lam is the weight of the own label y, not of y[partner]": lambda x, y, p, lam: mixed(x, y, p, 1 - lam),
        "the label is not averaged: it follows lam": lambda x, y, p, lam: mixed(x, y, p, 0 * lam + 0.5),
    },
)
def mixed(x, y, partner, lam):
    lam = lam[:, None]
    return (x + x[partner]) / 2, lam * y + (1 - lam) * y[partner]


@check(
    cases=lambda rng: [
        (soft(rng, n, c), 3 * normal(rng, n, c), float(rng.uniform(0.55, 0.9))) for n, c in ((2, 3), (4, 5))
    ],
    mistakes={
        "the sigmoid comes before the softmax": lambda y, s, beta: beta * y + (1 - beta) * s.softmax(1),
        "beta is the weight of the local label": lambda local, scores, beta: target(local, scores, 1 - beta),
        "a row is to sum to one: the softmax is missing": lambda y, s, beta: beta * y + (1 - beta) * s.sigmoid(),
    },
)
def target(local, scores, beta):
    return beta * local + (1 - beta) * scores.sigmoid().softmax(1)


def _stranger_has_most(answer):
    if len(answer) != 2 or not all(isinstance(v, int | float) and 0 <= v <= 1 for v in answer):
        return "two numbers between 0 and 1 are wanted, lam and beta"
    lam, beta = answer
    if beta == 0:
        return "with beta = 0 nobody looks at the labels any more: keep some of it"
    highest, lowest = math.e / (math.e + 5), 1 / (math.e + 5)
    stranger, pair = (1 - beta) * highest, beta * max(lam, 1 - lam) + (1 - beta) * lowest
    return None if stranger > pair else f"class 2 has {stranger:.3f} of the target, one of the pair {pair:.3f}"


@check(  # to play: a class that is in neither picture gets the largest share of the target
    judge=_stranger_has_most,
    mistakes={
        "at beta = 0.5 the pair always has more: give the soft head a larger share": lambda: (0.5, 0.5),
        "a pair that is shared evenly has no strong class: which lam does that?": lambda: (1.0, 0.25),
    },
)
def overruled():
    return 0.5, 0.2


@check(
    cases=lambda rng: [
        (*_batch(n, c), soft(rng, n, c, 2.0), float(rng.uniform(0.2, 0.8))) for n, c in ((3, 4), (6, 5))
    ],
    mistakes={
        "lam is 1/2 on average, so the partner's label has as much": lambda y, _, p, beta: beta * y + (1 - beta) * p,
        "p does not depend on lam, so it is not halved": lambda y, partner, p, beta: expected(y, partner, p / 2, beta),
        "the local label has the weight beta": lambda y, other, p, beta: (y + y[other]) / 2 + (1 - beta) * p,
    },
)
def expected(y, partner, p, beta):
    return beta * (y + y[partner]) / 2 + (1 - beta) * p


@check(
    cases=lambda rng: [
        (torch.tensor([[0.52, 0.28, 0.2], [0.5, 0.45, 0.05], [0.9, 0.05, 0.05], [1 / 3, 1 / 3, 1 / 3]]),),
        (soft(rng, 12, 4, 3.0),),
    ],
    mistakes={
        "the smallest entry cannot be too small either": lambda p: (
            p.max(1).values <= math.e / (math.e + p.shape[1] - 1)
        ),
        "the entries differ by a factor of e, not by 1": lambda p: p.max(1).values - p.min(1).values <= 1,
        "every row gets an answer of its own": lambda p: reachable(p).all(),
    },
)
def reachable(p):
    return p.max(1).values <= math.e * p.min(1).values
