"""Infinite Class Mixup (Mensink & Mettes, 2023): mix the classifiers, not the probabilities.

Every mixed image gets a class of its own, whose classifier is the mix of two columns of the last layer's weights. With
S (n, c) the scores of the mixed images and Y (n, c) the mixed labels, the scores of all images against all classifiers
of the batch are

    S~ = S Y^T,      S~_ij = sum_c S_ic y_jc      image i against classifier j,

and image i belongs to classifier i: cross-entropy with the target i over the rows of S~ (image i picks its classifier
among n, the class axis) and over its columns (classifier i picks its image among n, the pair axis).
"""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mixlab.checks import check_choice, check_soft_labels
from mixlab.method import Around, Method, check_method
from mixlab.mixup import Mixup
from mixlab.plans import no_autocast, wide

AXES = ("class", "pair", "both")


class InfiniteClass(Around):
    """Infinite Class Mixup around any method that mixes: IC-Mixup, IC-RegMixup, IC-Remix, …

        InfiniteClass(Mixup(0.2))    RegMixup(InfiniteClass(Mixup(20)))    InfiniteClass(Remix(0.2, counts))

    axes: "class", "pair" or "both", the sum of the two. At the start both together are near 2 log n, not log c, and a
    batch of one costs nothing. One lam for the whole batch makes many of its classifiers equal, which puts a floor
    under the loss; per_sample=True in the method inside has them differ. The class axis keeps a floor even then: a
    classifier that lies between others is never the best for any image.
    """

    defaults: ClassVar[dict[str, Any]] = {"method": Mixup(1.0, per_sample=True)}

    def __init__(self, method: Method, axes: str = "both", rng: Any = None):
        super().__init__(method, rng)
        check_method("method", method, "put it around InfiniteClass instead", own_loss=False, cross_entropy=True)
        self.axes, self.cross_entropy = check_choice("axes", axes, AXES), False

    def score(self, logits, plan, labels):
        return infinite_class_loss(logits, self.targets(plan, labels, logits.shape[1]), self.axes)


def infinite_class_loss(scores: Tensor, y: Tensor, axes: str = "both") -> Tensor:
    """The loss of scores (n, c) of the mixed images with mixed labels y (n, c), of the form above: a scalar.

        class axis  -(1/n) sum_i log softmax_j(S~_ij)_i        pair axis  -(1/n) sum_i log softmax_j(S~_ji)_i

    "both" is their sum. A bias of the last layer adds b y_j to column j: it cancels on the pair axis.
    """
    if scores.shape != y.shape or scores.dim() != 2:
        raise ValueError(f"scores {tuple(scores.shape)} and y {tuple(y.shape)} must have the same shape (n, c)")
    check_soft_labels(y, len(scores))
    with no_autocast(scores.device):  # a product in bfloat16 would move the loss by a thousandth
        s = wide(scores)
        s = s @ y.to(s.dtype).T
    own = torch.arange(len(s), device=s.device)
    sides = {"class": [s], "pair": [s.T], "both": [s, s.T]}[check_choice("axes", axes, AXES)]
    return torch.stack([F.cross_entropy(side, own) for side in sides]).sum()
