"""Exercises of 05 LaMix."""

import math

import torch

from mixlab.course.exercises import Check


def _mixed(x, y, partner, lam):
    lam = lam[:, None]
    return (x + x[partner]) / 2, lam * y + (1 - lam) * y[partner]


def _mixup(x, y, partner, lam):
    return lam[:, None] * x + (1 - lam[:, None]) * x[partner], _mixed(x, y, partner, lam)[1]


def _pairs(rng):
    for n, c in ((3, 4), (5, 3)):
        x = torch.from_numpy(rng.uniform(0.1, 1, size=(n, 2))).float()
        y = torch.eye(c)[torch.arange(n) % c]
        partner = torch.arange(n).roll(1)
        yield x, y, partner, torch.from_numpy(rng.uniform(0.6, 0.9, size=n)).float()


mixed = Check(
    _mixed,
    cases=_pairs,
    mistakes={
        "that is mixup: in LaMix the input does not move with lam": _mixup,
        "lam is the weight of the own label y, not of y[partner]": lambda x, y, partner, lam: _mixed(
            x, y, partner, 1 - lam
        ),
        "the label is not averaged: it follows lam": lambda x, y, partner, lam: _mixed(
            x, y, partner, torch.full_like(lam, 0.5)
        ),
    },
)


def _target(local, scores, beta):
    return beta * local + (1 - beta) * scores.sigmoid().softmax(1)


def _scores(rng):
    for n, c in ((2, 3), (4, 5)):
        local = torch.from_numpy(rng.dirichlet([1.0] * c, size=n)).float()
        yield local, torch.from_numpy(rng.normal(scale=3, size=(n, c))).float(), float(rng.uniform(0.55, 0.9))


target = Check(
    _target,
    cases=_scores,
    mistakes={
        "the scores go through the sigmoid first, then through the softmax": lambda local, scores, beta: (
            beta * local + (1 - beta) * scores.softmax(1)
        ),
        "beta is the weight of the local label": lambda local, scores, beta: _target(local, scores, 1 - beta),
        "a sigmoid alone does not make a row that sums to one: the softmax is missing": lambda local, scores, beta: (
            beta * local + (1 - beta) * scores.sigmoid()
        ),
    },
)


def _overruled():
    return 0.5, 0.2


def _judge_overruled(answer):
    if len(answer) != 2 or not all(isinstance(v, int | float) and 0 <= v <= 1 for v in answer):
        return "two numbers between 0 and 1 are wanted, lam and beta"
    lam, beta = answer
    if beta == 0:
        return "with beta = 0 nobody looks at the labels any more: keep some of it"
    highest, lowest = math.e / (math.e + 5), 1 / (math.e + 5)
    stranger, pair = (1 - beta) * highest, beta * max(lam, 1 - lam) + (1 - beta) * lowest
    return None if stranger > pair else f"class 2 has {stranger:.3f} of the target, one of the pair {pair:.3f}"


overruled = Check(  # to play: a class that is in neither picture gets the largest share of the target
    _overruled,
    cases=lambda rng: [()],
    judge=_judge_overruled,
    mistakes={
        "at beta = 0.5 the pair always has more: give the soft head a larger share": lambda: (0.5, 0.5),
        "a pair that is shared evenly has no strong class: which lam does that?": lambda: (1.0, 0.25),
    },
)


def _expected(y, partner, p, beta):
    return beta * (y + y[partner]) / 2 + (1 - beta) * p


def _labels(rng):
    for n, c in ((3, 4), (6, 5)):
        y, partner = torch.eye(c)[torch.arange(n) % c], torch.arange(n).roll(1)
        yield y, partner, torch.from_numpy(rng.dirichlet([2.0] * c, size=n)).float(), float(rng.uniform(0.2, 0.8))


expected = Check(
    _expected,
    cases=_labels,
    mistakes={
        "lam is 1/2 in expectation, so the partner's label has as much as the own one": lambda y, partner, p, beta: (
            beta * y + (1 - beta) * p
        ),
        "p does not depend on lam, so it is not halved": lambda y, partner, p, beta: (
            _expected(y, partner, p, beta) - (1 - beta) * p / 2
        ),
        "only the local label has the weight beta; p has 1 - beta": lambda y, partner, p, beta: (
            (y + y[partner]) / 2 + (1 - beta) * p
        ),
    },
)


def _reachable(p):
    return p.max(1).values <= math.e * p.min(1).values


def _below_the_largest(p):
    return p.max(1).values <= math.e / (math.e + p.shape[1] - 1)


def _global_labels(rng):
    yield (torch.tensor([[0.52, 0.28, 0.2], [0.5, 0.45, 0.05], [0.9, 0.05, 0.05], [1 / 3, 1 / 3, 1 / 3]]),)
    yield (torch.from_numpy(rng.dirichlet([3.0] * 4, size=12)).float(),)


reachable = Check(
    _reachable,
    cases=_global_labels,
    mistakes={
        "no entry too large is not enough: the smallest cannot be too small either": _below_the_largest,
        "the sigmoids differ by 1 at most, so the entries by a factor of e, not by a difference of 1": lambda p: (
            p.max(1).values - p.min(1).values <= 1
        ),
        "every row gets an answer of its own": lambda p: _reachable(p).all(),
    },
)
