"""What lesson 02 measures with: k-mixup with other partners, bridges counted, and the answers on the way over a gap.

A bridge is a pair of points of two classes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixlab.kmixup import KMixup, match
from mixlab.plans import Pairs


class OtherPartners(KMixup):
    """k-mixup as a control: the batch's order, the facing sets and lam are its own, only the partners change.

    rule(matched, bridge, far, differ) -> which row of the facing block every row takes, (b, k). matched (b, k): what
    the assignment takes, bridge (b, k): is that one of another class; far, differ (b, k, k): the distances of all rows
    to all, and whether their classes differ. The batch must hold whole blocks.
    """

    def __init__(self, rule: Callable, k: int = 16, alpha: float = 1.0, rng: Any = None):
        super().__init__(alpha, k, rng=rng)
        self.rule = rule

    def draw(self, x, labels, other=None):
        k, order, lam = self.deal(len(x))
        if other is not None or len(x) % k:
            raise ValueError(f"x must hold whole blocks of {k} and face itself; it has {len(x)} rows")
        own, others = order.view(-1, k), order.roll(-k).view(-1, k)
        matched = match(x[own].flatten(0, 1), x[others].flatten(0, 1), k).view(-1, k) % k
        far, differ = torch.cdist(x[own], x[others]), labels[own][..., None] != labels[others][:, None]
        bridge = differ.gather(2, matched[..., None])[..., 0]
        partner = torch.empty_like(order)
        partner[own] = others.gather(1, self.rule(matched, bridge, far, differ))
        return Pairs(partner, lam)


def count_bridges(x: Tensor, labels: Tensor, k: int, least: Callable, draws: int = 600) -> tuple[float, float, float]:
    """Of random pairs of k-sets of x (n, d), the percentage of bridges that least(a, b) says must be, that the
    assignment has, and that nearest neighbours have. least: from the labels of two sets (arrays) to a whole number."""
    rng = np.random.default_rng(k)
    sets = torch.from_numpy(np.stack([rng.choice(len(x), 2 * k, replace=False) for _ in range(draws)]))
    own, others = sets[:, :k], sets[:, k:]
    must = [least(a, b) / k for a, b in zip(labels[own].numpy(), labels[others].numpy(), strict=True)]
    matched = others.flatten()[match(x[own].flatten(0, 1), x[others].flatten(0, 1), k)]
    nearest = others.gather(1, torch.cdist(x[own], x[others]).argmin(2)).flatten()
    crossing = [float((labels[own].flatten() != labels[partner]).double().mean()) for partner in (matched, nearest)]
    return 100 * float(np.mean(must)), 100 * crossing[0], 100 * crossing[1]


def across_the_gaps(nets, steps: int = 101) -> Tensor:
    """The probability of the bar ahead on 39 ways across the three gaps of `four_bars`: (networks, ways, steps)."""
    along, heights, answers = torch.linspace(-0.5, 0.5, steps), torch.linspace(-1.5, 1.5, 13), []
    for middle, ahead in ((-1.5, 1), (0.0, 0), (1.5, 1)):  # the bars are of classes 0, 1, 0, 1
        points = torch.cartesian_prod(heights, middle + along).flip(1)
        answers.append(nets.predict(points)[..., ahead].view(len(nets), len(heights), steps))
    return torch.cat(answers, 1)
