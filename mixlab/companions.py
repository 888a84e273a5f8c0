"""What the papers compare with: CutMix, manifold mixup, RegMixup and Remix. (PuzzleMix has a file of its own.)

Each changes one answer of mixup: CutMix pastes a box in place of averaging, manifold mixup averages inside the network,
RegMixup adds the loss of the clean batch, and Remix gives the label to the rarer class of a pair.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from mixlab.method import Around, Method, check_alpha, check_batch, check_method, draw_lambda, soft_cross_entropy
from mixlab.mixup import Mixup
from mixlab.plans import Pairs, Split, soft_labels, take


class CutMix(Mixup):
    """CutMix (Yun et al., 2019): a box of the partner's image is pasted, and the label follows the area.

        cut = sqrt(1 - lam),  lam ~ Beta(alpha, alpha)       the box: cut * height by cut * width, centre anywhere
        y'_i = kept y_i + (1 - kept) y_pi(i)                 kept = 1 - (area of the box inside the image) / (h w)

    The box is clipped at the border and kept is what is left, so it is mostly larger than lam (0.70 on average at
    alpha = 1 on 32 x 32 pixels). Images of any type, whole numbers too: nothing is averaged.
    alpha >= 0: 0 cuts nothing. per_sample: a box for every image in place of one for the batch (as published).
    """

    def draw(self, x, labels):
        check_batch(x, labels)
        height, width = image_size(x)
        n = len(x) if self.per_sample else None
        lam = draw_lambda(self.rng, self.alpha, n)
        lam = lam if n is None else lam.double().numpy()
        center_y, center_x = self.rng.integers(height, size=n), self.rng.integers(width, size=n)
        partner = torch.from_numpy(self.rng.permutation(len(x))).to(x.device, non_blocking=True)
        return Boxes(partner, cutmix_box(height, width, lam, center_y, center_x), height, width)


class Boxes(Split):
    """Row i of the batch gets the box (top, left, bottom, right) of row partner[i]: rows top to bottom - 1, and so on.

    partner (n,); box: four whole numbers for the whole batch, or four arrays (n,), one box for every row.
    """

    def __init__(self, partner: Tensor, box: tuple, height: int, width: int):
        lam = kept_area(box, height, width)
        if np.ndim(lam):
            lam = torch.from_numpy(lam).float().to(partner.device, non_blocking=True)
        super().__init__(None, Pairs(partner, lam))
        self.box, self.size = box, (height, width)

    def mix(self, x):
        """x (n, …, height, width) of any type -> a new tensor of the same shape, type and memory layout."""
        if image_size(x) != self.size or len(x) != len(self):
            raise ValueError(f"x has shape {tuple(x.shape)}, the plan is for {len(self)} images of {self.size} pixels")
        if np.ndim(self.box[0]):
            return torch.where(self._inside(x), take(x, self.partner), x)
        top, left, bottom, right = self.box
        mixed = x.clone()  # to gather whole images and copy their boxes is faster than to gather boxes
        mixed[..., top:bottom, left:right] = take(x, self.partner)[..., top:bottom, left:right]
        return mixed

    def _inside(self, x: Tensor) -> Tensor:
        """(n, 1, …, height, width) bool: is this pixel in the row's box?"""
        corners = torch.from_numpy(np.stack(self.box, 1)).to(x.device, non_blocking=True)
        top, left, bottom, right = corners.view(-1, 4, *[1] * (x.dim() - 1)).unbind(1)
        rows, columns = (torch.arange(size, device=x.device) for size in self.size)
        rows = rows[:, None]
        return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)


