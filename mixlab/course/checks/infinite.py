"""Exercises of 06 Infinite Class Mixup."""

import math

import numpy as np
import torch
from torch.nn.functional import cross_entropy, one_hot

from mixlab.course.checks import normal, soft
from mixlab.course.exercises import check

TURNED = {"class": "pair", "pair": "class", "both": "both"}


@check(
    cases=lambda rng: [(normal(rng, 6, 4), soft(rng, 6, 4), axes) for axes in TURNED],
    mistakes={
        "the axes have changed places: a row is an image, a column a classifier": lambda s, y, a: loss(s, y, TURNED[a]),
        "the two axes are added, not averaged": lambda s, y, axes: loss(s, y, axes) / (1 + (axes == "both")),
        "that is mixup's: choose among n mixed classifiers, not c classes": lambda s, y, axes: cross_entropy(s, y),
    },
)
def loss(scores, y, axes):
    s, own = scores @ y.T, torch.arange(len(scores))
    of = {"class": cross_entropy(s, own), "pair": cross_entropy(s.T, own)}
    return of["class"] + of["pair"] if axes == "both" else of[axes]


def _targets(rng):
    yield (torch.eye(2)[[0, 0, 0, 1]],)
    yield (torch.eye(5),)
    for n, c in ((12, 3), (40, 4)):
        yield (torch.eye(c)[torch.from_numpy(rng.integers(c, size=n))],)


def _counts(y):
    return y.unique(dim=0, return_counts=True)[1].double()


def _price(y, m):
    return float((_counts(y) * m.log()).sum() / len(y))


@check(
    cases=_targets,
    mistakes={
        "take the mean over all rows, not over the different targets": lambda y: float(_counts(y).log().mean()),
        "a row pays for its own copies, not for the average": lambda y: math.log(len(y) / len(_counts(y))),
        "nobody pays for being alone: m counts the row itself, and log 1 = 0": lambda y: _price(y, _counts(y) + 1),
    },
)
def copies(y):
    return _price(y, _counts(y))


def _floor(lams):
    """The lowest class-axis loss for two classes and targets (lam, 1 - lam): the mean of the largest entropies."""
    from scipy.optimize import brentq
    from scipy.special import entr, softmax

    t, total = (lams - lams.min()) / (lams.max() - lams.min()), 0.0
    for own in t[(t > 0) & (t < 1)]:
        tilt = brentq(lambda d, own=own: softmax(d * t) @ t - own, -1e4, 1e4)
        total += float(entr(softmax(tilt * t)).sum())
    return total / len(t)


def _is_hard(lams):
    t = np.sort(np.asarray(lams, dtype=float))
    if len(t) != 5 or t[0] < 0 or t[-1] > 1 or np.diff(t).min() < 0.02 - 1e-9:
        return "five numbers in [0, 1] are wanted, no two of them nearer than 0.02"
    return None if _floor(t) >= 0.93 else f"the best scores reach {_floor(t):.2f} nats there, and 0.93 are wanted"


@check(  # to play: five different targets on which the class axis fails as badly as it can
    judge=_is_hard,
    mistakes={
        "evenly spread is a good start: where does a target suffer most?": lambda: (0.0, 0.25, 0.5, 0.75, 1.0),
        "moving all together changes nothing: only their shape counts": lambda: (0.4, 0.45, 0.5, 0.55, 0.6),
        "a target near an end is nearly the best for somebody": lambda: (0.0, 0.02, 0.04, 0.06, 1.0),
    },
)
def hard():
    return 0.0, 0.48, 0.5, 0.52, 1.0


@check(
    cases=lambda rng: [(1.0,), (-3.0,), (float(rng.uniform(2, 8)),), (0.0,), (20.0,)],
    mistakes={
        "that is mixup's own, with only the two pure classes on offer": lambda d: 1 / (1 + math.exp(-d)),
        "at d = 0 all classes score alike: what is their mean then?": lambda d: 1 / (1 - math.exp(-d)) - 1 / d,
        "the logarithm of (e^d - 1) / d has two terms, and both change with d": lambda d: 1 / (1 - math.exp(-d)),
    },
)
def curve(d):
    return 0.5 if d == 0 else 1 / (1 - math.exp(-d)) - 1 / d


def _unmixed(rng):
    yield torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 1, 0])
    for n, c in ((6, 3), (30, 5)):
        yield normal(rng, n, c), torch.from_numpy(rng.integers(c, size=n))


def _with(scores, labels, more):
    """The loss with more added to the scores of the classes on offer."""
    own = (scores * one_hot(labels, scores.shape[1])).sum(1)
    return ((scores + more).logsumexp(1) - own).mean()


def _in_batch(scores, labels):
    return torch.bincount(labels, minlength=scores.shape[1])


@check(
    cases=_unmixed,
    mistakes={
        "that is cross-entropy: every class counts once there, here as often as the batch holds it": cross_entropy,
        "n equal terms e^s add up to n e^s, which is e^(s + log n)": lambda s, c: _with(s, c, _in_batch(s, c)),
        "the own score stays: one of the n copies is the target": lambda s, c: cross_entropy(
            s + _in_batch(s, c).log(), c
        ),
    },
)
def counted(scores, labels):
    return _with(scores, labels, _in_batch(scores, labels).log())
