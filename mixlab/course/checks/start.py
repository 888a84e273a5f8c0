"""Exercises of 00 start here: two pictures mixed by hand, a mystery picture, a batch as W x, and the W of pairs."""

import torch

from mixlab.course.checks import normal, soft, uniform
from mixlab.course.exercises import check


@check(
    cases=lambda rng: [
        (*normal(rng, 2, *shape), *torch.eye(2), lam) for shape, lam in (((4,), 0.25), ((2, 3, 3), 0.7), ((5,), 1.0))
    ],
    mistakes={
        "lam is the weight of the first one, for image and label": lambda a, b, y, z, lam: blend(b, a, z, y, lam),
        "the label is mixed with the same lam as the image": lambda a, b, y, z, lam: (blend(a, b, y, z, lam)[0], y),
        "return both: the mixed image, then the mixed label": lambda *given: blend(*given)[0],
    },
)
def blend(x_1, x_2, y_1, y_2, lam):
    return lam * x_1 + (1 - lam) * x_2, lam * y_1 + (1 - lam) * y_2


MYSTERY = (2, 0.35)  # the partner, and the weight of picture 0


def mystery(x):
    """A mixture of the picture x[0] with another one of x: which one, and how much of each?"""
    partner, lam = MYSTERY
    return lam * x[0] + (1 - lam) * x[partner]


def _near(answer):
    partner, lam = answer
    if partner != MYSTERY[0]:
        return f"it holds none of picture {partner}: what is left over does not look like it"
    if abs(lam - MYSTERY[1]) > 0.03:
        return f"the partner is right; there is {'less' if lam > MYSTERY[1] else 'more'} of picture 0 in it"
    return None


@check(
    judge=_near,
    mistakes={
        "lam is the weight of picture 0, not of its partner": lambda: (MYSTERY[0], 1 - MYSTERY[1]),
        "first the partner, then lam": lambda: (MYSTERY[1], MYSTERY[0]),
    },
)
def recognise():
    return MYSTERY


@check(
    cases=lambda rng: [
        (soft(rng, shape[0], shape[0]), normal(rng, *shape)) for shape in ((3, 2), (4, 3), (3, 2, 2, 2))
    ],
    mistakes={
        "row i of W says what the new sample i is made of: you took column i": lambda W, x: apply(W.T, x),
        "W has already the weights: a sum, not a mean": lambda W, x: apply(W, x) / len(x),
        "return all samples in the shape of x": lambda W, x: W @ x.flatten(1) if x.dim() > 2 else apply(W, x),
    },
)
def apply(W, x):
    return (W @ x.flatten(1)).view(x.shape)


def _partners(rng):
    for partner in ([1, 2, 0], [3, 2, 1, 0], rng.integers(4, size=4).tolist()):
        partner[-1] = len(partner) - 1  # who may be drawn as his own partner
        yield torch.tensor(partner), uniform(rng, 0.1, 0.9, len(partner))


def _overwritten(partner, lam):
    W = torch.diag(lam)
    W[torch.arange(len(partner)), partner] = 1 - lam
    return W


@check(
    cases=_partners,
    mistakes={
        "who is his own partner keeps lam and gets 1 - lam on top: add, do not overwrite": _overwritten,
        "row i says what the new sample i is made of: you filled column i": lambda *given: matrix(*given).T,
        "lam is the weight of the own sample, on the diagonal": lambda partner, lam: matrix(partner, 1 - lam),
    },
)
def matrix(partner, lam):
    W = torch.zeros(len(partner), len(partner))
    for i, j in enumerate(partner.tolist()):
        W[i, i] += lam[i]
        W[i, j] += 1 - lam[i]
    return W
