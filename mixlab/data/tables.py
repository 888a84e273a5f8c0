"""The five tables of numbers of the k-mixup paper: Iris, Breast Cancer, Abalone, Arrhythmia, Phishing.

    table = load("iris")                   # the first two come with scikit-learn, the others from UCI
    data = split(table, seed=0)            # a random fifth for the test; scaled by the training rows

Sources and order as in sets.py: `root` or MIXLAB_DATA or data/cache, the server MIXLAB_MIRROR, the origin.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mixlab.checks import check_choice
from mixlab.data.originals import obtain
from mixlab.data.sets import places_of
from mixlab.data.toys import ToySet

ORIGIN = "https://archive.ics.uci.edu/ml/machine-learning-databases"
# name -> md5 of the file and where UCI has it; of phishing it has an .arff, whose rows below @data are our file
FILES = {
    "abalone": ("27d6700f995481b739fe1a392b7d023b", [f"{ORIGIN}/abalone/abalone.data"]),
    "arrhythmia": ("821c372c8c8886e29c9586fd1b81eb42", [f"{ORIGIN}/arrhythmia/arrhythmia.data"]),
    "phishing": ("05dc536a01403799c54483a3c6858206", []),
}
NAMES = ("iris", "cancer", *FILES)
# hidden widths, by the paper
HIDDEN = {name: (120, 120, 84) for name in NAMES} | {"iris": (120, 84), "arrhythmia": (120, 120, 36, 84)}
SCALINGS = ("unit", "standard", "none")


@dataclass(frozen=True, eq=False)
class Table:
    """x (n, d) float64, NaN where a value is missing; labels (n,), indices into classes."""

    name: str
    x: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]


def load(name: str, root: Path | str | None = None) -> Table:
    """A table by name. Abalone's sex is one number (infant -1, female 0, male 1); its classes are numbers of rings."""
    check_choice("name", name, NAMES)
    if name in FILES:
        return _from_uci(name, places_of(root))
    from sklearn import datasets

    found = datasets.load_iris() if name == "iris" else datasets.load_breast_cancer()
    title = name if name == "iris" else "Breast Cancer Wisconsin (Diagnostic)"
    return Table(title, found.data, found.target, tuple(map(str, found.target_names)))


def split(table: Table, seed: int, scaling: str = "unit", held_out: float = 0.2) -> ToySet:
    """A random part of the rows for the test, the rest for training; missing values become the training mean.

    scaling, fitted to the training rows: "unit" puts each column on [0, 1], "standard" at mean 0 and deviation 1,
    "none" leaves it. A column that does not vary becomes 0.
    """
    check_choice("scaling", scaling, SCALINGS)
    test, train = _parts(len(table.x), [seed, 4], held_out)
    x = np.where(np.isnan(table.x), np.nanmean(table.x[train], axis=0), table.x)
    seen = x[train]
    low, spread = {
        "unit": (seen.min(0), np.ptp(seen, axis=0)),
        "standard": (seen.mean(0), seen.std(0)),
        "none": (0, np.ones(x.shape[1])),
    }[scaling]
    x = torch.from_numpy((x - low) / np.where(spread > 0, spread, 1.0)).float()
    labels = torch.from_numpy(table.labels).long()
    return ToySet(table.name, x[train], labels[train], x[test], labels[test], table.classes)


def training_part(data: ToySet, seed: int) -> ToySet:
    """The training rows alone, a fifth of them held out as if it were the test: for choosing settings."""
    held, kept = _parts(len(data.train_x), [seed, 5], 0.2)
    x, y = data.train_x, data.train_y
    return ToySet(data.name, x[kept], y[kept], x[held], y[held], data.classes)


def _parts(n: int, seed: list[int], held_out: float) -> tuple[np.ndarray, np.ndarray]:
    """Random rows to hold out, and the others."""
    order, many = np.random.default_rng(seed).permutation(n), round(held_out * n)
    if not 1 <= many < n:
        raise ValueError(f"held_out must leave rows on both sides, not {held_out} of {n}")
    return order[:many], order[many:]


def _from_uci(name: str, places: list[Path]) -> Table:
    md5, addresses = FILES[name]
    file = obtain(places, f"uci/{name}.data", md5, *addresses)
    rows = [line.split(",") for line in file.read_text().split()]
    words = {"M": 1.0, "F": 0.0, "I": -1.0, "?": np.nan}
    x = np.array([[words[value] if value in words else float(value) for value in row[:-1]] for row in rows])
    classes, labels = np.unique([int(row[-1]) for row in rows], return_inverse=True)
    return Table(name, x, labels, tuple(map(str, classes)))
