"""Less of a data set: a fraction, so many per class, a long tail, some classes, a part held out; or wrong labels.

Each takes a data set as `mixlab.data.load` gives it and returns another one whose name says what was done, so that no
number measured on a part is filed under the whole. Mean and standard deviation stay those of the whole. With the same
seed the smaller subset lies inside the larger one.
"""

from dataclasses import replace

import numpy as np
import torch

from mixlab.checks import check_whole


def fraction(data, share: float, rng):
    """The same share of every class's training images, at least one each (the 50, 25 and 10% of CIFAR-100)."""
    quota = _quota(_counts(data), _check_share("share", share))
    return _train_on(data, pick(data.train_y, quota, rng), f"{100 * share:g}%")


def per_class(data, count: int, rng):
    """`count` training images of every class, as the small-data benchmarks ciFAIR-10 and ciFAIR-100 take 50.

    Those also replace the test images that CIFAR has in its training set too; here the test set is left as it is.
    """
    smallest = _counts(data).min()
    if check_whole("count", count) > smallest:
        raise ValueError(f"count must be at most {smallest}, the size of the smallest class, got {count!r}")
    return _train_on(data, pick(data.train_y, np.full(len(data.classes), count), rng), f"{count} per class")


def long_tailed(data, ratio: float, rng):
    """Training classes whose sizes fall geometrically, from the first class to the last, which has `ratio` of it.

    Class i of c keeps floor(m ratio^(i/(c-1))) images, m the size of the largest class: 0.01 gives LT-CIFAR its 12,406
    (ten classes) and 10,847 (a hundred). A class that has fewer keeps what it has.
    """
    counts = _counts(data)
    falling = counts.max() * _check_share("ratio", ratio) ** (np.arange(len(counts)) / (len(counts) - 1))
    quota = np.maximum(np.floor(falling + 1e-9), 1).astype(np.int64)
    return _train_on(data, pick(data.train_y, quota, rng), f"LT {ratio:g}")


def random_labels(data, share: float, rng):
    """The same training images, that share of them with a label drawn evenly from all classes, the right one included.

    With 0.4 and ten classes 36% of the labels end up wrong. Test labels stay as they are.
    """
    count = round(_check_share("share", share) * len(data.train_y))
    rng = np.random.default_rng(rng)
    rows = torch.from_numpy(rng.permutation(len(data.train_y))[:count])
    labels = data.train_y.clone()
    labels[rows] = torch.from_numpy(rng.integers(len(data.classes), size=count))
    return replace(data, name=f"{data.name} ({100 * share:g}% random labels)", train_y=labels)


def first_classes(data, count: int, rng=None):
    """The images of the first `count` classes alone, in training and test (20 of Tiny-ImageNet's 200, for a laptop)."""
    if check_whole("count", count, least=2) > len(data.classes):
        raise ValueError(f"count must be at most {len(data.classes)}, the classes there are, got {count!r}")
    train, test = data.train_y < count, data.test_y < count
    parts = {"train_x": data.train_x[train], "train_y": data.train_y[train]}
    parts |= {"test_x": data.test_x[test], "test_y": data.test_y[test], "classes": data.classes[:count]}
    return replace(data, name=f"{data.name} ({count} classes)", **parts)


def hold_out(data, share: float, rng):
    """Split the training images in two, class by class: train on one part, and `test_x`, `test_y` are the other.

    This is where a setting is chosen; the real test set is not in what comes back, so it cannot be used by mistake.
    """
    if _check_share("share", share) == 1:
        raise ValueError("share must be less than 1: something must be left to train on")
    counts = _counts(data)
    if counts.min() < 2:
        lonely = data.classes[counts.argmin()]
        raise ValueError(f"data has {counts.min()} training image of class {lonely!r}: it needs two to be split")
    held = pick(data.train_y, np.minimum(_quota(counts, share), counts - 1), rng)
    kept = np.setdiff1d(np.arange(len(data.train_y)), held)
    validation = replace(data, test_x=data.train_x[held], test_y=data.train_y[held])
    return _train_on(validation, kept, f"{100 * share:g}% held out")


def pick(labels, quota, rng) -> np.ndarray:
    """Indices, in rising order, of quota[i] random members of class i, or all it has; labels (n,), quota (c,)."""
    labels = np.asarray(labels)
    by_class, rank, _ = ranked(np.random.default_rng(rng).permutation(len(labels)), labels)
    return np.sort(by_class[rank < np.asarray(quota)[labels[by_class]]])


def ranked(order: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same order (n,) class by class, the number of each within its class, and how many that class has."""
    by_class = order[np.argsort(labels[order], kind="stable")]
    counts = np.bincount(labels)
    return by_class, np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts), np.repeat(counts, counts)


def _train_on(data, rows: np.ndarray, what: str):
    return replace(data, name=f"{data.name} ({what})", train_x=data.train_x[rows], train_y=data.train_y[rows])


def _counts(data) -> np.ndarray:
    return np.bincount(data.train_y.numpy(), minlength=len(data.classes))


def _quota(counts: np.ndarray, share: float) -> np.ndarray:
    """The share of every class, rounded to the nearest, but never nothing of a class that has something."""
    return np.maximum(1, np.floor(share * counts + 0.5)).astype(np.int64)


def _check_share(name: str, share: float) -> float:
    if not 0 < share <= 1:
        raise ValueError(f"{name} must lie in (0, 1], got {share!r}; a quarter is 0.25")
    return share
