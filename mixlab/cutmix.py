"""CutMix (Yun et al., 2019): paste a box of another image, and give the label by area."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixlab.checks import check_batch, check_images
from mixlab.method import draw_lambda
from mixlab.mixup import Mixup
from mixlab.plans import Pairs, Split, take


class CutMix(Mixup):
    """CutMix: a box of the partner's image is pasted, and the label follows the area.

        cut = sqrt(1 - lam),  lam ~ Beta(alpha, alpha)       the box: cut * height by cut * width, centre anywhere
        y'_i = kept y_i + (1 - kept) y_pi(i)                 kept = 1 - (area of the box inside the image) / (h w)

    The box is clipped at the border and kept is what is left, so it is mostly larger than lam (0.70 on average at
    alpha = 1 on 32 x 32 pixels). Images of any type, whole numbers too: nothing is averaged.
    alpha >= 0: 0 cuts nothing. per_sample: a box for every image in place of one for the batch (as published).
    """

    def draw(self, x, labels):
        check_batch(x, labels)
        height, width = check_images(x)
        n = len(x) if self.per_sample else None
        lam = draw_lambda(self.rng, self.alpha, n)
        box = cutmix_box(height, width, lam, self.rng.integers(height, size=n), self.rng.integers(width, size=n))
        return Boxes(torch.from_numpy(self.rng.permutation(len(x))), box, height, width).to(x.device)


class Boxes(Split):
    """Row i of the batch gets the box (top, left, bottom, right) of row partner[i]: rows top to bottom - 1, and so on.

    partner (n,); box: four whole numbers for the whole batch, or four arrays (n,), one box for every row.
    """

    def __init__(self, partner: Tensor, box: tuple, height: int, width: int):
        lam = kept_area(box, height, width)
        super().__init__(None, Pairs(partner, torch.as_tensor(lam).float() if np.ndim(lam) else lam))
        self.box, self.size = box, (height, width)

    def mix(self, x):
        """x (n, …, height, width) of any type -> a new tensor of the same shape, type and memory layout."""
        return torch.where(self.inside(x), take(x, self.partner), x)

    def inside(self, x: Tensor) -> Tensor:
        """Which pixels of x lie in their row's box: of a shape that spreads over x."""
        if check_images(x) != self.size or len(x) != len(self):
            raise ValueError(f"x has shape {tuple(x.shape)}, the plan is for {len(self)} images of {self.size} pixels")
        corners = torch.as_tensor(np.stack(self.box)).to(x.device, non_blocking=True)
        top, left, bottom, right = corners.view(4, -1, *[1] * (x.dim() - 1))
        rows, columns = (torch.arange(size, device=x.device) for size in self.size)
        rows = rows[:, None]
        return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)


def cutmix_box(height: int, width: int, lam: Any, center_y: Any, center_x: Any) -> tuple:
    """The box to paste, (top, left, bottom, right), the last two exclusive: cut = sqrt(1 - lam) of each side.

    As in the released code: half a side is int(size * cut) // 2 pixels, so odd sides lose one, and what lies outside
    the image is clipped. lam and the centre, a pixel of the image: numbers, or arrays (n,) for a box each.
    """
    lam = np.asarray(lam, dtype=np.float64)
    if not ((lam >= 0) & (lam <= 1)).all():
        raise ValueError(f"lam must lie in [0, 1], not {lam}")
    sides = []
    for name, size, center in (("center_y", height, center_y), ("center_x", width, center_x)):
        if not np.all((np.asarray(center) >= 0) & (np.asarray(center) < size)):
            raise ValueError(f"{name} must lie in 0..{size - 1}, not {center}")
        half = (size * np.sqrt(1 - lam)).astype(np.int64) // 2
        sides.append((np.maximum(center - half, 0), np.minimum(center + half, size)))
    (top, bottom), (left, right) = sides
    return (top, left, bottom, right) if np.ndim(top) else (int(top), int(left), int(bottom), int(right))


def kept_area(box: tuple, height: int, width: int) -> Any:
    """The label's weight of the own sample: the part of the image outside the box."""
    top, left, bottom, right = box
    return 1 - (bottom - top) * (right - left) / (height * width)
