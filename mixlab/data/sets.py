"""Data sets by name, each as one small object: pixels as uint8, labels, class names, mean and standard deviation.

    data = load("cifar10")            # or shapes, digits, cifar100, svhn, mnist, fashion-mnist, tiny-imagenet, …
    data = load("photos", size=32)    # or a folder of images laid out by class: see folders.py

A set is looked for in `root` (else the folder MIXLAB_DATA, else data/cache), then on the server MIXLAB_MIRROR, then at
its origin. A mirror is that same folder on any web server: `python -m http.server` in data/cache makes one. Pixels are
decoded once, into a file NAME.pt of that folder, which may be carried to another machine without the images.
"""

import glob
import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from mixlab.checks import check_whole
from mixlab.data import folders, originals, pixels
from mixlab.data.downloads import can_write, one_at_a_time
from mixlab.data.pixels import Data
from mixlab.data.subsets import pick
from mixlab.places import data_folder, user_folder, usual_cache

TINY_COUNTS = (100_000, 10_000)
RESIZED = ("mnist", "fashion-mnist")
DRAWN = ("n_train", "n_test", "seed")


def load(name: str | Path, root: Path | str | None = None, size: int | None = None, **drawn) -> Data:
    """A data set by name, or a folder of images by its path, or by its name in `root`.

    size: side in pixels for shapes, digits, folders and the two MNISTs, which are resized bilinearly; None takes them
    as they are. drawn: n_train, n_test and seed of shapes. Downloads, unpacks and decodes what has to be, once; says
    what to do where it cannot.
    """
    _check(name, root, size, drawn)
    if name == "shapes":
        return _shapes(size or 32, **drawn)
    if name == "digits":
        return _digits(size)
    return _find(name, places_of(root), size)


def on_this_machine(*names: str) -> str | None:
    """The first of these sets that is here already, unpacked or decoded, so that loading it downloads nothing."""
    unpacked = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python", "tiny-imagenet": "tiny-imagenet-200"}
    places = [data_folder(), usual_cache(), user_folder("cache")]
    for name in names:
        if any((p / unpacked.get(name, name)).is_dir() or (p / f"{name}.pt").is_file() for p in places):
            return name
    return None


def places_of(root: Path | str | None) -> list[Path]:
    """The folders to look into. What is new goes to the last: where the first is read-only, the user's cache."""
    chosen = root or os.environ.get("MIXLAB_DATA")
    if chosen and not Path(chosen).is_dir():
        raise ValueError(f"{'root' if root else 'MIXLAB_DATA'} must be a folder, there is none at {chosen}: make it")
    first = Path(chosen or usual_cache())
    with suppress(OSError):
        first.mkdir(parents=True, exist_ok=True)
    return [first] if can_write(first) else [first, user_folder("cache")]


def _find(name: str | Path, places: list[Path], size: int | None) -> Data:
    if name in originals.READERS:
        return _original(str(name), places, size)
    if name == "tiny-imagenet":
        folder = originals.existing(places, *originals.TINY)
        packed = [] if folder else [_packed(own, places, size) for own in originals.TINY]
        whole = [data for data in packed if data and (len(data.train_x), len(data.test_x)) == TINY_COUNTS]
        return whole[0] if whole else _folder(folder or originals.tiny_imagenet(places), places, size, TINY_COUNTS)
    folder = originals.existing([Path(), *places], str(Path(name).expanduser()))
    found = _folder(folder, places, size) if folder else _packed(str(name), places, size)
    if found is None:
        known = ", ".join(["shapes", "digits", *originals.READERS, "tiny-imagenet"])
        raise ValueError(f"name must be one of {known}, or a folder here or in {places[0]}, got {str(name)!r}")
    return found


def _original(name: str, places: list[Path], size: int | None) -> Data:
    if size is not None and name not in RESIZED:
        raise ValueError(f"size cannot be chosen for {name}: it is used at the size it was published in")

    def decode():
        train_x, train_y, test_x, test_y, classes = originals.READERS[name](places)
        if size:
            train_x, test_x = (_resized(torch.tensor(x), size) for x in (train_x, test_x))
        return train_x, train_y, test_x, test_y, classes

    return _cached(places, _stem(name, size), _stem(name, size), _sized(name, size), decode)


