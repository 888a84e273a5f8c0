"""k-mixup (Greenewald et al., 2023): mix k points with k points, each with the one that optimal transport gives it.

Two sets of k points are matched so that the sum of squared distances is least,

    sigma = argmin over permutations of  sum_i |x_i - z_sigma(i)|^2,      x'_i = lam x_i + (1 - lam) z_sigma(i),

and the larger k, the nearer the partners. Every batch is cut into blocks of k; each block is matched with another one.
"""

import warnings
from collections.abc import Callable
from functools import cache
from itertools import permutations
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mixlab.method import Method, check_alpha, check_batch, draw_lambda
from mixlab.plans import Pairs, no_autocast

COSTS = ("squared", "euclidean")
ENUMERATED = 4  # up to this k all k! matchings are compared where the data is: no trip to the host


class KMixup(Method):
    """k-mixup: blocks of k random samples, each matched with k others; lam ~ Beta(alpha, alpha).

    One batch is enough: in random order, every block faces the k samples that come after it, so no sample meets itself.
    That needs a batch of 2k or more; a shorter last batch gets the largest blocks it can hold. Matching runs over
    whatever is handed to `draw`: inputs, or the features of a hidden layer.

    alpha, per_sample: as in Mixup. k: 1 is mixup. cost: "squared" (the paper's text and theorems) or "euclidean" (its
    pseudocode).
    """

    defaults: ClassVar[dict] = {"alpha": 1.0, "k": 16}

    def __init__(self, alpha: float, k: int, cost: str = "squared", per_sample: bool = False, rng=None):
        super().__init__(rng)
        _check(k, cost)
        self.alpha, self.k, self.cost, self.per_sample = check_alpha(alpha), k, cost, per_sample
        self._largest = 0  # the batch size so far: tells a short last batch from a k that is too large
        self._pending: list[tuple] = []  # what `ahead` has begun: this batch and the next, at most

    def draw(self, x, labels, other: Tensor | None = None):
        """A plan for x; with `other`, a second batch of the same length, partner points into that one."""
        check_batch(x, labels)
        if other is not None:
            lam = draw_lambda(self.rng, self.alpha, len(x) if self.per_sample else None)
            return Pairs(match(x, other, self.k, self.cost), lam).to(x.device)
        begun = next((plans for batch, plans in self._pending if batch is x), None) or _start([self], x[None])
        self._pending = [entry for entry in self._pending if entry[0] is not x]
        return begun()[0]

    def ahead(self, x):
        """Draw for x and send its costs on their way, so that they wait for the host and not the host for them."""
        check_batch(x, x)
        self._pending = [*self._pending[-1:], (x, _start([self], x[None]))]

    @staticmethod
    def draw_many(methods, x, labels):
        plans = {}
        for shared in {(method.k, method.cost) for method in methods}:
            which = [i for i, method in enumerate(methods) if (method.k, method.cost) == shared]
            plans.update(zip(which, _start([methods[i] for i in which], x[which])(), strict=True))
        return [plans[i] for i in range(len(methods))]

    def _block(self, n: int) -> int:
        """k, or for a last batch too short for two blocks of k, half of it; a batch of one stays as it is."""
        if n == 1 or n < 2 * self.k <= self._largest:
            return max(1, n // 2)
        if n < 2 * self.k:
            raise ValueError(
                f"k must be at most half the batch, {n // 2}, not {self.k}: a block must face k other samples "
                "(or give a second batch: draw(x, labels, other))"
            )
        self._largest = max(self._largest, n)
        return self.k

    def extra_repr(self) -> str:
        other = f", cost={self.cost!r}" * (self.cost != "squared") + ", per_sample=True" * self.per_sample
        return f"alpha={self.alpha}, k={self.k}" + other


def _start(methods: list[KMixup], x: Tensor) -> Callable[[], list[Pairs]]:
    """Draw everything random for batches x (m, n, …), one for each method, all of one k and cost, and begin to match.

    The call that comes back returns a plan for each.
    """
    n, k = x.shape[1], min(method._block(x.shape[1]) for method in methods)
    order = torch.from_numpy(np.stack([method.rng.permutation(n) for method in methods]))
    lams = [draw_lambda(method.rng, method.alpha, n if method.per_sample else None) for method in methods]
    order = order.to(x.device, non_blocking=True)
    around = torch.cat([order, order[:, :k]], 1)
    facing = around[:, k:]  # block j faces the k samples after it
    rows = _take_rows(_features(x), around) if k > 1 else x
    chosen = _begin(rows[:, :n], rows[:, -n:], k, methods[0].cost)

    def plans() -> list[Pairs]:
        partner = torch.empty_like(order).scatter_(1, order, facing.gather(1, chosen()))
        drawn = [Pairs(row, lam) for row, lam in zip(partner, lams, strict=True)]
        return drawn if x.is_cpu else [plan.to(x.device) for plan in drawn]

    return plans


def match(x: Tensor, other: Tensor, k: int, cost: str = "squared") -> Tensor:
    """For every row of x (n, …) its partner's row in other (n, …): int64 (n,), one to one within each block of k rows.

    Rows jk..jk+k-1 of x are matched with the same rows of other so that the sum of costs is least; the last n mod k
    rows are a block of their own. cost: "squared" or "euclidean" distance of the flattened rows.

    Costs are computed in float64 up to 256 features. Beyond, in float32: right up to about 1e-6 of the batch's
    squared spread, wherever it lies, which only confuses samples nearer than that.
    """
    _check(k, cost)
    if x.shape != other.shape or x.dim() < 2 or len(x) == 0:
        raise ValueError(f"x and other must have one shape (n, …), not {tuple(x.shape)} and {tuple(other.shape)}")
    return _begin(_features(x[None]), _features(other[None]), min(k, len(x)), cost)()[0]


def expected_min_square(alpha: float) -> float:
    """E[min(lam, 1 - lam)^2] for lam ~ Beta(alpha, alpha): I_1/2(alpha + 2, alpha) (alpha + 1) / (2 alpha + 1).

    From 0 at alpha = 0 up to 1/4; I is the regularised incomplete beta function.
    """
    from scipy.special import betainc

    if check_alpha(alpha) == 0:
        return 0.0
    return float(betainc(alpha + 2, alpha, 0.5)) * (alpha + 1) / (2 * alpha + 1)


def mean_square(x: Tensor, k: int, rng, pairs: int = 10_000, cost: str = "squared") -> float:
    """The mean squared distance of partners when two random, disjoint sets of k rows of x (n, …) are matched.

    rng: a seed or a NumPy generator. pairs: how many partners to average over, at least. cost: what the matching minds.
    """
    if not 1 <= k <= len(x) // 2:
        raise ValueError(f"k must lie in 1..{len(x) // 2}, half of the {len(x)} rows, not {k}")
    rng = np.random.default_rng(rng)
    drawn = np.stack([rng.choice(len(x), 2 * k, replace=False) for _ in range(-(-pairs // k))])
    rows = _features(x[None])[0][torch.from_numpy(drawn).to(x.device)]
    first, second = rows[:, :k], rows[:, k:]
    second = _take_rows(second, _begin(first, second, k, cost)())
    return float((first - second).double().square().sum(2).mean())


def matched_alpha(alpha: float, ratio: float, largest: float = 100.0) -> float:
    """Algorithm 1: the alpha_k whose perturbation with k-mixup is, in mean square, that of mixup at alpha.

    E[min^2](alpha_k) = ratio * E[min^2](alpha), solved exactly. ratio: mean squared distance of random pairs over that
    of pairs matched in blocks of k, mean_square(x, 1, …) / mean_square(x, k, …). If even `largest` is too small (none
    gets beyond 1/4), it is returned with a warning.
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


def _begin(x: Tensor, other: Tensor, k: int, cost: str) -> Callable[[], Tensor]:
    """Start to match features x and other (m, n, d), in each of m batches by blocks of k.

    The costs are computed, and from a GPU sent to the host, at once; the call that comes back waits for the partners,
    (m, n) rows of other.
    """
    m, n = x.shape[:2]
    if k == 1:
        return lambda: torch.arange(n, device=x.device).expand(m, n)
    bounds = [(0, n // k * k, k)] + [(n // k * k, n, n % k)] * (n % k > 0)
    blocks = [[v[:, a:b].reshape(-1, size, v.shape[2]) for v in (x, other)] for a, b, size in bounds]
    waiting = [_solve(_costs(*pair, cost)) for pair in blocks]

    def partners() -> Tensor:
        parts = []
        for (start, stop, size), finish in zip(bounds, waiting, strict=True):
            firsts = torch.arange(start, stop, size, device=x.device)[:, None]  # the first row of every block
            parts.append((finish().to(x.device).view(m, -1, size) + firsts).flatten(1))
        return torch.cat(parts, 1)

    return partners


def _costs(x: Tensor, other: Tensor, cost: str) -> Tensor:
    """(b, k, k) costs of every pair of a block, up to what no matching can change.

    |x - z|^2 = |x|^2 + |z|^2 - 2 x.z, and each |x|^2 and |z|^2 enters every matching once: -x.z is enough.
    """
    with no_autocast(x.device):
        inner = torch.bmm(x, other.transpose(1, 2)) if x.is_cpu else None
        if inner is None or _drowned(inner):  # a GPU would have to be waited for, and centres in no time
            centre = x.mean(1, keepdim=True)
            x, other = x - centre, other - centre
            inner = torch.bmm(x, other.transpose(1, 2))
    if cost == "squared":
        return inner.neg_()
    squares = (v.square().sum(-1) for v in (x, other))
    return (next(squares)[:, :, None] + next(squares)[:, None] - 2 * inner).clamp_(min=0).sqrt_()


def _drowned(inner: Tensor) -> bool:
    """Do the data lie so far from the origin that rounding x.z costs digits of what tells matchings apart?

    That is x_i.z_j + x_k.z_l - x_i.z_l - x_k.z_j, which no shift of x or z changes.
    """
    told = inner.diff(dim=1).diff(dim=2)
    return told.numel() > 0 and bool(inner.abs().max() > 16 * told.abs().max())


def _solve(costs: Tensor) -> Callable[[], Tensor]:
    """costs (b, k, k) -> a call that returns the cheapest permutation of every block, (b, k)."""
    if costs.shape[1] <= ENUMERATED:
        best = _enumerate(costs)
        return lambda: best
    from scipy.optimize import linear_sum_assignment

    on_host, arrived = costs.to("cpu", non_blocking=True), None
    if costs.is_cuda:
        arrived = torch.cuda.Event()
        arrived.record()

    def assign() -> Tensor:
        if arrived is not None:
            arrived.synchronize()
        return torch.from_numpy(np.stack([linear_sum_assignment(block)[1] for block in _finite(on_host).numpy()]))

    return assign


def _enumerate(costs: Tensor) -> Tensor:
    """All k! permutations compared, block by block, where the costs are."""
    k = costs.shape[1]
    every, cells = _permutations(k, costs.device)
    totals = (costs if costs.is_cuda else _finite(costs)).flatten(1)[:, cells].sum(-1)
    return every[totals.argmin(1)]


@cache
def _permutations(k: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """All permutations of k, (k!, k), and the cells of a flattened k x k table that each of them picks."""
    every = torch.tensor(list(permutations(range(k))), device=device)
    return every, every + k * torch.arange(k, device=device)


def _finite(costs: Tensor) -> Tensor:
    if not bool(costs.isfinite().all()):
        raise ValueError("x must be finite to be matched: it holds NaN, or values too large to square")
    return costs


def _take_rows(x: Tensor, index: Tensor) -> Tensor:
    """x (m, n, d) and index (m, b) -> (m, b, d): of each batch its own rows."""
    m, n = x.shape[:2]
    flat = index + n * torch.arange(m, device=x.device)[:, None]
    return x.reshape(m * n, -1).index_select(0, flat.flatten()).view(m, index.shape[1], -1)


def _features(x: Tensor) -> Tensor:
    """Batches (m, n, …) as rows (m, n, d): float64 if short, else float32."""
    if not x.is_floating_point():
        raise TypeError(f"x is {x.dtype}: convert to float first, for instance x.float() / 255")
    rows = x.detach().flatten(2)
    return rows.to(torch.float64 if rows.shape[2] <= 256 else torch.float32)


def _check(k: int, cost: str) -> None:
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise ValueError(f"k must be a whole number >= 1, not {k!r}")
    if cost not in COSTS:
        raise ValueError(f"cost must be one of {', '.join(COSTS)}, not {cost!r}")
