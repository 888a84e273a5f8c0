"""Exercises of 04 confusion: the matrix step by step, what Sinkhorn turns round, the partners, and luck."""

import numpy as np
import torch

from mixlab.course.exercises import Check


def _increment(p, y):
    return y.T @ (p * (y == 0))


def _answers(rng):
    p = torch.from_numpy(rng.dirichlet([1.0] * 4, size=5)).float()
    y = torch.zeros(5, 4)
    y[torch.arange(5), torch.tensor([0, 1, 2, 3, 0])] = 0.75
    y[torch.arange(5), torch.tensor([2, 1, 0, 1, 3])] += 0.25
    yield p[:1], y[:1]
    yield p, y


increment = Check(
    _increment,
    cases=_answers,
    mistakes={
        "the columns of the true classes must be empty: what the network says of them is no confusion": lambda p, y: (
            y.T @ p
        ),
        "rows are the true classes, columns the predicted ones: you have them the other way round": lambda p, y: (
            _increment(p, y).T
        ),
        "a row gets its share of the label: weigh with y itself and not with y > 0": lambda p, y: (
            (y > 0).float().T @ (p * (y == 0))
        ),
    },
)


def _pairing(average, gamma):
    M = average**gamma
    for _ in range(300):
        M = M / M.sum(0)
        M = M / M.sum(1, keepdim=True)
    return M


def _power_off_the_diagonal(average, gamma):
    powered = (average**gamma).fill_diagonal_(1 / len(average))
    return _pairing(powered, 1.0)


def _averages(rng):
    for size, gamma in ((3, 2.0), (4, 0.5), (3, 0.0), (5, 1.0)):
        rows = torch.from_numpy(rng.lognormal(0, 0.7, size=(size, size)))
        yield rows / rows.sum(1, keepdim=True), gamma


pairing = Check(
    _pairing,
    cases=_averages,
    mistakes={
        "one sweep is not enough: repeat until nothing changes": lambda average, gamma: (
            (part := average**gamma / (average**gamma).sum(0)) / part.sum(1, keepdim=True)
        ),
        "this is Algorithm 1 of the paper: the diagonal needs the power too": _power_off_the_diagonal,
        "the power comes first, the balance after it": lambda average, gamma: _pairing(average, 1.0) ** gamma,
    },
)


def _turn():
    return torch.tensor([[0.0, 2.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def _judge_turn(answer):
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
    M = _pairing((rows + 1 / 3) / 2, 1.0)
    if not M[0, 2] > M[0, 1]:
        return f"M still obeys: class 0 meets 1 with {M[0, 1]:.3f} and 2 with {M[0, 2]:.3f}"
    return None


turn = Check(
    _turn,
    cases=lambda rng: [()],
    mistakes={
        "here nothing turns round: let others want class 1 too, and nobody much class 2": lambda: torch.tensor(
            [[0.0, 2.0, 1.0], [1.0, 0.0, 2.0], [2.0, 1.0, 0.0]]
        ),
        "row 0 itself must say the opposite of M": lambda: torch.tensor(
            [[0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]
        ),
    },
    judge=_judge_turn,
)


def _pair(labels, layers):
    members = torch.stack([(labels == a).nonzero()[:, 0] for a in range(layers.shape[1])])
    partner = torch.empty_like(labels)
    for r, layer in enumerate(layers):
        partner[members[:, r]] = members[layer, r]
    return partner


def _backwards(labels, layers):
    partner = torch.empty_like(labels)
    partner[_pair(labels, layers)] = torch.arange(len(labels))
    return partner


def _in_places(labels, layers):
    """The class is taken for the place in the batch, as if the labels ran 0, 1, 2, 0, 1, 2."""
    classes = layers.shape[1]
    return (layers + classes * torch.arange(len(layers))[:, None]).flatten()


def _layers(rng):
    yield torch.tensor([1, 2, 0]), torch.tensor([[1, 2, 0]])
    yield torch.tensor([2, 0, 1, 1, 2, 0]), torch.tensor([[1, 2, 0], [0, 2, 1]])
    labels = torch.from_numpy(rng.permutation(np.arange(12) % 4))
    yield labels, torch.from_numpy(np.stack([rng.permutation(4) for _ in range(3)]))


pair = Check(
    _pair,
    cases=_layers,
    mistakes={
        "class a meets class layer[a]: you let class layer[a] meet class a": _backwards,
        "the batch is in no order: ask `labels` where the samples of a class stand": _in_places,
    },
)


def _lucky(errors):
    return float((errors[:, 0] - errors[:, 1:].min(1)).mean())


lucky = Check(
    _lucky,
    cases=lambda rng: [
        (np.array([[6.0, 5.0, 7.0], [6.0, 6.5, 6.25]]),),
        (rng.normal(6, 0.4, size=(50, 7)),),
    ],
    mistakes={
        "the best of the settings has the smallest error, in each row anew": lambda errors: float(
            (errors[:, 0] - errors[:, 1:].max(1)).mean()
        ),
        "first the best of each row, then the mean over rows": lambda errors: float(
            (errors[:, 0].mean() - errors[:, 1:].mean(0)).max()
        ),
        "a gain is a positive number: the baseline's error minus the best one": lambda errors: -_lucky(errors),
    },
)
