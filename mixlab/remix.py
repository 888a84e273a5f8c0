"""Remix (Chou et al., 2020): mixup for classes of unequal size, whose labels lean to the rare one."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from mixlab.checks import check_alpha, check_batch, check_indices, check_number, check_wholes
from mixlab.method import Method, draw_lambda
from mixlab.plans import Pairs, Split


class Remix(Method):
    """Remix: inputs mix as ever, but a label goes to the rare class where the classes are unequal.

        x'_i = lam_i x_i + (1 - lam_i) x_pi(i),   y'_i = lam_y y_i + (1 - lam_y) y_pi(i),   lam_y by `remix_lambda`

    lam_i ~ Beta(alpha, alpha), one for every row. counts: how many images each class has in the training set (not in
    the batch), or None to have `prepare` count them; with equal ones Remix is mixup. kappa > 1: classes are unequal if
    one has kappa times as many. tau in [0, 1]: a label is given away only where its own weight is below it.
    """

    defaults: ClassVar[dict[str, Any]] = {"alpha": 1.0}

    def __init__(
        self, alpha: float, counts: Sequence[int] | None = None, kappa: float = 3.0, tau: float = 0.5, rng: Any = None
    ):
        super().__init__(rng)
        self.alpha, self.kappa = check_alpha(alpha), check_number("kappa", kappa)
        if self.kappa <= 1:
            raise ValueError(f"kappa must be greater than 1, or both rules would apply; it is {kappa}")
        self.tau = check_number("tau", tau, high=1)
        self.counts = None if counts is None else check_wholes("counts", counts, 0)
        sizes = None if self.counts is None else torch.tensor(self.counts).double()
        self.register_buffer("sizes", sizes, persistent=False)  # a buffer, so that it moves to the device

    def prepare(self, model, labels=None):
        classes = getattr(getattr(model, "head", None), "out_features", None)
        if self.counts is None and labels is not None:
            labels = check_indices("labels", labels, classes or 2**31)
            self.sizes = torch.bincount(labels, minlength=classes or 0).double()
        elif self.counts is not None and classes not in (None, len(self.counts)):
            raise ValueError(f"counts are of {len(self.counts)} classes, the model has {classes}")

    def draw(self, x, labels):
        check_batch(x, labels)
        if self.sizes is None:
            raise ValueError("counts are unknown: give them, or call prepare(model, labels of the training set)")
        labels = check_indices("labels", labels, len(self.sizes))
        partner = torch.from_numpy(self.rng.permutation(len(x))).to(x.device, non_blocking=True)
        lam = draw_lambda(self.rng, self.alpha, len(x)).to(x.device, non_blocking=True)
        sizes = self.sizes.to(labels.device)[labels]
        lam_y = remix_lambda(lam, sizes, sizes[partner], self.kappa, self.tau)
        return Split(Pairs(partner, lam), Pairs(partner, lam_y))


def remix_lambda(lam: Tensor, count_own: Any, count_partner: Any, kappa: float, tau: float) -> Tensor:
    """lam (n,) and the sizes of both classes (n,) -> the weight of the own label (n,).

        0 if n_own >= kappa n_partner and lam < tau;   1 if n_partner >= kappa n_own and 1 - lam < tau;   else lam

    Compared, never divided: an empty class needs no special case, and swapping own and partner gives 1 - lam_y.
    """
    own, partner = torch.as_tensor(count_own).double(), torch.as_tensor(count_partner).double()
    to_partner = (own >= kappa * partner) & (own > partner) & (lam < tau)
    to_own = (partner >= kappa * own) & (partner > own) & (1 - lam < tau)
    return torch.where(to_partner, 0.0, torch.where(to_own, 1.0, lam))
