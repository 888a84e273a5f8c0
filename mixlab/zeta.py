"""zeta-mixup (Abhishek, Brown, Hamarneh, 2023): every new sample is a weighted sum of many.

The weights are the terms of a p-series, dealt out to the samples of the batch in random order:

    x'_i = sum_j W_ij x_j,    W_ij = r_ij^-gamma / C,    C = sum_{r=1}^N r^-gamma

with r_ij the rank of sample j in row i. Rank 1, the largest weight, is always sample i's own (the poster leaves this
open, the released code does it), and the other samples share the other ranks at random, anew in every row.
"""

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mixlab.checks import check_batch, check_number, check_whole
from mixlab.method import Method
from mixlab.plans import Weights


class ZetaMixup(Method):
    """zeta-mixup: row i mixes its own sample, at the largest weight, with n_mixed - 1 others.

    gamma >= 0: 0 averages evenly, large gamma mixes nothing; from `gamma_threshold(n_mixed)` on, the own sample weighs
    at least as much as all others together. n_mixed: samples in each row's sum, the own one included, or None for the
    whole batch; a batch that is smaller is mixed whole.
    """

    defaults: ClassVar[dict[str, Any]] = {"gamma": 2.8}  # the default of the released code

    def __init__(self, gamma: float, n_mixed: int | None = None, rng: Any = None):
        super().__init__(rng)
        self.gamma = check_number("gamma", gamma)
        self.n_mixed = None if n_mixed is None else check_whole("n_mixed", n_mixed)

    def draw(self, x, labels):
        check_batch(x, labels)
        n = len(x)
        matrix = weights(n, self.gamma, self.rng, min(n, self.n_mixed or n))
        if x.dtype != torch.float64:
            matrix = matrix.float()  # never narrower: in fp16 the far ranks would be zero
        return Weights(matrix).to(x.device)


def weights(n: int, gamma: float, rng: np.random.Generator, n_mixed: int | None = None) -> Tensor:
    """W (n, n), float64: every row holds the p-series of n_mixed terms (default: n) once, the largest on the diagonal.

    >>> weights(2, 1.0, np.random.default_rng(0))
    tensor([[0.6667, 0.3333],
            [0.3333, 0.6667]], dtype=torch.float64)
    """
    n = check_whole("n", n)
    keys = rng.random((n, n))  # put the samples of every row in order
    np.fill_diagonal(keys, -1.0)  # the own one first
    return weights_from_order(torch.from_numpy(keys.argsort(1)), p_series(n if n_mixed is None else n_mixed, gamma))


def weights_from_order(order: Tensor, series: np.ndarray) -> Tensor:
    """W[i, order[i, r]] = series[r], zero elsewhere: row i of order (n, n) names the samples by rank, the heaviest
    first; series (m,) with m <= n sums to one."""
    n, m = len(order), len(series)
    if m > n:
        raise ValueError(f"n_mixed must be at most n = {n}, not {m}")
    if order.shape != (n, n) or (np.sort(order.numpy(), 1) != np.arange(n)).any():
        raise ValueError(f"order must name every sample from 0 to {n - 1} once in each of its {n} rows, not {order}")
    return torch.zeros(n, n, dtype=torch.float64).scatter_(1, order[:, :m], torch.from_numpy(series).expand(n, m))


def p_series(n: int, gamma: float) -> np.ndarray:
    """j^-gamma / sum_k k^-gamma for j = 1..n: (n,) float64, falling, summing to one.

    >>> p_series(3, 1.0) * 11
    array([6., 3., 2.])
    """
    terms = np.arange(1, check_whole("n", n) + 1, dtype=np.float64) ** -check_number("gamma", gamma)
    return terms / terms.sum()


def gamma_threshold(n: float) -> float:
    """The gamma from which the first of n weights is at least the sum of the others: sum_{j=2}^n j^-gamma = 1.

    0 for n <= 2, growing with n; n = math.inf gives the root of zeta(gamma) = 2, 1.7286…

    >>> round(gamma_threshold(8), 3), round(gamma_threshold(math.inf), 5)
    (1.436, 1.72865)
    """
    from scipy.optimize import brentq  # here, so that `import mixlab` stays light
    from scipy.special import zeta

    if n == math.inf:
        return brentq(lambda gamma: zeta(gamma) - 2, 1.1, 2, xtol=1e-14)
    if check_whole("n", n) <= 2:
        return 0.0
    ranks = np.arange(2.0, n + 1)
    return brentq(lambda gamma: (ranks**-gamma).sum() - 1, 0, 2, xtol=1e-14)
