"""What a method is compared with to rule the other explanation out. Nobody would train with these for their own sake.

Each takes one thing away and leaves the rest: the clean batches without the learned label (`InTurn`), the same-class
pairs without the matching (`WithinClass`), the hidden region without the second image (`GreyBoxes`), and so on. The
claims in data/papers/claims.json say which control belongs to which claim.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixlab.checks import check_batch, check_number
from mixlab.confusion import ConfusionMixup
from mixlab.cutmix import Boxes, CutMix
from mixlab.kmixup import KMixup
from mixlab.method import Around, Method, check_method, draw_lambda
from mixlab.mixup import ERM, Mixup
from mixlab.plans import Pairs, Plan, Split, one_hot, soft_labels
from mixlab.zeta import ZetaMixup


class InTurn(Around):
    """Clean batches and the method's in turn, the first one clean, as LaMix does: are the clean batches the cause?"""

    def __init__(self, method: Method):
        super().__init__(method)
        check_method("method", method, mixes_inputs=True, own_loss=False, asks_model=False)
        self.clean = ERM()
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))  # a buffer: a resumed run keeps its turn

    def draw(self, x, labels):
        self.steps += 1
        return (self.clean if self.steps % 2 == 1 else self.method).draw(x, labels)

    def draw_with_model(self, model, x, labels):
        return self.draw(x, labels)


class WithinClass(Mixup):
    """Mixup in which a part of the batch has partners of its own class: is it the same-class pairs of k-mixup?

    part in [0, 1]: so many rows, chosen at random, are paired within their class, each with the next in random order,
    so that none meets itself where its class has two; the other rows are paired at random among themselves.
    """

    def __init__(self, alpha: float, part: float = 1.0, per_sample: bool = False, rng: Any = None):
        super().__init__(alpha, per_sample, rng)
        self.part = check_number("part", part, high=1)

    def draw(self, x, labels):
        check_batch(x, labels)
        n = len(x)
        lam = draw_lambda(self.rng, self.alpha, n if self.per_sample else None)
        order = self.rng.permutation(n)
        kin, rest = np.split(order, [round(self.part * n)])
        partner = np.empty(n, dtype=np.int64)
        partner[rest] = self.rng.permutation(rest)
        classes = labels.cpu().numpy()
        for c in np.unique(classes[kin]):
            own = kin[classes[kin] == c]
            partner[own] = np.roll(own, -1)
        return Pairs(torch.from_numpy(partner), lam).to(x.device)


class Nearest(KMixup):
    """k-mixup whose samples each take the nearest of the k that face them, and several may take the same one."""

    def draw(self, x, labels):
        check_batch(x, labels)
        k, order, lam = self.deal(len(x))
        facing = order.roll(-k)
        rows = x.detach().cpu().flatten(1).double()
        partner = torch.empty_like(order)
        for own, other in zip(order.split(k), facing.split(k), strict=True):
            partner[own] = other[torch.cdist(rows[own], rows[other]).argmin(1)]
        return Pairs(partner, lam).to(x.device)


class EvenTail(ZetaMixup):
    """zeta-mixup's pictures, with a label that spreads all but the own sample's weight evenly: is the tail worth it?"""

    def targets(self, plan, labels, num_classes):
        own = torch.as_tensor(plan.matrix().diagonal(), dtype=torch.float32, device=labels.device)[:, None]
        return own * soft_labels(labels, num_classes) + (1 - own) / num_classes


class OnTop(Around):
    """A second mix on top of a first one: OnTop(CutMix(1.0), ZetaMixup(2.8)) cuts and pastes images already mixed."""

    def __init__(self, method: Method, first: Method):
        super().__init__(method)
        self.first = check_method("first", first, mixes_inputs=True, own_loss=False, asks_model=False)
        check_method("method", method, mixes_inputs=True, own_loss=False, asks_model=False)

    def draw(self, x, labels):
        first = self.first.draw(x, labels)
        return Twice(first, self.method.draw(first.mix(x), labels))

    def draw_with_model(self, model, x, labels):
        return self.draw(x, labels)


class Twice(Plan):
    """One plan after another: W is the product of theirs."""

    def __init__(self, first: Plan, second: Plan):
        self.first, self.second = first, second

    def __len__(self):
        return len(self.first)

    def mix(self, x):
        return self.second.mix(self.first.mix(x))

    def mix_labels(self, y):
        return self.second.mix_labels(self.first.mix_labels(y))

    def matrix(self):
        return self.second.matrix() @ self.first.matrix()


class Averaged(Around):
    """Pictures averaged half and half, whatever lam the label has: LaMix without anything learned."""

    def draw(self, x, labels):
        plan = self.method.draw(x, labels)
        return Split(Pairs(plan.partner, 0.5), plan)

    def draw_with_model(self, model, x, labels):
        return self.draw(x, labels)


class OneLabel(Around):
    """Mixed pictures with the whole label of the heavier sample: are mixed pictures enough?"""

    def targets(self, plan, labels, num_classes):
        return one_hot(self.method.targets(plan, labels, num_classes).argmax(1), num_classes)


class GreyBoxes(CutMix):
    """CutMix's boxes filled with grey, and the label kept: is hiding a region enough? Grey is 0, the mean colour."""

    def draw(self, x, labels):
        boxes = super().draw(x, labels)
        return Split(_Grey(boxes), Pairs(boxes.partner, 1.0))


class _Grey:
    def __init__(self, boxes: Boxes):
        self.boxes = boxes

    def mix(self, x: Tensor) -> Tensor:
        return x.masked_fill(self.boxes.inside(x), 0)


class ShuffledConfusion(ConfusionMixup):
    """Guided pairs whose classes are exchanged at random, for good: as uneven a matrix, and no confusion in it."""

    def prepare(self, model, labels=None):
        super().prepare(model, labels)
        if labels is None:
            raise ValueError("labels must be given: ShuffledConfusion has to know the classes")
        self.exchanged = torch.from_numpy(self.rng.permutation(int(labels.max()) + 1))

    def _make(self):
        own = self.average
        if own is not None:
            self.average = own[self.exchanged][:, self.exchanged]
        super()._make()
        self.average = own


class PriorScores(Around):
    """Scores plus the log of their class's share of the training set, in the loss alone: is it the prior shift?"""

    def prepare(self, model, labels=None):
        super().prepare(model, labels)
        if labels is None:
            raise ValueError("labels must be given: PriorScores has to count the classes")
        self.log_share = (labels.bincount().double() / len(labels)).log().float()

    def score(self, logits, plan, labels):
        return self.method.score(logits.float() + self.log_share.to(logits.device), plan, labels)
