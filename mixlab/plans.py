"""What a mix is: a row-stochastic matrix W, with x' = W x for the inputs and y' = W y for the labels.

A plan holds W and draws nothing: a method draws one, or you type one in, and the same arithmetic follows.

    Pairs(partner, lam)         x'_i = lam_i x_i + (1 - lam_i) x_partner(i)    W = diag(lam) + diag(1 - lam) P
    Weights(matrix)             x'_i = sum_j W_ij x_j                          any W
    Split(inputs, label_plan)   inputs by one plan, labels by another

lam always belongs to the row's *own* sample and 1 - lam to its partner. Values are checked on the CPU only: to look at
one on a GPU would make the processor wait for it at every step.
"""

from contextlib import AbstractContextManager, nullcontext
from copy import copy
from typing import Any, TypeAlias

import torch
from torch import Tensor


class Pairs:
    """Row i of the batch becomes lam[i] * x[i] + (1 - lam[i]) * x[partner[i]].

    partner (n,) whole numbers in 0..n-1; lam a number in [0, 1] for the whole batch, or (n,) one for every row.

    >>> plan = Pairs(partner=[1, 0], lam=0.75)
    >>> plan.mix(torch.tensor([0.0, 4.0]))
    tensor([1., 3.])
    """

    def __init__(self, partner: Any, lam: Any):
        self.partner = _as_partner(partner)
        self.lam = _as_lam(lam, len(self.partner))

    def __len__(self) -> int:
        return len(self.partner)

    def to(self, device: Any) -> "Pairs":
        """The same plan on another device."""
        if self.partner.device == device:
            return self
        moved = copy(self)
        moved.partner = self.partner.to(device, non_blocking=True)
        moved.lam = self.lam.to(device, non_blocking=True) if isinstance(self.lam, Tensor) else self.lam
        return moved

    def mix(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """x (n, …) floating point -> a new tensor of the same shape, type and memory layout.

        other: a second batch of the same kind, if the partners stand there and not in x.
        """
        _check_inputs(x, len(self))
        own, lam = wide(x), self.lam
        if isinstance(lam, Tensor):
            lam = lam.to(own.dtype).view(-1, *[1] * (x.dim() - 1))
        mixed = take(x if other is None else other, self.partner)  # a copy, which the lerp may overwrite
        return wide(mixed).lerp_(own, lam).to(x.dtype)

    def mix_labels(self, y: Tensor, other: Tensor | None = None) -> Tensor:
        """y (n, c) soft labels -> (n, c) soft labels, at least float32."""
        check_soft_labels(y, len(self))
        return self.mix(wide(y), other)

    def matrix(self) -> Tensor:
        """W (n, n), float64 on the CPU: for looking at and for checking, not for mixing."""
        n = len(self)
        lam = torch.as_tensor(self.lam, dtype=torch.float64, device="cpu").expand(n)
        return torch.diag(lam).index_put((torch.arange(n), self.partner.cpu()), 1 - lam, accumulate=True)

    def __repr__(self) -> str:
        lam = f"one per row, mean {self.lam.mean():.3f}" if isinstance(self.lam, Tensor) else f"{self.lam:.3f}"
        return f"Pairs(n={len(self)}, lam={lam})"


class Weights:
    """Row i of the batch becomes the weighted sum of all rows, with the weights in row i of `matrix` (n, n).

    >>> Weights(torch.full((2, 2), 0.5)).mix(torch.tensor([0.0, 4.0]))
    tensor([2., 2.])
    """

    def __init__(self, matrix: Any):
        matrix = torch.as_tensor(matrix)
        if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) == 0:
            raise ValueError(f"matrix must be square, (n, n) with n >= 1, not {tuple(matrix.shape)}")
        if not matrix.is_floating_point():
            raise ValueError(f"matrix must be floating point, not {matrix.dtype}")
        _check_rows_sum_to_one(matrix, "matrix")
        self._matrix = matrix

    def __len__(self) -> int:
        return len(self._matrix)

    def to(self, device: Any) -> "Weights":
        """The same plan on another device."""
        return Weights(self._matrix.to(device, non_blocking=True))

    def mix(self, x: Tensor) -> Tensor:
        """x (n, …) floating point -> a new tensor of the same shape, type and memory layout."""
        _check_inputs(x, len(self))
        rows = wide(x.movedim(1, -1) if _channels_last(x) else x)
        with no_autocast(x.device):  # which would take the product in bfloat16, labels included
            mixed = torch.tensordot(self._matrix.to(rows.dtype), rows, 1).to(x.dtype)
        return mixed.movedim(-1, 1) if _channels_last(x) else mixed

    def mix_labels(self, y: Tensor) -> Tensor:
        """y (n, c) soft labels -> (n, c) soft labels, at least float32."""
        check_soft_labels(y, len(self))
        return self.mix(wide(y))

    def matrix(self) -> Tensor:
        """W (n, n), float64 on the CPU."""
        return self._matrix.to("cpu", torch.float64)

    def __repr__(self) -> str:
        return f"Weights(n={len(self)})"


