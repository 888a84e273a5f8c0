"""mixup (Zhang et al., 2018), and training without it: the two smallest methods."""

from typing import Any, ClassVar

import torch

from mixlab.checks import check_alpha, check_batch
from mixlab.method import Method, draw_lambda
from mixlab.plans import Pairs


class ERM(Method):
    """Empirical risk minimisation: nothing is mixed, W is the identity."""

    def draw(self, x, labels):
        check_batch(x, labels)
        return Pairs(torch.arange(len(x), device=x.device), 1.0)


class Mixup(Method):
    """mixup: partners are a random permutation of the batch, lam ~ Beta(alpha, alpha).

        x'_i = lam x_i + (1 - lam) x_pi(i)        y'_i = lam y_i + (1 - lam) y_pi(i)

    alpha >= 0: 0 mixes nothing (lam = 1), 1 draws lam uniformly, large alpha pushes lam to 1/2.
    per_sample: one lam for every row in place of one for the batch (as published).
    """

    defaults: ClassVar[dict[str, Any]] = {"alpha": 1.0}

    def __init__(self, alpha: float, per_sample: bool = False, rng: Any = None):
        super().__init__(rng)
        self.alpha, self.per_sample = check_alpha(alpha), per_sample

    def draw(self, x, labels):
        check_batch(x, labels)
        lam = draw_lambda(self.rng, self.alpha, len(x) if self.per_sample else None)
        return Pairs(torch.from_numpy(self.rng.permutation(len(x))), lam).to(x.device)