class ManifoldMixup(Around):
    """Manifold mixup (Verma et al., 2019): one place of the network is drawn for each batch, and features mix there.

        h = net.hidden(x, stage),    logits = net(plan.mix(h), start=stage),    stage uniform over `stages`

    The plan is drawn from h, so that a method that matches its inputs matches the features; labels mix as ever. What
    lies before the place sees clean images, also in its BatchNorms. stages: places as in training/models.py. 0 is the
    input and plain mixup; 1 comes after the stem, in PreActResNets a lone convolution, so mixing there is mixing images;
    2 is the first place of its own. (0, 2) is the coin flip between the input and the output of the first group of
    blocks; the released code of manifold mixup draws from what is (0, 2, 3) here.
    """

    defaults: ClassVar[dict] = {"mixing": Mixup(1.0)}

    def __init__(self, mixing: Method, stages: Sequence[int] = (0, 2), rng=None):
        super().__init__(mixing, rng)
        self.stages = tuple(stages)
        if not self.stages or not all(isinstance(stage, int) and stage >= 0 for stage in self.stages):
            raise ValueError(f"stages must be whole numbers >= 0, at least one, not {stages}")
        check_method("mixing", mixing, "put it outside", own_loss=False, cross_entropy=True)
        check_method("mixing", mixing, "it cannot mix hidden features", mixes_inputs=True, asks_model=False)
        self.mixes_inputs = False

    @property
    def mixing(self) -> Method:
        """The method that says who is mixed with whom."""
        return self.method

    def run(self, model, x, labels):
        if not hasattr(model, "hidden"):
            raise ValueError(f"model {type(model).__name__} has no stages to mix at: take one of mixlab.models")
        check_batch(x, labels)
        stage = self.stages[self.rng.integers(len(self.stages))]
        hidden = model.hidden(x, stage)
        plan = self.mixing.draw(hidden, labels)
        return plan, model(plan.mix(hidden), start=stage)

    def extra_repr(self) -> str:
        return f"stages={self.stages}"


class RegMixup(Around):
    """RegMixup (Pinto et al., 2022): the loss of the clean batch plus eta times that of the mix.

        loss = CE(net(x), y) + eta * (the method's loss on its mix)

    Clean and mixed images go through the network together, in one batch of 2n, so BatchNorm sees both. The released
    code takes the mean over all 2n rows, which is half of this at eta = 1. Labels of the clean half stay as they are,
    whatever is inside. eta = 0 is ERM, and mixes nothing.
    """

    defaults: ClassVar[dict] = {"method": Mixup(20.0)}

    def __init__(self, method: Method, eta: float = 1.0, rng=None):
        super().__init__(method, rng)
        if not (math.isfinite(eta) and eta >= 0):
            raise ValueError(f"eta must be a finite number >= 0 (0: no mixing), not {eta}")
        check_method("method", method, "RegMixup sends its mix through the network", own_loss=False, mixes_inputs=True)
        self.own_loss = True
        self.eta = float(eta)

    def loss(self, model, x, labels):
        check_batch(x, labels)
        plan = self.method.draw_with_model(model, x, labels) if self.eta else None
        logits = model(x if plan is None else torch.cat([x, plan.mix(x)]))
        clean, mixed = logits[: len(x)], logits[len(x) :]
        if plan is not None:
            self.method.observe(mixed, plan, labels)
        loss = soft_cross_entropy(clean, soft_labels(labels, logits.shape[1]))
        return loss if plan is None else loss + self.eta * self.method.score(mixed, plan, labels)

    def extra_repr(self) -> str:
        return f"eta={self.eta}"


class Remix(Method):
    """Remix (Chou et al., 2020): inputs mix as ever, but a label goes to the rare class where the classes are unequal.

        x'_i = lam_i x_i + (1 - lam_i) x_pi(i),   y'_i = lam_y y_i + (1 - lam_y) y_pi(i),   lam_y by `remix_lambda`

    lam_i ~ Beta(alpha, alpha), one for every row. counts: how many images each class has in the training set (not in
    the batch), or None to have `prepare` count them; with equal ones Remix is mixup. kappa > 1: classes are unequal if
    one has kappa times as many. tau in [0, 1]: a label is given away only where its own weight is below it.
    """

    defaults: ClassVar[dict] = {"alpha": 1.0}

    def __init__(
        self, alpha: float, counts: Sequence[int] | None = None, kappa: float = 3.0, tau: float = 0.5, rng=None
    ):
        super().__init__(rng)
        self.alpha, self.counts = check_alpha(alpha), counts if counts is None else tuple(counts)
        self.kappa, self.tau = _check_remix(kappa, tau)
        if counts is not None and not (self.counts and all(math.isfinite(n) and n >= 0 for n in self.counts)):
            raise ValueError(f"counts must be one number >= 0 for every class, not {counts}")
        sizes = None if counts is None else torch.tensor(self.counts, dtype=torch.float64)
        self.register_buffer("_sizes", sizes, persistent=False)  # a buffer, so that it moves to the device

    def prepare(self, model, labels=None):
        classes = getattr(getattr(model, "head", None), "out_features", None)
        if self.counts is None and labels is not None:
            self._sizes = torch.bincount(labels, minlength=classes or 0).double()
        elif self.counts is not None and classes not in (None, len(self.counts)):
            raise ValueError(f"counts are of {len(self.counts)} classes, the model has {classes}")

    def draw(self, x, labels):
        check_batch(x, labels)
        self._check_labels(labels)
        partner = torch.from_numpy(self.rng.permutation(len(x))).to(x.device, non_blocking=True)
        lam = draw_lambda(self.rng, self.alpha, len(x)).to(x.device, non_blocking=True)
        sizes = self._sizes.to(labels.device)[labels]
        lam_y = remix_lambda(lam, sizes, sizes[partner], self.kappa, self.tau)
        return Split(Pairs(partner, lam), Pairs(partner, lam_y))

    def _check_labels(self, labels: Tensor) -> None:
        if self._sizes is None:
            raise ValueError("counts are unknown: give them, or call prepare(model, labels of the training set)")
        if labels.dim() != 1 or labels.is_floating_point():
            raise ValueError(f"labels must be class indices (n,), not {labels.dtype} {tuple(labels.shape)}")
        classes = len(self._sizes)
        if labels.is_cpu and not 0 <= labels.min() <= labels.max() < classes:
            raise ValueError(f"labels must lie in 0..{classes - 1}, as counts have {classes}; found {labels.max()}")

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, counts={self.counts}, kappa={self.kappa}, tau={self.tau}"


