"""Exercises of 00 start here: two images and two labels mixed by hand, and a whole batch as W x."""

import torch

from mixlab.course.exercises import Check


def _blend(x_1, x_2, y_1, y_2, lam):
    return lam * x_1 + (1 - lam) * x_2, lam * y_1 + (1 - lam) * y_2


def _pairs(rng):
    for shape, lam in (((4,), 0.25), ((2, 3, 3), 0.7), ((5,), 1.0)):
        x = torch.from_numpy(rng.normal(size=(2, *shape))).float()
        yield x[0], x[1], torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), lam


blend = Check(
    _blend,
    cases=_pairs,
    mistakes={
        "lam is the weight of the first one, for the image and for the label": lambda a, b, y, z, lam: _blend(
            b, a, z, y, lam
        ),
        "the label is mixed with the same lam as the image": lambda a, b, y, z, lam: (_blend(a, b, y, z, lam)[0], y),
        "return both: the mixed image, then the mixed label": lambda a, b, y, z, lam: _blend(a, b, y, z, lam)[0],
    },
)


def _apply(W, x):
    return (W @ x.flatten(1)).view(x.shape)


def _batches(rng):
    for shape in ((3, 2), (4, 3), (3, 2, 2, 2)):
        W = torch.from_numpy(rng.dirichlet([1.0] * shape[0], size=shape[0])).float()
        yield W, torch.from_numpy(rng.normal(size=shape)).float()


apply = Check(
    _apply,
    cases=_batches,
    mistakes={
        "row i of W says what the new sample i is made of: you took column i": lambda W, x: _apply(W.T, x),
        "W has already the weights: a sum, not a mean": lambda W, x: _apply(W, x) / len(x),
        "return all samples in the shape of x": lambda W, x: W @ x.flatten(1) if x.dim() > 2 else _apply(W, x),
    },
)
