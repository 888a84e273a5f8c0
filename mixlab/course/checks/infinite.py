"""Exercises of 06 Infinite Class Mixup."""

import math

import numpy as np
import torch
from torch.nn.functional import cross_entropy, one_hot

from mixlab.course.exercises import Check


def _loss(scores, y, axes):
    s, own = scores @ y.T, torch.arange(len(scores))
    of = {"class": cross_entropy(s, own), "pair": cross_entropy(s.T, own)}
    return of["class"] + of["pair"] if axes == "both" else of[axes]


def _batches(rng):
    for axes in ("class", "pair", "both"):
        y = torch.from_numpy(rng.dirichlet([1.0] * 4, size=6)).float()
        yield torch.from_numpy(rng.normal(size=(6, 4))).float(), y, axes


loss = Check(
    _loss,
    cases=_batches,
    mistakes={
        "the axes have changed places: row i of the matrix is image i, column j is classifier j": lambda s, y, axes: (
            _loss(s, y, {"class": "pair", "pair": "class", "both": "both"}[axes])
        ),
        "the two axes are added, not averaged": lambda s, y, axes: _loss(s, y, axes) / (1 + (axes == "both")),
        "that is mixup's loss: choose among the n mixed classifiers, not the c classes": lambda s, y, axes: (
            cross_entropy(s, y)
        ),
    },
)


def _copies(y):
    _, counts = y.unique(dim=0, return_counts=True)
    return float((counts * counts.double().log()).sum() / len(y))


def _counts(y):
    return y.unique(dim=0, return_counts=True)[1].double()


def _targets(rng):
    yield (torch.eye(2)[[0, 0, 0, 1]],)
    yield (torch.eye(5),)
    for n, c in ((12, 3), (40, 4)):
        yield (torch.eye(c)[torch.from_numpy(rng.integers(c, size=n))],)


copies = Check(
    _copies,
    cases=_targets,
    mistakes={
        "take the mean over all rows, not over the different targets": lambda y: float(_counts(y).log().mean()),
        "every row pays for its own number of copies, not for the average one": lambda y: math.log(
            len(y) / len(_counts(y))
        ),
        "nobody pays for being alone: m counts the row itself, and log 1 = 0": lambda y: float(
            (_counts(y) * (_counts(y) + 1).log()).sum() / len(y)
        ),
    },
)


def _floor(lams):
    """The lowest class-axis loss for two classes and targets (lam, 1 - lam): the mean of the largest entropies."""
    from scipy.optimize import brentq
    from scipy.special import entr, softmax

    t, total = np.asarray(lams, dtype=float), 0.0
    t = (t - t.min()) / (t.max() - t.min())
    for own in t[(t > 0) & (t < 1)]:
        tilt = brentq(lambda d, own=own: softmax(d * t) @ t - own, -1e4, 1e4)
        total += float(entr(softmax(tilt * t)).sum())
    return total / len(t)


def _judge_hard(lams):
    t = np.sort(np.asarray(lams, dtype=float))
    if len(t) != 5 or t[0] < 0 or t[-1] > 1 or np.diff(t).min() < 0.02 - 1e-9:
        return "five numbers in [0, 1] are wanted, no two of them nearer than 0.02"
    return None if _floor(t) >= 0.93 else f"the best scores reach {_floor(t):.2f} nats there, and 0.93 are wanted"


hard = Check(  # to play: five different targets on which the class axis fails as badly as it can
    lambda: (0.0, 0.48, 0.5, 0.52, 1.0),
    cases=lambda rng: [()],
    judge=_judge_hard,
    mistakes={
        "evenly spread is a good start: where does a target suffer most?": lambda: (0.0, 0.25, 0.5, 0.75, 1.0),
        "moving all together changes nothing: only their order and their shape count": lambda: (
            0.4,
            0.45,
            0.5,
            0.55,
            0.6,
        ),
        "a target near an end is nearly the best for somebody": lambda: (0.0, 0.02, 0.04, 0.06, 1.0),
    },
)


def _curve(d):
    return 0.5 if d == 0 else 1 / (1 - math.exp(-d)) - 1 / d


curve = Check(
    _curve,
    cases=lambda rng: [(1.0,), (-3.0,), (float(rng.uniform(2, 8)),), (0.0,), (20.0,)],
    mistakes={
        "that is mixup's own, with only the two pure classes on offer": lambda d: 1 / (1 + math.exp(-d)),
        "at d = 0 all the classes on offer score alike: what is their mean then?": lambda d: (
            1 / (1 - math.exp(-d)) - 1 / d
        ),
        "the logarithm of (e^d - 1) / d has two terms, and both change with d": lambda d: 1 / (1 - math.exp(-d)),
    },
)


def _counted(scores, labels):
    counts = torch.bincount(labels, minlength=scores.shape[1])
    own = scores[torch.arange(len(labels)), labels]
    return ((scores + counts.log()).logsumexp(1) - own).mean()


def _unmixed(rng):
    yield torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 1, 0])
    for n, c in ((6, 3), (30, 5)):
        yield torch.from_numpy(rng.normal(size=(n, c))).float(), torch.from_numpy(rng.integers(c, size=n))


counted = Check(
    _counted,
    cases=_unmixed,
    mistakes={
        "that is cross-entropy: every class counts once there, here as often as the batch holds it": lambda s, labels: (
            cross_entropy(s, labels)
        ),
        "n equal terms e^s add up to n e^s, which is e^(s + log n)": lambda s, labels: (
            (s + torch.bincount(labels, minlength=s.shape[1])).logsumexp(1) - (s * one_hot(labels, s.shape[1])).sum(1)
        ).mean(),
        "the image's own score stays as it is: only one of the n copies is the target": lambda s, labels: cross_entropy(
            s + torch.bincount(labels, minlength=s.shape[1]).log(), labels
        ),
    },
)