def cutmix_box(height: int, width: int, lam, center_y, center_x) -> tuple:
    """The box to paste, (top, left, bottom, right), the last two exclusive: cut = sqrt(1 - lam) of each side.

    As in the released code: half a side is int(size * cut) // 2 pixels, so odd sides lose one, and what lies outside
    the image is clipped. lam and the centre: numbers, or arrays (n,) for a box each.
    """
    several = np.ndim(lam) > 0
    if not (np.all((lam >= 0) & (lam <= 1)) if several else 0 <= lam <= 1):
        raise ValueError(f"lam must lie in [0, 1], not {lam}")
    # for one number Python's own functions take a tenth of NumPy's time
    whole, larger, smaller = (np.int64, np.maximum, np.minimum) if several else (int, max, min)
    box, cut = [], (1 - lam) ** 0.5
    for size, center in ((height, center_y), (width, center_x)):
        half = whole(size * cut) // 2
        box.append((larger(center - half, 0), smaller(center + half, size)))
    (top, bottom), (left, right) = box
    return (top, left, bottom, right) if several else (int(top), int(left), int(bottom), int(right))


def kept_area(box: tuple, height: int, width: int):
    """The label's weight of the own sample: the part of the image outside the box."""
    top, left, bottom, right = box
    return 1 - (bottom - top) * (right - left) / (height * width)


def remix_lambda(lam: Tensor, count_own: Tensor, count_partner: Tensor, kappa: float, tau: float) -> Tensor:
    """lam (n,) and the sizes of both classes (n,) -> the weight of the own label (n,).

        0 if n_own >= kappa n_partner and lam < tau;   1 if n_partner >= kappa n_own and 1 - lam < tau;   else lam

    Compared, never divided: an empty class needs no special case, and swapping own and partner gives 1 - lam_y.
    """
    kappa, tau = _check_remix(kappa, tau)
    own, partner = torch.as_tensor(count_own).double(), torch.as_tensor(count_partner).double()
    to_partner = (own >= kappa * partner) & (own > partner) & (lam < tau)
    to_own = (partner >= kappa * own) & (partner > own) & (1 - lam < tau)
    return torch.where(to_partner, 0.0, torch.where(to_own, 1.0, lam))


def image_size(x: Tensor) -> tuple[int, int]:
    """(height, width) of x (n, …, height, width)."""
    if x.dim() < 3:
        raise ValueError(f"x must be images, (n, …, height, width), not of shape {tuple(x.shape)}")
    return x.shape[-2], x.shape[-1]


def _check_remix(kappa: float, tau: float) -> tuple[float, float]:
    if not (math.isfinite(kappa) and kappa > 1):
        raise ValueError(f"kappa must be a finite number > 1 (at 1 both rules would apply), not {kappa}")
    if not 0 <= tau <= 1:
        raise ValueError(f"tau must lie in [0, 1], not {tau}")
    return float(kappa), float(tau)
