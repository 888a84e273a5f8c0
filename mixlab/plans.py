"""What a mix is: a row-stochastic matrix W, with x' = W x for the inputs and y' = W y for the labels.

A plan holds W and draws nothing: a method draws one, or you type one in, and the same arithmetic follows.

    Pairs(partner, lam)         x'_i = lam_i x_i + (1 - lam_i) x_partner(i)    W = diag(lam) + diag(1 - lam) P
    Weights(matrix)             x'_i = sum_j W_ij x_j                          any W
    Split(inputs, label_plan)   inputs by one plan, labels by another

lam always belongs to the row's *own* sample and 1 - lam to its partner.
"""

from contextlib import AbstractContextManager, nullcontext
from copy import copy
from typing import Any

import torch
from torch import Tensor

from mixlab.checks import check_indices, check_inputs, check_range, check_rows, check_soft_labels


class Plan:
    """What all plans can do."""

    def __len__(self) -> int:
        raise NotImplementedError

    def mix(self, x: Tensor) -> Tensor:
        """x (n, …) floating point -> a new tensor of the same shape, type and memory layout."""
        raise NotImplementedError

    def mix_labels(self, y: Tensor) -> Tensor:
        """y (n, c) soft labels -> (n, c) soft labels, at least float32."""
        check_soft_labels(y, len(self))
        return self.mix(wide(y))

    def matrix(self) -> Tensor:
        """W (n, n) of the labels, float64 on the CPU: for looking at and for checking, not for mixing."""
        raise NotImplementedError

    def to(self, device: Any, non_blocking: bool = True):
        """The same plan on another device; what comes to the CPU is waited for, since it may be read at once."""
        moved, ahead = copy(self), non_blocking and torch.device(device).type != "cpu"
        for name, part in vars(self).items():
            if hasattr(part, "to"):
                setattr(moved, name, part.to(device, non_blocking=ahead))
        return moved

    def __repr__(self) -> str:
        return f"{type(self).__name__}(n={len(self)})"


