"""Exercises of 02 k-mixup."""

from itertools import permutations

import numpy as np
import torch

from mixlab.course.checks import normal
from mixlab.course.exercises import check


def _sets(rng):
    yield torch.tensor([[0.0], [1.0]]), torch.tensor([[1.1], [5.0]])
    yield torch.tensor([[0.0, 0.0], [3.0, 0.0]]), torch.tensor([[3.0, 1.8], [6.0, 0.0]])
    for _ in range(4):
        yield tuple(normal(rng, 2, 4, 3))


def _nearest(x, z):
    return tuple(torch.cdist(x, z).argmin(1).tolist())


def _cheapest(table):
    return min(permutations(range(len(table))), key=lambda order: float(sum(table[i, j] for i, j in enumerate(order))))


@check(
    cases=_sets,
    mistakes={
        "two points may share the nearest one: each is to be used once": lambda x, z: _nearest(x, z),
        "that matches the other way round: sigma[i] is the row of z for x[i]": lambda x, z: assignment(z, x),
        "that is the dearest matching": lambda x, z: _cheapest(-(torch.cdist(x, z) ** 2)),
    },
)
def assignment(x, z):
    return _cheapest((x[:, None] - z).square().sum(-1))


def _faces_no_member(facing, order, k):
    if facing.shape != order.shape or sorted(facing) != sorted(order):
        return f"every one of the {len(order)} samples is to be faced once"
    for start in range(0, len(order), k):
        own = set(order[start : start + k].tolist()) & set(facing[start : start + k].tolist())
        if own:
            return f"block {start // k} faces its own member {min(own)}"
    return None


@check(
    cases=lambda rng: [(rng.permutation(n), k) for n, k in ((8, 4), (12, 4), (13, 4), (23, 8), (5, 1), (7, 4))],
    judge=_faces_no_member,
    mistakes={
        "nobody may face himself: move the order on": lambda order, k: order,
        "one step is not enough for a block of k: its members still meet": lambda order, k: np.roll(order, -1),
        "chance does not keep a block from meeting itself": lambda order, k: order[
            np.random.default_rng(0).permutation(len(order))
        ],
        "too short a batch has no two blocks": lambda order, k: np.roll(order, -k),
    },
)
def facing(order, k):
    if len(order) < 2 * k:
        raise ValueError(f"k must be at most half the batch, {len(order) // 2}, not {k}")
    return np.roll(order, -k)


def _greedy(x, z):
    """Pairs in turn: the nearest two that are left."""
    table, total = torch.cdist(x, z).square(), 0.0
    for _ in range(len(x)):
        i, j = divmod(int(table.argmin()), len(z))
        total += float(table[i, j])
        table[i], table[:, j] = torch.inf, torch.inf
    return total


def _is_a_trap(answer):
    x, z = (torch.as_tensor(part, dtype=torch.float64).reshape(-1, 1) for part in answer)
    if len(x) != 2 or len(z) != 2:
        return "two numbers x and two numbers z are wanted, such as (0, 1), (0, 3)"
    best = float((x - z[list(assignment(x, z))]).square().sum())
    if _greedy(x, z) <= best + 1e-9:
        return f"nearest first costs {_greedy(x, z):.3g}, and so does the best matching"
    return None


@check(  # to play: place two x and two z on a line so that taking the nearest pair first is not the best
    judge=_is_a_trap,
    mistakes={
        "each x has a z of its own nearby, so there is no quarrel": lambda: ((0.0, 5.0), (0.1, 5.1)),
        "let both x want the same z": lambda: ((0.0, 1.0), (0.0, 3.0)),
    },
)
def trap():
    return (1.0, 0.0), (1.1, 5.0)


def _m(alpha):
    from scipy.special import betainc

    # E min(lam, 1 - lam)^2 is twice the part of E[lam^2] with lam < 1/2
    return float((alpha + 1) / (2 * alpha + 1) * betainc(alpha + 2, alpha, 0.5))


@check(
    cases=lambda rng: [(0.25, 1.5), (1.0, 1.2), (0.1, 6.0), (float(rng.uniform(0.2, 2)), 1.1), (1.0, 3.5)],
    may_call=("expected_min_square",),
    mistakes={
        "m is not proportional to alpha": lambda alpha_1, ratio: alpha_1 * ratio,
        "m(alpha) has to grow by the ratio, not its root": lambda alpha_1, ratio: keep_xi(alpha_1, ratio**0.5),
        "no alpha can do it, since m stays below 1/4: return None": lambda *given: keep_xi(*given) or 100.0,
    },
)
def keep_xi(alpha_1, ratio):
    from scipy.optimize import brentq

    target = ratio * _m(alpha_1)
    return None if target >= 0.25 else float(brentq(lambda alpha: _m(alpha) - target, alpha_1, 1e6, xtol=1e-12))


def _labels(rng):
    yield np.array([0, 0, 1, 1, 1]), np.array([1, 1, 1, 1, 0])
    yield np.array([2, 0, 0, 1]), np.array([0, 1, 1, 1])
    for classes in (2, 5):
        yield tuple(rng.integers(classes, size=(2, 16)))


@check(
    cases=_labels,
    mistakes={
        "who stands opposite whom is not given: only the numbers of each class count": lambda a, b: int((a != b).sum()),
        "one class's surplus is another one's lack: every bridge was counted twice": lambda a, b: 2 * bridges(a, b),
        "that many can stay within their class": lambda a, b: len(a) - bridges(a, b),
    },
)
def bridges(a, b):
    classes = max(a.max(), b.max()) + 1
    return int(len(a) - np.minimum(np.bincount(a, minlength=classes), np.bincount(b, minlength=classes)).sum())


def _clusters(rng):
    yield np.array([1, 1, 0]), np.array([0, 1, 1])
    yield np.array([3, 1]), np.array([1, 3])
    for _ in range(4):
        yield tuple(np.bincount(c, minlength=4) for c in rng.integers(4, size=(2, 24)))


@check(
    cases=_clusters,
    mistakes={
        "that counts the points that leave, not the gaps that they cross": lambda r, s: int(np.abs(r - s).sum()) // 2,
        "who comes and who goes do not cancel: take absolute values gap by gap": lambda r, s: int((r - s).sum()),
    },
)
def crossings(r, s):
    return int(np.abs(np.cumsum(r - s)).sum())
