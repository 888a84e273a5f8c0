"""Exercises of 01 mixup."""

import numpy as np
import torch

from mixlab.course.checks import normal, soft, uniform
from mixlab.course.exercises import check


@check(
    cases=lambda rng: [
        (uniform(rng, 0, 1, *shape), torch.from_numpy(np.roll(rng.permutation(4), 1)), uniform(rng, 0, 1, 4))
        for shape in ((4,), (4, 3), (4, 4), (4, 3, 2, 2))
    ],
    mistakes={
        "lam is the weight of the own sample x, not of x[partner]": lambda x, partner, lam: mix(x, partner, 1 - lam),
        "every row has its own lam": lambda x, partner, lam: mix(x, partner, lam[:1].expand(len(x))),
        "line lam up with the first axis: lam.view(-1, 1, …)": lambda x, p, lam: lam * x + (1 - lam) * x[p],
    },
)
def mix(x, partner, lam):
    lam = lam.view(-1, *[1] * (x.dim() - 1))
    return lam * x + (1 - lam) * x[partner]


@check(
    cases=lambda rng: [(normal(rng, n, c), soft(rng, n, c)) for n, c in ((2, 3), (5, 4))],
    mistakes={
        "sum over the classes first, then take the mean over the samples": lambda s, y: loss(s, y) / y.shape[1],
        "the logits are not logarithms of probabilities yet: log_softmax": lambda s, y: -(y * s).sum(1).mean(),
        "the sign: a loss is large where the logarithm is far below zero": lambda s, y: -loss(s, y),
    },
)
def loss(logits, y):
    return -(y * logits.log_softmax(1)).sum(1).mean()


def _below(x, a, b):
    """The chance that a number drawn from Beta(a, b) is below x."""
    from scipy.special import betainc

    return float(betainc(a, b, x))


def _of_two_classes(alpha, c):
    return _below(0.5, alpha, alpha + 1)


@check(
    cases=lambda rng: [(1.0, 2), (1.0, 10), *((float(rng.uniform(0.2, 8)), int(c)) for c in rng.integers(2, 20, 3))],
    mistakes={
        "two samples of the same class lose nothing, and 1 / c of the pairs are": _of_two_classes,
        "1 / c is the chance of one class, not of two": lambda alpha, c: 1 - 1 / c + _of_two_classes(alpha, c) / c,
    },
)
def ceiling(alpha, c):
    return 1 / c + (1 - 1 / c) * _of_two_classes(alpha, c)


def _half_between(alpha):
    if alpha <= 0:
        return "alpha must be above 0"
    share = _below(0.6, alpha, alpha) - _below(0.4, alpha, alpha)
    far = "more" if share < 0.5 else "fewer"
    return None if 0.45 < share < 0.55 else f"there {share:.0%} of all lam lie between 0.4 and 0.6: {far} are wanted"


@check(  # to play: turn the slider until half of all lam lie between 0.4 and 0.6
    judge=_half_between,
    mistakes={
        "at alpha = 1 every lam is as likely as any other": lambda: 1.0,
        "a small alpha pushes lam to 0 and 1": lambda: 0.2,
    },
)
def alpha_half():
    return 7.0


def _points(rng):
    by_hand = torch.tensor([[-2.2, 0.0], [-0.7, 1.0], [0.0, 0.0], [0.75, -1.0]])
    yield by_hand, torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.4, 0.6]])
    yield uniform(rng, -2.5, 2.5, 500, 2), soft(rng, 500, 2)


def _bars(x_mixed, y_mixed):
    """Which points lie on a bar, and the share that each has of the class of the nearest bar."""
    distance = (x_mixed[:, :1] - torch.tensor([-2.25, -0.75, 0.75, 2.25])).abs()
    bar = distance.argmin(1, keepdim=True)
    return distance.gather(1, bar)[:, 0] <= 0.25, y_mixed.gather(1, bar % 2)[:, 0]


def _right_ones(x_mixed, y_mixed):
    on_bar, share = _bars(x_mixed, y_mixed)
    return float((on_bar & (share > 0.5)).double().mean())


def _of_those_on_bars(x_mixed, y_mixed):
    return intruders(x_mixed, y_mixed) / float(_bars(x_mixed, y_mixed)[0].double().mean())


@check(
    cases=_points,
    mistakes={
        "those are the right ones: wrong is less than half for the class of the bar": _right_ones,
        "the share of all points is asked, also of those on no bar": _of_those_on_bars,
        "a share is asked, not a number of points": lambda x, y: intruders(x, y) * len(x),
    },
)
def intruders(x_mixed, y_mixed):
    on_bar, share = _bars(x_mixed, y_mixed)
    return float((on_bar & (share < 0.5)).double().mean())