class Split:
    """Pairs that do one thing to the inputs and another to the labels: each by its own plan.

    A method whose inputs are cut and pasted, not averaged, derives from it and says in `mix` what happens to them.
    """

    def __init__(self, inputs: Any, label_plan: "Pairs | Split"):
        self.inputs, self.label_plan = inputs, label_plan

    @property
    def partner(self) -> Tensor:
        """(n,) who row i is mixed with."""
        return self.label_plan.partner

    def __len__(self) -> int:
        return len(self.label_plan)

    def to(self, device: Any) -> "Split":
        """The same plan on another device."""
        moved = copy(self)
        moved.inputs, moved.label_plan = self.inputs and self.inputs.to(device), self.label_plan.to(device)
        return moved

    def mix(self, x: Tensor) -> Tensor:
        """x (n, …) -> a new tensor of the same shape, type and memory layout."""
        return self.inputs.mix(x)

    def mix_labels(self, y: Tensor) -> Tensor:
        """y (n, c) soft labels -> (n, c) soft labels, at least float32."""
        return self.label_plan.mix_labels(y)

    def matrix(self) -> Tensor:
        """W (n, n) of the labels, float64 on the CPU."""
        return self.label_plan.matrix()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(labels by {self.label_plan})"


Plan: TypeAlias = Pairs | Weights | Split


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """labels (n,) class indices -> y (n, c) float32 with a single one in each row."""
    if labels.dim() != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels must be whole numbers of shape (n,), not {labels.dtype} {tuple(labels.shape)}")
    if len(labels):
        _check_range("labels", labels, num_classes - 1)
    return torch.zeros(len(labels), num_classes, device=labels.device).scatter_(1, labels.long()[:, None], 1.0)


def soft_labels(labels: Tensor, num_classes: int) -> Tensor:
    """Class indices (n,) become rows (n, c); rows that are soft already are checked, and widened to float32 or more."""
    if labels.dim() != 2:
        return one_hot(labels, num_classes)
    check_soft_labels(labels, len(labels))
    if labels.shape[1] != num_classes:
        raise ValueError(f"labels have {labels.shape[1]} columns, the model has {num_classes} classes")
    return wide(labels)


def check_soft_labels(y: Tensor, n: int) -> None:
    """Refuse what is not n rows of soft labels."""
    if y.dim() != 2 or not y.is_floating_point():
        raise ValueError(
            f"y must be soft labels, floating point (n, c), not {y.dtype} {tuple(y.shape)}: "
            "turn class indices into rows with mixlab.one_hot(labels, num_classes)"
        )
    if len(y) != n:
        raise ValueError(f"y has {len(y)} rows, the plan mixes {n}")
    _check_rows_sum_to_one(y, "y")


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


def _check_inputs(x: Tensor, n: int) -> None:
    if not x.is_floating_point():
        raise TypeError(f"x is {x.dtype}: convert to float first, for instance x.float() / 255")
    if x.dim() == 0 or x.shape[0] != n:
        raise ValueError(f"x has shape {tuple(x.shape)}, the plan mixes {n} rows")


def _channels_last(x: Tensor) -> bool:
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)


def _check_rows_sum_to_one(matrix: Tensor, name: str) -> None:
    if not matrix.is_cpu or matrix.numel() == 0:
        return
    tolerance = {torch.float64: 1e-6, torch.float32: 1e-4}.get(matrix.dtype, 2e-2)
    sums = wide(matrix.detach()).sum(1)
    if not bool(((sums - 1).abs() <= tolerance).all()):  # written so that NaN fails too
        row = int((sums - 1).abs().nan_to_num(torch.inf).argmax())
        raise ValueError(f"every row of {name} must sum to one; row {row} sums to {sums[row]:.6g}")
    if matrix.min() < -tolerance:
        raise ValueError(f"{name} must not have negative entries, found {matrix.min():.6g}")


def _as_partner(partner: Any) -> Tensor:
    partner = torch.as_tensor(partner)
    if partner.dim() != 1 or len(partner) == 0 or partner.is_floating_point() or partner.dtype == torch.bool:
        shape = tuple(partner.shape)
        raise ValueError(f"partner must be whole numbers of shape (n,) with n >= 1, not {partner.dtype} {shape}")
    _check_range("partner", partner, len(partner) - 1)
    return partner.long()


def _as_lam(lam: Any, n: int) -> float | Tensor:
    if not isinstance(lam, float):
        lam = torch.as_tensor(lam)
        if lam.dim() > 1 or (lam.dim() == 1 and len(lam) != n):
            raise ValueError(f"lam must be one number or of shape ({n},), not {tuple(lam.shape)}")
        if lam.dim() == 1:
            _check_range("lam", lam, 1)
            return wide(lam)
    if not 0 <= lam <= 1:
        raise ValueError(f"lam must lie in [0, 1], not {float(lam)}")
    return float(lam)


def _check_range(name: str, values: Tensor, largest: int) -> None:
    if values.is_cpu:
        low, high = (end.item() for end in values.aminmax())
        if not 0 <= low <= high <= largest:  # written so that NaN fails too
            raise ValueError(f"{name} must lie in 0..{largest}, found {low} to {high}")
