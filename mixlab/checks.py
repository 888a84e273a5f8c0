"""What every method refuses, each with a ValueError that names the argument, the value and what is allowed.

Values of tensors are checked on the CPU only: to look at one on a GPU would make the processor wait for it.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor


def check_number(name: str, value: Any, low: float = 0.0, high: float = math.inf, hint: str = "") -> float:
    """value as a float if it is a finite number from low to high."""
    try:
        number = math.nan if isinstance(value, str | bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and low <= number <= high):
        allowed = f"finite number >= {low:g}" if high == math.inf else f"number in [{low:g}, {high:g}]"
        raise ValueError(f"{name} must be a {allowed}" + (hint and f" ({hint})") + f", not {value!r}")
    return number


def check_alpha(alpha: Any) -> float:
    """The parameter of Beta(alpha, alpha) as a float, if it is a finite number >= 0."""
    return check_number("alpha", alpha, hint="0 mixes nothing")


def check_whole(name: str, value: Any, least: int = 1) -> int:
    """value as an int if it is a whole number of at least `least`, Python's or NumPy's."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}, not {value!r}")
    return int(value)


def check_wholes(name: str, values: Any, least: int = 1) -> tuple[int, ...]:
    """values as a tuple of whole numbers of at least `least`, one or more of them."""
    whole = tuple(check_whole(name, value, least) for value in np.ravel(values))
    if not whole:
        raise ValueError(f"{name} must be whole numbers >= {least}, at least one, not {values!r}")
    return whole


def check_choice(name: str, value: Any, allowed: Iterable[str]) -> str:
    """value if it is one of the words that are allowed."""
    if value not in tuple(allowed):
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
    return value


def check_batch(x: Tensor, labels: Tensor) -> None:
    """Refuse an empty batch and labels of another length."""
    if x.dim() == 0 or x.shape[0] == 0:
        raise ValueError(f"x must hold at least one sample, not shape {tuple(x.shape)}")
    if labels.dim() == 0 or labels.shape[0] != x.shape[0]:
        raise ValueError(f"labels {tuple(labels.shape)} and x {tuple(x.shape)} must have the same length")


def check_inputs(x: Tensor, n: int) -> None:
    """Refuse what is not a batch of n inputs that can be averaged."""
    if not x.is_floating_point():
        raise TypeError(f"x is {x.dtype}: convert to float first, for instance x.float() / 255")
    if x.dim() == 0 or len(x) != n:
        raise ValueError(f"x has shape {tuple(x.shape)}, the plan mixes {n} rows")


def check_images(x: Tensor) -> tuple[int, int]:
    """Height and width of images x (n, …, height, width)."""
    if x.dim() < 3:
        raise ValueError(f"x must be images, (n, …, height, width), not of shape {tuple(x.shape)}")
    return x.shape[-2], x.shape[-1]


def check_indices(name: str, indices: Tensor, count: int) -> Tensor:
    """indices (n,) as int64 if they are whole numbers in 0..count-1."""
    if indices.dim() != 1 or len(indices) == 0 or indices.is_floating_point() or indices.dtype == torch.bool:
        kind = f"{indices.dtype} {tuple(indices.shape)}"
        raise ValueError(f"{name} must be whole numbers of shape (n,) with n >= 1, not {kind}")
    check_range(name, indices, count - 1)
    return indices.long()


def check_range(name: str, values: Tensor, largest: int) -> None:
    """Refuse values outside 0..largest."""
    if values.is_cpu and len(values):
        low, high = (end.item() for end in values.aminmax())
        if not 0 <= low <= high <= largest:  # written so that NaN fails too
            raise ValueError(f"{name} must lie in 0..{largest}, found {low} to {high}")


def check_matrix(matrix: Tensor) -> Tensor:
    """A square matrix of finite numbers >= 0 with something in each row and column, as float64 on the CPU."""
    matrix = torch.as_tensor(matrix).cpu().double()
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) == 0:
        raise ValueError(f"matrix must be (c, c) with c >= 1, not {tuple(matrix.shape)}")
    if not bool((torch.isfinite(matrix) & (matrix >= 0)).all()):
        raise ValueError("matrix must hold finite numbers >= 0")
    if not bool((matrix.sum(0) > 0).all() & (matrix.sum(1) > 0).all()):
        raise ValueError("matrix has a row or a column of zeros")
    return matrix


def check_soft_labels(y: Tensor, n: int) -> None:
    """Refuse what is not n rows of soft labels."""
    if y.dim() != 2 or not y.is_floating_point():
        raise ValueError(
            f"y must be soft labels, floating point (n, c), not {y.dtype} {tuple(y.shape)}: "
            "turn class indices into rows with mixlab.one_hot(labels, num_classes)"
        )
    if len(y) != n:
        raise ValueError(f"y has {len(y)} rows, where {n} are needed")
    check_rows("y", y)


def check_rows(name: str, rows: Tensor) -> None:
    """Refuse rows that do not sum to one or have a negative entry."""
    if not rows.is_cpu or rows.numel() == 0:
        return
    tolerance = {torch.float64: 1e-6, torch.float32: 1e-4}.get(rows.dtype, 2e-2)
    sums = rows.detach().to(torch.promote_types(rows.dtype, torch.float32)).sum(1)
    if not bool(((sums - 1).abs() <= tolerance).all()):  # written so that NaN fails too
        row = int((sums - 1).abs().nan_to_num(torch.inf).argmax())
        raise ValueError(f"every row of {name} must sum to one; row {row} sums to {sums[row]:.6g}")
    if rows.min() < -tolerance:
        raise ValueError(f"{name} must not have negative entries, found {rows.min():.6g}")