class Pairs(Plan):
    """Row i of the batch becomes lam[i] * x[i] + (1 - lam[i]) * x[partner[i]].

    partner (n,) whole numbers in 0..n-1; lam a number in [0, 1] for the whole batch, or (n,) one for every row.

    >>> plan = Pairs(partner=[1, 0], lam=0.75)
    >>> plan.mix(torch.tensor([0.0, 4.0]))
    tensor([1., 3.])
    """

    def __init__(self, partner: Any, lam: Any):
        partner = torch.as_tensor(partner)
        self.partner = check_indices("partner", partner, partner.numel())
        self.lam = _as_lam(lam, len(partner))

    def __len__(self) -> int:
        return len(self.partner)

    def mix(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """As in every plan; other: a second batch of the same kind, if the partners stand there and not in x."""
        check_inputs(x, len(self))
        own, lam = wide(x), self.lam
        if isinstance(lam, Tensor):
            lam = lam.to(own.dtype).view(-1, *[1] * (x.dim() - 1))
        mixed = take(x if other is None else other, self.partner)  # a copy, which the lerp may overwrite
        return wide(mixed).lerp_(own, lam).to(x.dtype)

    def mix_labels(self, y: Tensor, other: Tensor | None = None) -> Tensor:
        """As in every plan; other: the labels of the second batch."""
        check_soft_labels(y, len(self))
        return self.mix(wide(y), other)

    def matrix(self) -> Tensor:
        n = len(self)
        lam = torch.as_tensor(self.lam, dtype=torch.float64, device="cpu").expand(n)
        return torch.diag(lam).index_put((torch.arange(n), self.partner.cpu()), 1 - lam, accumulate=True)

    def __repr__(self) -> str:
        lam = f"one per row, mean {self.lam.mean():.3f}" if isinstance(self.lam, Tensor) else f"{self.lam:.3f}"
        return f"Pairs(n={len(self)}, lam={lam})"


class Weights(Plan):
    """Row i of the batch becomes the weighted sum of all rows, with the weights in row i of `matrix` (n, n).

    >>> Weights(torch.full((2, 2), 0.5)).mix(torch.tensor([0.0, 4.0]))
    tensor([2., 2.])
    """

    def __init__(self, matrix: Any):
        matrix = torch.as_tensor(matrix)
        square = matrix.dim() == 2 and matrix.shape[0] == matrix.shape[1] and len(matrix) > 0
        if not square or not matrix.is_floating_point():
            raise ValueError(f"matrix must be square and floating point, not {matrix.dtype} {tuple(matrix.shape)}")
        check_rows("matrix", matrix)
        self._matrix = matrix

    def __len__(self) -> int:
        return len(self._matrix)

    def mix(self, x: Tensor) -> Tensor:
        check_inputs(x, len(self))
        rows = wide(x.movedim(1, -1) if _channels_last(x) else x)
        with no_autocast(x.device):  # which would take the product in bfloat16, labels included
            mixed = torch.tensordot(self._matrix.to(rows.dtype), rows, 1).to(x.dtype)
        return mixed.movedim(-1, 1) if _channels_last(x) else mixed

    def matrix(self) -> Tensor:
        return self._matrix.to("cpu", torch.float64)


class Split(Plan):
    """Pairs that do one thing to the inputs and another to the labels: each by its own plan.

    A method whose inputs are cut and pasted, not averaged, derives from it and says in `mix` what happens to them.
    """

    def __init__(self, inputs: Any, label_plan: Any):
        self.inputs, self.label_plan = inputs, label_plan

    @property
    def partner(self) -> Tensor:
        """(n,) who row i is mixed with."""
        return self.label_plan.partner

    def __len__(self) -> int:
        return len(self.label_plan)

    def mix(self, x: Tensor) -> Tensor:
        return self.inputs.mix(x)

    def mix_labels(self, y: Tensor) -> Tensor:
        return self.label_plan.mix_labels(y)

    def matrix(self) -> Tensor:
        return self.label_plan.matrix()


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """labels (n,) class indices -> y (n, c) float32 with a single one in each row."""
    labels = check_indices("labels", labels, num_classes)
    return torch.zeros(len(labels), num_classes, device=labels.device).scatter_(1, labels[:, None], 1.0)


def soft_labels(labels: Tensor, num_classes: int) -> Tensor:
    """Class indices (n,) become rows (n, c); rows that are soft already are checked, and widened to float32 or more."""
    if labels.dim() != 2:
        return one_hot(labels, num_classes)
    check_soft_labels(labels, len(labels))
    if labels.shape[1] != num_classes:
        raise ValueError(f"labels have {labels.shape[1]} columns, the model has {num_classes} classes")
    return wide(labels)


def wide(x: Tensor) -> Tensor:
    """x in float32 or better: in bf16 and fp16, lam + (1 - lam) is not always 1."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def take(x: Tensor, index: Tensor) -> Tensor:
    """x[index] as a copy in the memory layout of x (index_select alone turns channels_last into channels first)."""
    return x.movedim(1, -1)[index].movedim(-1, 1) if _channels_last(x) else x.index_select(0, index)


def no_autocast(device: torch.device) -> AbstractContextManager:
    """Arithmetic as it stands on a device, within an autocast region too."""
    known = torch.amp.is_autocast_available(device.type)  # the meta device has none
    return torch.autocast(device.type, enabled=False) if known else nullcontext()


def _channels_last(x: Tensor) -> bool:
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)


def _as_lam(lam: Any, n: int) -> float | Tensor:
    if not isinstance(lam, float):
        lam = torch.as_tensor(lam)
        if lam.dim() == 1 and len(lam) == n:
            check_range("lam", lam, 1)
            return wide(lam)
        if lam.dim() > 0:
            raise ValueError(f"lam must be one number or of shape ({n},), not {tuple(lam.shape)}")
    if not 0 <= lam <= 1:
        raise ValueError(f"lam must lie in [0, 1], not {float(lam)}")
    return float(lam)
