"""Two values side by side, and what is different about them in a student's words."""

import numbers

import numpy as np
import torch

KINDS = (str, bool, tuple, list, numbers.Real, np.ndarray, torch.Tensor)


def compare(answer, wanted) -> str | None:
    """None if the answer is of the same type, shape, dtype and value; else what is different."""
    problem = alike_kind(answer, wanted)
    if problem or wanted is None or isinstance(wanted, str | bool):
        return problem or (None if answer == wanted else f"{wanted!r} is right")
    if isinstance(wanted, tuple | list):
        if len(answer) != len(wanted):
            return f"{len(wanted)} entries are wanted, not {len(answer)}"
        return next((f"entry {i}: {said}" for i, p in enumerate(wanted) if (said := compare(answer[i], p))), None)
    if isinstance(wanted, numbers.Real):
        return None if np.isclose(answer, wanted, 1e-4, 1e-7) else f"{wanted:.6g} is right"
    if tuple(answer.shape) != tuple(wanted.shape):
        return f"the shape is to be {tuple(wanted.shape)}, not {tuple(answer.shape)}"
    ours, right = _array(answer), _array(wanted)
    if ours.dtype.kind not in "fiub":
        return f"the dtype is to be {wanted.dtype}, not {answer.dtype}"
    wrong = np.argwhere(~np.isclose(ours, right, 1e-4, 1e-6, equal_nan=True))
    if len(wrong):
        place = tuple(int(i) for i in wrong[0])
        return f"entry {list(place)} is {ours[place]:.4g} where {right[place]:.4g} is right"
    return None if answer.dtype == wanted.dtype else f"the dtype is to be {wanted.dtype}, not {answer.dtype}"


def alike_kind(answer, wanted) -> str | None:
    """Is the answer of the wanted type? Any real number does for a number, but not a tensor of one element."""
    kind = next((kind for kind in KINDS if isinstance(wanted, kind)), type(wanted))
    if isinstance(answer, kind):
        return None
    return f"a {'number' if kind is numbers.Real else kind.__name__} is wanted: {show(wanted)}"


def show(value, kind: bool = True) -> str:
    """A value, and its type, in a few words."""
    if isinstance(value, torch.Tensor | np.ndarray):
        array = _array(value)
        few = str(np.round(array, 4).tolist() if array.dtype.kind == "f" else array.tolist())[:200]
        text = few if array.size <= 16 else f"values of shape {array.shape}"
        return f"{text} ({type(value).__name__}, {value.dtype}, shape {array.shape})" if kind else text
    text = repr(value)
    text = text if len(text) <= 80 else text[:77] + "…"
    return f"{text} ({type(value).__name__})" if kind and value is not None else text


def _array(value) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    value = value.detach().cpu()
    return (value.double() if value.is_floating_point() else value).numpy()
