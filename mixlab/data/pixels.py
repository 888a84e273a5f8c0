"""A decoded data set in one file that is mapped into memory: no decoding, no copy, and a checksum over all of it.

8 hex digits: CRC-32 of all that follows the first line; 8 hex digits: where the values begin
one line of JSON, padded with spaces: key, classes, mean, std, and shape and type of each array
the values of each array, one after the other
"""

import json
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch

from mixlab.data.downloads import whole

FORMAT = 1
CHECK, LINE = 9, 18  # bytes of the checksum, and of the first line


def write(path: Path, key: str, train_x, train_y, test_x, test_y, classes: tuple[str, ...]) -> None:
    """Images uint8 (n, channels, height, width), labels (n,). key: what the images were made of."""
    arrays = {"train_y": train_y, "test_y": test_y, "train_x": train_x, "test_x": test_x}  # int64 first: aligned
    arrays = {k: np.ascontiguousarray(a, np.int64 if k.endswith("y") else np.uint8) for k, a in arrays.items()}
    mean, std = moments(train_x)
    head = {"format": FORMAT, "key": key, "classes": list(classes), "mean": mean, "std": std}
    head["arrays"] = {k: [str(a.dtype), list(a.shape)] for k, a in arrays.items()}
    text = json.dumps(head).encode()
    begin = -(-(LINE + len(text) + 1) // 4096) * 4096
    head_lines = f"{begin:08x}\n".encode() + text.ljust(begin - LINE - 1) + b"\n"
    pieces = [head_lines, *(array.reshape(-1).view(np.uint8) for array in arrays.values())]
    check = 0
    for piece in pieces:
        check = zlib.crc32(piece, check)
    with whole(path) as temporary, open(temporary, "wb") as file:
        for piece in [f"{check:08x} ".encode(), *pieces]:
            file.write(piece)


def read(path: Path, key: str) -> dict | None:
    """train_x, train_y, test_x, test_y, classes, mean, std; None if there is no file, or one of another key.

    A damaged file counts as none, with a warning. The tensors may be written to: the file does not change.
    """
    if not path.exists():
        return None
    try:
        raw = np.memmap(path, np.uint8, "c")
        checked, begin = (int(word, 16) for word in bytes(raw[:LINE]).split())
        if zlib.crc32(raw[CHECK:]) != checked:
            raise ValueError("its checksum does not fit")
    except ValueError as problem:
        warnings.warn(f"{path} is damaged ({problem}): it is made again from the images", stacklevel=4)
        return None
    head = json.loads(bytes(raw[LINE:begin]))
    if (head["format"], head["key"]) != (FORMAT, key):
        return None
    fields = {"classes": tuple(head["classes"]), "mean": torch.tensor(head["mean"]), "std": torch.tensor(head["std"])}
    for name, (dtype, shape) in head["arrays"].items():
        end = begin + int(np.prod(shape)) * np.dtype(dtype).itemsize
        fields[name] = torch.from_numpy(raw[begin:end].view(dtype).reshape(shape))
        begin = end
    return fields


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
