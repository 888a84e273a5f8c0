"""Exercises of 01 mixup."""

import numpy as np
import torch

from mixlab.course.exercises import Check


def _mix(x, partner, lam):
    lam = lam.view(-1, *[1] * (x.dim() - 1))
    return lam * x + (1 - lam) * x[partner]


def _batches(rng):
    for shape in ((4,), (4, 3), (4, 4), (4, 3, 2, 2)):
        x, lam = (torch.from_numpy(rng.uniform(size=s)).float() for s in (shape, 4))
        yield x, torch.from_numpy(np.roll(rng.permutation(4), 1)), lam


mix = Check(
    _mix,
    cases=_batches,
    mistakes={
        "lam is the weight of the own sample x, not of x[partner]": lambda x, partner, lam: _mix(x, partner, 1 - lam),
        "every row has its own lam": lambda x, partner, lam: _mix(x, partner, lam[:1].expand(len(x))),
        "line lam up with the first axis, whatever follows it: lam.view(-1, 1, …)": lambda x, partner, lam: (
            lam * x + (1 - lam) * x[partner]
        ),
    },
)


def _loss(logits, y):
    return -(y * logits.log_softmax(1)).sum(1).mean()


def _scores(rng):
    for n, c in ((2, 3), (5, 4)):
        y = torch.from_numpy(rng.dirichlet([1.0] * c, size=n)).float()
        yield torch.from_numpy(rng.normal(size=(n, c))).float(), y


loss = Check(
    _loss,
    cases=_scores,
    mistakes={
        "sum over the classes first, then take the mean over the samples": lambda logits, y: (
            _loss(logits, y) / y.shape[1]
        ),
        "the logits are not logarithms of probabilities yet: log_softmax": lambda logits, y: (
            -(y * logits).sum(1).mean()
        ),
        "the sign: a loss is large where the logarithm is far below zero": lambda logits, y: -_loss(logits, y),
    },
)


def _ceiling(alpha, c):
    from scipy.special import betainc

    return float(1 / c + (1 - 1 / c) * betainc(alpha, alpha + 1, 0.5))


ceiling = Check(
    _ceiling,
    cases=lambda rng: [(1.0, 2), (1.0, 10), *((float(rng.uniform(0.2, 8)), int(c)) for c in rng.integers(2, 20, 3))],
    mistakes={
        "two samples of the same class lose nothing, and 1 / c of the pairs are": lambda alpha, c: (
            (_ceiling(alpha, c) - 1 / c) / (1 - 1 / c)
        ),
        "the two cases have changed places: 1 / c is the chance of one class": lambda alpha, c: (
            1 - 1 / c + (_ceiling(alpha, c) - 1 / c) / (1 - 1 / c) / c
        ),
    },
)


def _alpha():
    return 7.0


def _share(alpha: float) -> float:
    from scipy.special import betainc

    return float(betainc(alpha, alpha, 0.6) - betainc(alpha, alpha, 0.4))


def _judge_alpha(alpha):
    if alpha <= 0:
        return "alpha must be above 0"
    share = _share(alpha)
    far = "more" if share < 0.5 else "fewer"
    return None if 0.45 < share < 0.55 else f"there {share:.0%} of all lam lie between 0.4 and 0.6: {far} are wanted"


alpha_half = Check(  # to play: turn the slider until half of all lam lie between 0.4 and 0.6
    _alpha,
    cases=lambda rng: [()],
    judge=_judge_alpha,
    mistakes={
        "at alpha = 1 every lam is as likely as any other": lambda: 1.0,
        "a small alpha pushes lam to 0 and 1": lambda: 0.2,
    },
)


def _intruders(x_mixed, y_mixed, same=torch.less):
    distance = (x_mixed[:, :1] - torch.tensor([-2.25, -0.75, 0.75, 2.25])).abs()
    bar = distance.argmin(1, keepdim=True)
    on_bar = distance.gather(1, bar)[:, 0] <= 0.25
    return float((on_bar & same(y_mixed.gather(1, bar % 2)[:, 0], torch.tensor(0.5))).double().mean())


def _on_the_bars(x_mixed, y_mixed):
    return _intruders(x_mixed, y_mixed) / max(_intruders(x_mixed, y_mixed, lambda a, b: a > -1), 1e-9)


def _points(rng):
    by_hand = torch.tensor([[-2.2, 0.0], [-0.7, 1.0], [0.0, 0.0], [0.75, -1.0]])
    yield by_hand, torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.4, 0.6]])
    x = torch.from_numpy(rng.uniform(-2.5, 2.5, (500, 2))).float()
    yield x, torch.from_numpy(rng.dirichlet([1.0, 1.0], size=500)).float()


intruders = Check(
    _intruders,
    cases=_points,
    mistakes={
        "those are the right ones: wrong is less than half for the class of the bar": lambda x, y: _intruders(
            x, y, torch.greater
        ),
        "the share of all points is asked, also of those on no bar": _on_the_bars,
        "a share is asked, not a number of points": lambda x, y: _intruders(x, y) * len(x),
    },
)