def _folder(folder: Path, places: list[Path], size: int | None, counts: tuple[int, int] | None = None) -> Data:
    listing = folders.survey(folder.resolve())
    n = listing.n_train
    found = (n, len(listing.files) - n)
    if counts and found != counts:
        raise ValueError(f"{folder} holds {found} training and test images, not {counts}: delete it and load it again")

    def decode():
        x = folders.decode(listing.files, size)
        return x[:n], listing.labels[:n], x[n:], listing.labels[n:], listing.classes

    own = folder.resolve().name
    name = own + " (folder)" * (own in originals.READERS)  # not the original it is named for
    if own in originals.TINY and found == TINY_COUNTS:
        name = "tiny-imagenet"
    stem = _stem(own, size)
    key = f"{stem} {listing.key}"
    return _cached(places, f"{stem}-{listing.key[:8]}", key, _sized(name, size), decode, listing.time)


def _packed(name: str, places: list[Path], size: int | None) -> Data | None:
    """The decoded images of a folder of the places that is not there itself."""
    stem = _stem(name, size)
    if Path(stem).name != stem:  # not a name but a path, which would be another folder
        return None
    files = [file for place in places for file in sorted(place.glob(f"{glob.escape(stem)}-????????.pt"))]
    found = [data for file in files if (data := pixels.read(file, f"{stem} "))]
    if len(found) > 1:
        raise ValueError(f"name {name!r} fits several decoded sets: keep one of {', '.join(map(str, files))}")
    return found[0] if found else None


def _cached(places: list[Path], stem: str, key: str, name: str, decode: Callable, time: int = 0) -> Data:
    """What the file `stem`.pt holds, if it was made of the same files; else decode, write it, and read it back."""

    def find():
        return next((data for p in places if (data := pixels.read(p / f"{stem}.pt", key, time))), None)

    if data := find():
        return data
    file = places[-1] / f"{stem}.pt"
    if len(places) > 1:
        warnings.warn(f"{places[0]} cannot be written to: {file} is made instead", stacklevel=5)
    with one_at_a_time(places[-1]):
        if data := find():  # another process has made it while this one waited
            return data
        pixels.write(file, key, time, pixels.make(name, *decode()))
    if data := find():
        return data
    raise OSError(f"{file} was written, but does not read back as it was: the disk may be failing")


def _shapes(size: int, n_train: int = 6000, n_test: int = 2000, seed: int = 0) -> Data:
    """Drawn afresh: quicker than to explain a cache. The test set does not depend on n_train."""
    from mixlab.data.shapes import CLASSES, draw

    train = draw(n_train, np.random.default_rng([seed, 0]), size=size)
    test = draw(n_test, np.random.default_rng([seed, 1]), size=size)
    return pixels.make("shapes", train.images, train.labels, test.images, test.labels, CLASSES)


def _digits(size: int | None) -> Data:
    """scikit-learn's 1,797 handwritten digits of 8 x 8, a fifth of every class for the test."""
    from sklearn.datasets import load_digits

    found = load_digits()
    x, y = _resized(torch.from_numpy(found.images)[:, None] * (255 / 16), size or 8), found.target
    test = np.zeros(len(y), bool)
    test[pick(y, np.ceil(folders.HELD_OUT * np.bincount(y)).astype(int), 0)] = True
    return pixels.make(_sized("digits", size), x[~test], y[~test], x[test], y[test], "0123456789")


def _resized(x: torch.Tensor, size: int) -> torch.Tensor:
    return torch.nn.functional.interpolate(x.float(), (size, size), mode="bilinear").round().byte()


def _sized(name: str, size: int | None) -> str:
    return name if size is None else f"{name} ({size} x {size})"


def _stem(name: str, size: int | None) -> str:
    return name if size is None else f"{name}-{size}px"


def _check(name, root, size, drawn: dict) -> None:
    if not isinstance(name, str | os.PathLike) or not str(name):
        raise ValueError(f"name must be the name of a data set or a folder, got {name!r}")
    if root is not None and not isinstance(root, str | os.PathLike):
        raise ValueError(f"root must be a folder, got {root!r}")
    unknown = [word for word in drawn if name != "shapes" or word not in DRAWN]
    if unknown:
        allowed = f"root, size and, for shapes alone, {', '.join(DRAWN)}; data.subsets has parts of other sets"
        raise ValueError(f"{', '.join(unknown)}: load takes {allowed}")
    for word, value in {**drawn, "size": 1 if size is None else size}.items():
        check_whole(word, value, least=0 if word == "seed" else 1)
