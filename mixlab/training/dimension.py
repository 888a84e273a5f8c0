"""How many dimensions does a cloud of points have, seen from close by? Two estimators, from each point's k neighbours.

A curve in a 3072-dimensional space of images has intrinsic dimension 1: one number says where on it you are. Both
estimators look at balls around single points, so they see the dimension *at the scale of those balls*: noise much
smaller than a ball does not count, and a bend as large as a ball does.

    local PCA           directions whose variance is at least `share` of the largest, averaged over the balls
    maximum likelihood  in d dimensions the count of points within radius r grows as r^d; d from the growth

Both are low where the points lie near an edge or are too few for their dimension: k points never fill a ball of many
dimensions. Compare clouds of the same size at the same k; above dimension ten or so read the order, not the level.
"""

import numpy as np
import torch
from torch import Tensor


def local_pca(points: Tensor, k: int = 128, centres: int = 500, share: float = 0.05, rng=0) -> float:
    """Mean number of principal directions among k neighbours (Fukunaga & Olsen 1971).

    points (n, …) distinct; a direction counts if its variance is at least share of the largest. centres: at how many
    of the points to look, drawn by rng (a seed or a NumPy generator).
    """
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1, not {share}")
    points, _, nearest = _neighbours(points, k, centres, rng)
    found = []
    for rows in nearest.split(16):  # 16 balls at once: (16, k, d) fits into memory for images too
        ball = points[rows]
        ball = ball - ball.mean(1, keepdim=True)
        wide = ball.shape[2] > k  # ball ball' and ball' ball have the same non-zero eigenvalues: take the smaller one
        variances = torch.linalg.eigvalsh(ball @ ball.mT if wide else ball.mT @ ball)
        found.append((variances >= share * variances[:, -1:]).sum(1))
    return float(torch.cat(found).double().mean())


def maximum_likelihood(points: Tensor, k: int = 128, centres: int = 500, rng=0) -> float:
    """The dimension under which the neighbours' distances T_1 < … < T_k are most likely (Levina & Bickel 2004).

        1/d = mean over the points of 1/(k-1) sum_{j<k} log(T_k / T_j)

    The inverses are averaged (MacKay & Ghahramani 2005), which is unbiased on evenly filled flat sets. Arguments as in
    `local_pca`.
    """
    _, distances, _ = _neighbours(points, k, centres, rng)
    if not bool((distances[:, 0] > 0).all()):
        raise ValueError("points must be distinct: some have a neighbour at distance 0")
    growth = (distances[:, -1:] / distances[:, :-1]).log().mean(1)
    return float(1 / growth.mean())


def _neighbours(points: Tensor, k: int, centres: int, rng) -> tuple[Tensor, Tensor, Tensor]:
    """The points (n, d) in float64, and for some of them distances (m, k) to and indices (m, k) of their neighbours."""
    if not 3 <= k < len(points):
        raise ValueError(f"k must lie in 3..{len(points) - 1} (points without one), not {k}")
    if centres < 1:
        raise ValueError(f"centres must be at least 1, not {centres}")
    points = points.flatten(1).double()
    chosen = torch.from_numpy(np.random.default_rng(rng).permutation(len(points))[:centres])
    distances = torch.cdist(points[chosen], points)
    distances.scatter_(1, chosen[:, None], -1.0)  # itself first, whatever rounding says; dropped on the next line
    distances, nearest = distances.topk(k + 1, largest=False)
    return points, distances[:, 1:], nearest[:, 1:]
