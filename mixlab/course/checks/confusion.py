"""Exercises of 04 confusion: the matrix step by step, what Sinkhorn turns round, the partners, and luck."""

import numpy as np
import torch

from mixlab.course.checks import soft
from mixlab.course.exercises import check


def _answers(rng):
    p, y, rows = soft(rng, 5, 4), torch.zeros(5, 4), torch.arange(5)
    y[rows, torch.tensor([0, 1, 2, 3, 0])] = 0.75
    y[rows, torch.tensor([2, 1, 0, 1, 3])] += 0.25
    return [(p[:1], y[:1]), (p, y)]


@check(
    cases=_answers,
    mistakes={
        "what the network says of the true classes is no confusion: their columns are empty": lambda p, y: y.T @ p,
        "rows are the true classes, columns the predicted ones: you turned them": lambda p, y: increment(p, y).T,
        "a row gets its share: weigh with y and not with y > 0": lambda p, y: (y > 0).float().T @ (p * (y == 0)),
    },
)
def increment(p, y):
    return y.T @ (p * (y == 0))


def _averages(rng):
    for size, gamma in ((3, 2.0), (4, 0.5), (3, 0.0), (5, 1.0)):
        rows = torch.from_numpy(rng.lognormal(0, 0.7, size=(size, size)))
        yield rows / rows.sum(1, keepdim=True), gamma


def _balanced(M, sweeps=300):
    for _ in range(sweeps):
        M = M / M.sum(0)
        M = M / M.sum(1, keepdim=True)
    return M


def _power_off_the_diagonal(average, gamma):
    return _balanced((average**gamma).fill_diagonal_(1 / len(average)))


@check(
    cases=_averages,
    mistakes={
        "one sweep is not enough: repeat until nothing changes": lambda average, gamma: _balanced(average**gamma, 1),
        "this is Algorithm 1 of the paper: the diagonal needs the power too": _power_off_the_diagonal,
        "the power comes first, the balance after it": lambda average, gamma: _balanced(average) ** gamma,
    },
)
def pairing(average, gamma):
    return _balanced(average**gamma)


def _turns_round(answer):
    if tuple(answer.shape) != (3, 3):
        return f"counts must have the shape (3, 3), not {tuple(answer.shape)}"
    counts = answer.double().clone()
    if not bool((torch.isfinite(counts) & (counts >= 0)).all()) or bool((counts.diagonal() != 0).any()):
        return "counts must be finite and >= 0, with zeros on the diagonal"
    if bool((counts.sum(1) == 0).any()):
        return "every class must be confused with something"
    if not counts[0, 1] >= 2 * counts[0, 2] > 0:
        return f"class 0 must be taken for 1 at least twice as often as for 2, not {counts[0, 1]:g} to {counts[0, 2]:g}"
    rows = 2 / 3 * counts / counts.sum(1, keepdim=True) + torch.eye(3, dtype=torch.float64) / 3
    M = _balanced((rows + 1 / 3) / 2)
    if not M[0, 2] > M[0, 1]:
        return f"M still obeys: class 0 meets 1 with {M[0, 1]:.3f} and 2 with {M[0, 2]:.3f}"
    return None


@check(
    judge=_turns_round,
    mistakes={
        "here nothing turns round: let others want class 1 too, and nobody much class 2": lambda: torch.tensor(
            [[0.0, 2.0, 1.0], [1.0, 0.0, 2.0], [2.0, 1.0, 0.0]]
        ),
        "row 0 itself must say the opposite of M": lambda: torch.tensor(
            [[0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]
        ),
    },
)
def turn():
    return torch.tensor([[0.0, 2.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def _layers(rng):
    yield torch.tensor([1, 2, 0]), torch.tensor([[1, 2, 0]])
    yield torch.tensor([2, 0, 1, 1, 2, 0]), torch.tensor([[1, 2, 0], [0, 2, 1]])
    labels = torch.from_numpy(rng.permutation(np.arange(12) % 4))
    yield labels, torch.from_numpy(np.stack([rng.permutation(4) for _ in range(3)]))


def _in_places(labels, layers):
    """The class is taken for the place in the batch, as if the labels ran 0, 1, 2, 0, 1, 2."""
    classes = layers.shape[1]
    return (layers + classes * torch.arange(len(layers))[:, None]).flatten()


@check(
    cases=_layers,
    mistakes={
        "class a meets class layer[a]: you let class layer[a] meet class a": lambda *given: pair(*given).argsort(),
        "the batch is in no order: ask `labels` where the samples of a class stand": _in_places,
    },
)
def pair(labels, layers):
    members = torch.stack([(labels == a).nonzero()[:, 0] for a in range(layers.shape[1])])
    partner = torch.empty_like(labels)
    for r, layer in enumerate(layers):
        partner[members[:, r]] = members[layer, r]
    return partner


def _gain(errors, best):
    return float((errors[:, 0] - best).mean())


@check(
    cases=lambda rng: [(np.array([[6.0, 5.0, 7.0], [6.0, 6.5, 6.25]]),), (rng.normal(6, 0.4, size=(50, 7)),)],
    mistakes={
        "the best of the settings has the smallest error, in each row anew": lambda e: _gain(e, e[:, 1:].max(1)),
        "first the best of each row, then the mean over rows": lambda e: _gain(e, e[:, 1:].mean(0).min()),
        "a gain is a positive number: the baseline's error minus the best one": lambda e: -lucky(e),
    },
)
def lucky(errors):
    return _gain(errors, errors[:, 1:].min(1))
