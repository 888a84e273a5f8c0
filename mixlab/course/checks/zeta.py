"""Exercises of 03 zeta-mixup."""

import numpy as np
import torch

from mixlab.course.exercises import check


def _ranks(rng):
    yield torch.tensor([[1, 2, 3], [2, 1, 3], [3, 2, 1]]), 2.0
    yield torch.tensor([[1, 3, 2], [0, 1, 2], [2, 0, 1]]), 1.0
    yield torch.from_numpy(rng.permuted(np.tile(np.arange(5), (4, 1)), axis=1)), float(rng.uniform(1, 3))


def _terms(ranks, gamma):
    return torch.where(ranks > 0, ranks.clamp_min(1).double() ** -gamma, 0.0)


def _shares(terms, axis=1):
    return terms / terms.sum(axis, keepdim=True)


@check(
    cases=_ranks,
    mistakes={
        "every row is to sum to one: along which axis did you divide?": lambda r, gamma: _shares(_terms(r, gamma), 0),
        "a small rank is to weigh most: the exponent is -gamma": lambda r, gamma: weights(r, -gamma),
        "rank 0 means weight 0, but 0 to a negative power is infinite": lambda r, gamma: _shares(r.double() ** -gamma),
    },
)
def weights(ranks, gamma):
    return _shares(_terms(ranks, gamma))


def _series(n, gamma):
    terms = np.arange(1.0, n + 1) ** -gamma
    return terms / terms.sum()


@check(
    cases=lambda rng: [(2.0, 2), (0.0, 5), (float(rng.uniform(1, 3)), 8)],
    mistakes={
        "that is the own sample's share: the others add theirs": lambda gamma, n: float(_series(n, gamma)[0] ** 2),
        "weights sum to one; it is their squares that count": lambda gamma, n: 1.0,
        "that is the factor of the standard deviation": lambda gamma, n: shrinkage(gamma, n) ** 0.5,
    },
)
def shrinkage(gamma, n):
    return float((_series(n, gamma) ** 2).sum())


def _root(function, most):
    from scipy.optimize import brentq

    return float(brentq(function, 0, most, xtol=1e-12))


def _gamma_of(first, terms):
    return _root(lambda gamma: _series(terms, gamma)[0] - first, 64)


@check(
    cases=lambda rng: [(0.5, 8), (0.25, 4), (0.8, 2), (float(rng.uniform(0.2, 0.9)), 16)],
    mistakes={
        "the sum has n terms and not infinitely many": lambda first, n: _gamma_of(first, 4096),
        "the first term is part of the sum too": lambda first, n: _gamma_of(max(first / (1 + first), 1 / n), n),
    },
)
def gamma_for(first, n):
    return _gamma_of(first, n)


def _fair_lam(gamma, n, points):
    w = _series(n, gamma)
    return float(1 - np.sqrt(((1 - w[0]) ** 2 + (w[1:] ** 2).sum()) / points))


@check(
    cases=lambda rng: [(2.0, 2), (float(rng.uniform(1.5, 3)), 16), (2.8, 32), (50.0, 16)],
    mistakes={
        "mixup's partner is random too: x_j - x_i holds two random points": lambda g, n: _fair_lam(g, n, points=1),
        "the weight of the own sample is not the distance that it moves": lambda g, n: float(_series(n, g)[0] ** 2),
        "lam is the weight of the own sample, close to 1": lambda g, n: 1 - fair_lam(g, n),
    },
)
def fair_lam(gamma, n):
    return _fair_lam(gamma, n, points=2)


def _near_two(gamma):
    many = 1 / shrinkage(gamma, 50)
    return None if abs(many - 2) < 0.08 else f"at this gamma the weights spread over {many:.2f} pictures"


@check(
    judge=_near_two,
    mistakes={
        "that is the default of the released code": lambda: 2.8,
        "there the own picture weighs as much as all others together, which is something else": lambda: 1.73,
    },
)
def as_many():
    return _root(lambda gamma: 1 / shrinkage(gamma, 50) - 2, 8)
