"""Exercises of 03 zeta-mixup."""

import numpy as np
import torch

from mixlab.course.exercises import Check


def _series(n, gamma):
    terms = np.arange(1.0, n + 1) ** -gamma
    return terms / terms.sum()


def _weights(ranks, gamma, axis=1):
    terms = torch.where(ranks > 0, ranks.clamp_min(1).double() ** -gamma, 0.0)
    return terms / terms.sum(dim=axis, keepdim=True)


def _ranks(rng):
    yield torch.tensor([[1, 2, 3], [2, 1, 3], [3, 2, 1]]), 2.0
    yield torch.tensor([[1, 3, 2], [0, 1, 2], [2, 0, 1]]), 1.0
    yield torch.from_numpy(rng.permuted(np.tile(np.arange(5), (4, 1)), axis=1)), float(rng.uniform(1, 3))


weights = Check(
    _weights,
    cases=_ranks,
    mistakes={
        "every row is to sum to one: along which axis did you divide?": lambda r, gamma: _weights(r, gamma, axis=0),
        "a small rank is to weigh most: the exponent is -gamma": lambda r, gamma: _weights(r, -gamma),
        "rank 0 means weight 0, but 0 to a negative power is infinite": lambda r, gamma: (
            (t := r.double() ** -gamma) / t.sum(1, keepdim=True)
        ),
    },
)


def _shrinkage(gamma, n):
    return float((_series(n, gamma) ** 2).sum())


shrinkage = Check(
    _shrinkage,
    cases=lambda rng: [(2.0, 2), (0.0, 5), (float(rng.uniform(1, 3)), 8)],
    mistakes={
        "that is the own sample's share: the others add theirs": lambda gamma, n: float(_series(n, gamma)[0] ** 2),
        "weights sum to one; it is their squares that count": lambda gamma, n: 1.0,
        "that is the factor of the standard deviation": lambda gamma, n: _shrinkage(gamma, n) ** 0.5,
    },
)


def _gamma_for(first, n, terms=None):
    low, high = 0.0, 64.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _series(terms or n, middle)[0] < first else (low, middle)
    return (low + high) / 2


gamma_for = Check(
    _gamma_for,
    cases=lambda rng: [(0.5, 8), (0.25, 4), (0.8, 2), (float(rng.uniform(0.2, 0.9)), 16)],
    mistakes={
        "the sum has n terms and not infinitely many": lambda first, n: _gamma_for(first, n, 4096),
        "the largest weight is 1 over the sum of all terms, the first included": lambda first, n: _gamma_for(
            first / (1 + first), n
        ),
    },
)


def _fair_lam(gamma, n, points=2):
    w = _series(n, gamma)
    return float(1 - np.sqrt(((1 - w[0]) ** 2 + (w[1:] ** 2).sum()) / points))


fair_lam = Check(
    _fair_lam,
    cases=lambda rng: [(2.0, 2), (float(rng.uniform(1.5, 3)), 16), (2.8, 32), (50.0, 16)],
    mistakes={
        "mixup's partner is random too: x_j - x_i holds two random points": lambda g, n: _fair_lam(g, n, points=1),
        "the weight of the own sample is not the distance that it moves": lambda g, n: float(_series(n, g)[0] ** 2),
        "lam is the weight of the own sample, close to 1": lambda g, n: 1 - _fair_lam(g, n),
    },
)


def _as_many():
    low, high = 0.0, 8.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if 1 / (_series(50, middle) ** 2).sum() > 2 else (low, middle)
    return middle


def _near_two(gamma):
    many = 1 / (_series(50, gamma) ** 2).sum()
    return None if abs(many - 2) < 0.08 else f"at this gamma the weights spread over {many:.2f} pictures"


as_many = Check(
    _as_many,
    cases=lambda rng: [()],
    judge=_near_two,
    mistakes={
        "that is the default of the released code": lambda: 2.8,
        "there the own picture weighs as much as all others together, which is something else": lambda: 1.73,
    },
)
