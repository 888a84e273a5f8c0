"""The checks of the exercises, a file for each lesson; mixlab/course/exercises.py says how to add one.

Here stands what their cases are drawn with.
"""

import torch
from torch import Tensor


def normal(rng, *shape: int) -> Tensor:
    """Standard normal numbers."""
    return torch.from_numpy(rng.normal(size=shape)).float()


def uniform(rng, low: float, high: float, *shape: int) -> Tensor:
    """Numbers between low and high."""
    return torch.from_numpy(rng.uniform(low, high, size=shape)).float()


def soft(rng, n: int, c: int, even: float = 1.0) -> Tensor:
    """n soft labels over c classes; the larger `even`, the less they differ."""
    return torch.from_numpy(rng.dirichlet([even] * c, size=n)).float()
