"""A data set in memory, and decoded in one file: written by `torch.save`, mapped by `torch.load` without a copy."""

import hashlib
import warnings
import zlib
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mixlab.data.downloads import atomic_write

TENSORS = ("train_x", "train_y", "test_x", "test_y", "mean", "std")


@dataclass(frozen=True, eq=False)
class Data:
    """train_x, test_x uint8 (n, channels, height, width); train_y, test_y int64 (n,), indices into classes.

    mean, std float32 (channels,) of the training pixels, on the scale from 0 to 1.
    """

    name: str
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: tuple[str, ...]
    mean: Tensor
    std: Tensor

    @cached_property
    def key(self) -> str:
        """A short digest of all that training and its test see, whatever the name: another pixel, another key."""
        return digest(*(getattr(self, name) for name in TENSORS), len(self.classes))

    def __repr__(self) -> str:
        shape = " x ".join(str(side) for side in self.train_x.shape[1:])
        counts = f"{len(self.train_x):,} training and {len(self.test_x):,} test images"
        return f"{self.name}: {counts} of {shape}, {len(self.classes)} classes"


def make(name: str, train_x, train_y, test_x, test_y, classes) -> Data:
    """A data set of arrays or tensors: images (n, channels, height, width), labels (n,)."""
    train_x, test_x = (torch.from_numpy(np.ascontiguousarray(x, np.uint8)) for x in (train_x, test_x))
    train_y, test_y = (torch.from_numpy(np.ascontiguousarray(y, np.int64)) for y in (train_y, test_y))
    return Data(name, train_x, train_y, test_x, test_y, tuple(classes), *map(torch.tensor, moments(train_x.numpy())))


def write(path: Path, key: str, time: int, data: Data) -> None:
    """key, time: what it was made of, for `read`."""
    found = {field.name: getattr(data, field.name) for field in fields(data)} | {"made_of": (key, time)}
    with atomic_write(path) as temporary, open(temporary, "wb") as file:  # open: else torch hides what the disk says
        torch.save(found | {"digest": digest(*found.values())}, file)


def read(path: Path, key: str, time: int = 0) -> Data | None:
    """None if there is no such file, or one of another key, or of files older than `time`.

    key: what the images were made of, or how that begins. A damaged file counts as none, with a warning. The tensors
    may be written to: the file does not change.
    """
    if not path.is_file():
        return None
    try:
        found = torch.load(path, mmap=True, weights_only=True)
        if found.pop("digest") != digest(*found.values()):
            raise ValueError("its checksum does not fit")
        made_of = found.pop("made_of")
        return Data(**found) if made_of[0].startswith(key) and made_of[1] >= time else None
    except Exception as problem:  # a damaged file fails in many ways
        warnings.warn(f"{path} is damaged ({problem}) and not used", stacklevel=4)
        return None


def digest(*values) -> str:
    """Twelve hex digits of all values; of a tensor, its type, shape and CRC-32, which takes a second for a gigabyte."""
    facts = [
        (str(v.dtype), tuple(v.shape), zlib.crc32(v.cpu().contiguous().numpy())) if isinstance(v, Tensor) else v
        for v in values
    ]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


def moments(x: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of uint8 (n, channels, height, width), on the scale 0 to 1."""
    total, squares = np.zeros((2, x.shape[1]))
    for start in range(0, len(x), 1024):
        block = x[start : start + 1024].astype(np.uint32)
        total += block.sum((0, 2, 3))
        squares += (block * block).sum((0, 2, 3), dtype=np.uint64)
    count = x.size / x.shape[1]
    mean = total / count / 255
    std = np.sqrt(np.maximum(squares / count / 255**2 - mean**2, 0))
    return mean.tolist(), np.maximum(std, 1 / 255).tolist()  # a constant channel can still be divided by it
