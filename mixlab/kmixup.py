"""k-mixup (Greenewald et al., 2023): mix k points with k points, each with the one that optimal transport gives it.

Two sets of k points are matched so that the sum of squared distances is least,

    sigma = argmin over permutations of  sum_i |x_i - z_sigma(i)|^2,      x'_i = lam x_i + (1 - lam) z_sigma(i),

and the larger k, the nearer the partners. Every batch is cut into blocks of k; each block is matched with another one.
"""

import warnings
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mixlab.checks import check_alpha, check_batch, check_choice, check_inputs, check_whole
from mixlab.method import Method, draw_lambda
from mixlab.plans import Pairs

METRICS = {"squared": "sqeuclidean", "euclidean": "euclidean"}  # our names of the costs, and SciPy's


class KMixup(Method):
    """k-mixup: blocks of k random samples, each matched with k others; lam ~ Beta(alpha, alpha).

    One batch is enough: in random order, every block faces the k samples that come after it, so no sample meets itself.
    That needs a batch of 2k or more; a shorter last batch gets the largest blocks it can hold.

    alpha, per_sample: as in Mixup. k: 1 is mixup. cost: "squared" (the paper's text and theorems) or "euclidean" (its
    pseudocode).
    """

    defaults: ClassVar[dict[str, Any]] = {"alpha": 1.0, "k": 16}

    def __init__(self, alpha: float, k: int, cost: str = "squared", per_sample: bool = False, rng: Any = None):
        super().__init__(rng)
        self.alpha, self.k, self.per_sample = check_alpha(alpha), check_whole("k", k), per_sample
        self.cost = check_choice("cost", cost, METRICS)
        self._largest = 0  # the batch size so far: tells a short last batch from a k that is too large

    def draw(self, x, labels, other: Tensor | None = None):
        """A plan for x, inputs or hidden features; with `other`, a second batch as long, the partners are in there."""
        check_batch(x, labels)
        if other is not None:
            return Pairs(match(x, other, self.k, self.cost), self._lam(len(x))).to(x.device)
        k, order, lam = self.deal(len(x))
        order = order.to(x.device)
        facing = order.roll(-k)
        partner = torch.empty_like(order)
        partner[order] = facing[match(x[order], x[facing], k, self.cost)]
        return Pairs(partner, lam).to(x.device)

    def deal(self, n: int) -> tuple[int, Tensor, float | Tensor]:
        """The random part of a plan for n samples: the size of the blocks, the samples' order (n,), and lam."""
        if n > 1 and 2 * self.k > max(n, self._largest):
            raise ValueError(f"k must be at most half the batch, {n // 2}, not {self.k}: a block faces k other samples")
        self._largest = max(self._largest, n)
        return max(1, min(self.k, n // 2)), torch.from_numpy(self.rng.permutation(n)), self._lam(n)

    def _lam(self, n: int) -> float | Tensor:
        return draw_lambda(self.rng, self.alpha, n if self.per_sample else None)


def match(x: Tensor, other: Tensor, k: int, cost: str = "squared") -> Tensor:
    """For every row of x (n, …) its partner's row in other (n, …): int64 (n,), one to one within each block of k rows.

    Rows jk to jk + k - 1 of both are matched so that the sum of costs is least; the last n mod k are a block of their
    own. cost: "squared" or "euclidean" distance of the flattened rows, in float64.
    """
    from scipy.optimize import linear_sum_assignment  # here, so that `import mixlab` stays light
    from scipy.spatial.distance import cdist

    n, k, metric = len(x), check_whole("k", k), METRICS[check_choice("cost", cost, METRICS)]
    if x.shape != other.shape or x.dim() < 2 or n == 0:
        raise ValueError(f"x and other must have one shape (n, …), not {tuple(x.shape)} and {tuple(other.shape)}")
    partner = np.arange(n)
    if k > 1:
        x, other = _rows(x), _rows(other)
        table = _table(x, other, cost) if x.is_cuda else None  # all costs at once: one trip from the GPU
        for start in range(0, n, k):
            block = slice(start, start + k)
            costs = cdist(x[block], other[block], metric) if table is None else table[block, block]
            if not np.isfinite(costs).all():
                raise ValueError("x must be finite to be matched: it holds NaN, or values too large to square")
            partner[block] = start + linear_sum_assignment(costs)[1]
    return torch.from_numpy(partner).to(x.device)


def expected_min_square(alpha: float) -> float:
    """E[min(lam, 1 - lam)^2] for lam ~ Beta(alpha, alpha): I_1/2(alpha + 2, alpha) (alpha + 1) / (2 alpha + 1), with I
    the regularised incomplete beta function. From 0 at alpha = 0 up to 1/4."""
    from scipy.special import betainc

    if check_alpha(alpha) == 0:
        return 0.0
    return float(betainc(alpha + 2, alpha, 0.5)) * (alpha + 1) / (2 * alpha + 1)


def mean_square(x: Tensor, k: int, rng: Any, pairs: int = 10_000) -> float:
    """The mean squared distance of partners when two random, disjoint sets of k rows of x (n, …) are matched, over at
    least so many pairs. rng: a seed or a NumPy generator."""
    if check_whole("k", k) > len(x) // 2:
        raise ValueError(f"k must lie in 1..{len(x) // 2}, half of the {len(x)} rows, not {k}")
    rng, rows, found = np.random.default_rng(rng), _rows(x).cpu(), []
    for _ in range(-(-pairs // k)):
        first, second = rows[rng.choice(len(rows), 2 * k, replace=False)].split(k)
        found.append((first - second[match(first, second, k)]).square().sum())
    return float(torch.stack(found).mean() / k)


def matched_alpha(alpha: float, ratio: float, largest: float = 100.0) -> float:
    """Algorithm 1: the alpha_k whose perturbation with k-mixup is, in mean square, that of mixup at alpha.

        expected_min_square(alpha_k) = ratio * expected_min_square(alpha)

    ratio: mean_square(x, 1, …) / mean_square(x, k, …). If even `largest` is too small, it is returned with a warning.
    """
    from scipy.optimize import brentq

    if not ratio >= 1:
        raise ValueError(f"ratio must be at least 1: matching brings partners nearer; not {ratio}")
    target = ratio * expected_min_square(alpha)
    if target > expected_min_square(largest):
        xi = (expected_min_square(largest) / target) ** 0.5
        warnings.warn(f"alpha_k = {largest} reaches only {xi:.0%} of mixup's perturbation at {alpha}", stacklevel=2)
        return largest
    if target == 0 or ratio == 1:
        return float(alpha)
    return float(brentq(lambda a: expected_min_square(a) - target, alpha, largest, xtol=1e-12))


def perturbation(x: Tensor, plan: Pairs) -> float:
    """xi: the root mean square distance from the nearer of its two parents at which a mixed sample lands."""
    lam = torch.as_tensor(plan.lam, dtype=torch.float64, device=x.device)
    squared = (x - x[plan.partner]).flatten(1).double().square().sum(1)
    return float((torch.minimum(lam, 1 - lam).square() * squared).mean().sqrt())


def _rows(x: Tensor) -> Tensor:
    """x (n, …) as rows (n, d) in float64, on the GPU if they are there."""
    check_inputs(x, len(x))
    return (x if x.is_cuda else x.cpu()).detach().flatten(1).double()


def _table(x: Tensor, other: Tensor, cost: str) -> np.ndarray:
    """The costs (n, n) of all rows with all rows, brought to the host."""
    distances = torch.cdist(x, other, compute_mode="donot_use_mm_for_euclid_dist")
    return (distances.square() if cost == "squared" else distances).cpu().numpy()
