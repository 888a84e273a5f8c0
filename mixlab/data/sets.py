"""Data sets by name, each as one small object: pixels as uint8, labels, class names, mean and standard deviation.

    data = load("cifar10")            # or shapes, digits, cifar100, svhn, mnist, fashion-mnist, tiny-imagenet
    data = load("photos", size=32)    # or a folder of images laid out by class: see folders.py

A set is looked for in `root` (else the folder MIXLAB_DATA, else data/cache), then on the server MIXLAB_MIRROR, then at
its origin. A mirror is that same folder on any web server: `python -m http.server` in data/cache makes one. Pixels are
decoded once, into `NAME.pixels` beside the download; later loads map that file into memory.
"""

import gzip
import hashlib
import os
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch

from mixlab.data import folders, pixels
from mixlab.data.downloads import alone, fetch, unpack
from mixlab.data.subsets import pick
from mixlab.places import ROOT

TINY_ORIGIN, TINY_MD5 = "http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de"
SPEECH_ORIGIN, SPEECH_MD5 = "http://download.tensorflow.org/data/", "3cd23799cb2bbdec517f1cc028f8d43c"
SPOKEN_ORIGIN = "https://github.com/Jakobovski/free-spoken-digit-dataset"
TINY_FOLDERS = ("tiny-imagenet-200", "tiny-imagenet")  # the first as its archive calls it
TINY_COUNTS = (100_000, 10_000)


@dataclass(frozen=True, eq=False)
class Data:
    """train_x, test_x uint8 (n, channels, height, width); train_y, test_y int64 (n,), indices into classes.

    mean, std float32 (channels,) of the training pixels, on the scale from 0 to 1.
    """

    name: str
    train_x: torch.Tensor
    train_y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor
    classes: tuple[str, ...]
    mean: torch.Tensor
    std: torch.Tensor

    @cached_property
    def key(self) -> str:
        """Eight hex digits of all that training and test see: other images or labels, another key."""
        check = 0
        for tensor in (self.train_x, self.train_y, self.test_x, self.test_y):
            check = zlib.crc32(tensor.contiguous().numpy(), check)
        return f"{check:08x}"

    def __repr__(self) -> str:
        shape = " x ".join(str(side) for side in self.train_x.shape[1:])
        counts = f"{len(self.train_x):,} training and {len(self.test_x):,} test images"
        return f"{self.name}: {counts} of {shape}, {len(self.classes)} classes"


def load(name: str | Path, root: Path | str | None = None, size: int | None = None, **drawn) -> Data:
    """A data set by name, or a folder of images by its path, or by its name in `root`.

    size: side in pixels for shapes, digits and folders; None takes them as they are. drawn: n_train, n_test and seed of
    shapes. Downloads, unpacks and decodes what has to be, once; says what to do where it cannot.
    """
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise ValueError(f"size must be a whole number of pixels, got {size!r}")
    if drawn and name != "shapes":
        raise ValueError(f"{', '.join(drawn)}: only shapes are drawn to order; data.subsets has parts of other sets")
    if name == "shapes":
        return _shapes(size or 32, **drawn)
    if name == "digits":
        return _digits(size)
    root = find_root(root)
    if name in PUBLISHED:
        if size is not None:
            raise ValueError(f"size cannot be chosen for {name}: it is used at the size it was published in")
        return _cached(root / f"{name}.pixels", str(name), str(name), lambda: PUBLISHED[name](root))
    if name == "tiny-imagenet":
        return _folder(_tiny_imagenet(root), root, size, TINY_COUNTS)
    place = next((p for p in (Path(name).expanduser(), root / name) if p.is_dir()), None)
    if place is None:
        known = ", ".join(["shapes", "digits", *PUBLISHED, "tiny-imagenet"])
        raise ValueError(f"name must be one of {known}, or a folder of images here or in {root}, got {str(name)!r}")
    return _folder(place, root, size)


def _cached(path: Path, name: str, key: str, decode: Callable) -> Data:
    """What `path` holds, if it was made of the same files; else decode, write it, and read it back."""
    fields = pixels.read(path, key)
    if fields is None:
        with alone(path.parent):
            fields = pixels.read(path, key)  # another process may have made it while this one waited
            if fields is None:
                pixels.write(path, key, *decode())
                fields = pixels.read(path, key)
    if fields is None:
        raise OSError(f"{path} was written, but does not read back as it was: the disk may be failing")
    return Data(name, **fields)


def find_root(root: Path | str | None) -> Path:
    chosen = root or os.environ.get("MIXLAB_DATA")
    if chosen and not Path(chosen).is_dir():
        raise ValueError(f"{'root' if root else 'MIXLAB_DATA'} must be a folder, there is none at {chosen}: make it")
    return Path(chosen or ROOT / "data" / "cache")


def _shapes(size: int, n_train: int = 6000, n_test: int = 2000, seed: int = 0) -> Data:
    """Drawn afresh: quicker than to explain a cache. The test set does not depend on n_train."""
    from mixlab.data.shapes import CLASSES, draw

    train = draw(n_train, np.random.default_rng([seed, 0]), size=size)
    test = draw(n_test, np.random.default_rng([seed, 1]), size=size)
    mean, std = map(torch.tensor, pixels.moments(train.images.numpy()))
    return Data("shapes", train.images, train.labels, test.images, test.labels, CLASSES, mean, std)


def _digits(size: int | None) -> Data:
    """scikit-learn's 1,797 handwritten digits of 8 x 8, a fifth of every class for the test."""
    from sklearn.datasets import load_digits

    found = load_digits()
    x = torch.from_numpy(found.images).float()[:, None] * (255 / 16)
    if size:
        x = torch.nn.functional.interpolate(x, (size, size), mode="bilinear")
    x, y = x.round().byte(), torch.from_numpy(found.target).long()
    quota = np.ceil(folders.HELD_OUT * np.bincount(found.target)).astype(int)
    test = torch.zeros(len(y), dtype=torch.bool)
    test[pick(y, quota, 0)] = True
    mean, std = map(torch.tensor, pixels.moments(x[~test].numpy()))
    name = "digits" if size is None else f"digits ({size} x {size})"
    return Data(name, x[~test], y[~test], x[test], y[test], tuple("0123456789"), mean, std)


def _folder(place: Path, root: Path, size: int | None, counts: tuple[int, int] | None = None) -> Data:
    place = place.resolve()
    listing = folders.survey(place)
    found = (len(listing.train), len(listing.test))
    if counts and found != counts:
        raise ValueError(f"{place} holds {found} training and test images, not {counts}: delete it and load it again")
    which = hashlib.sha256(f"{place}\0{size}".encode()).hexdigest()[:8]  # folders of one name do not share a file

    def decode():
        images, grey = folders.decode(listing.train + listing.test, size)
        images = images[:, :1] if grey else images  # greyscale files among colour ones are kept as colour
        train_x, test_x = np.split(images, [found[0]])
        return train_x, listing.train_y, test_x, listing.test_y, listing.classes

    return _cached(root / f"{place.name}-{which}.pixels", _true_name(place, found, size), listing.key, decode)


def _true_name(place: Path, found: tuple[int, int], size: int | None) -> str:
    """What records call a folder: by its own name, which is not that of an original that it is not."""
    name = f"{place.name} (folder)" if place.name in PUBLISHED else place.name
    if place.name in TINY_FOLDERS and found == TINY_COUNTS:
        name = "tiny-imagenet"
    return name if size is None else f"{name} ({size} x {size})"


def _tiny_imagenet(root: Path) -> Path:
    for name in TINY_FOLDERS:
        if (root / name).is_dir():
            return root / name
    with alone(root):
        folder, archive = root / TINY_FOLDERS[0], root / f"{TINY_FOLDERS[0]}.zip"
        if folder.is_dir():  # another process may have unpacked it while this one waited
            return folder
        return unpack(fetch(archive, addresses(root, archive, TINY_ORIGIN), TINY_MD5), folder)


def _cifar(kind: str, root: Path):
    from torchvision import datasets

    source = getattr(datasets, kind)
    folder, archive = root / source.base_folder, root / source.filename
    if not folder.is_dir():
        unpack(fetch(archive, addresses(root, archive, source.url), source.tgz_md5), folder)
    try:
        with warnings.catch_warnings():  # the files are older than what NumPy now warns of
            warnings.simplefilter("ignore")
            train, test = source(root, train=True), source(root, train=False)
    except RuntimeError as problem:  # torchvision knows the checksum of every file
        raise ValueError(f"{folder} is damaged ({problem}): delete it and load again") from problem
    x = [split.data.transpose(0, 3, 1, 2) for split in (train, test)]
    return x[0], np.array(train.targets), x[1], np.array(test.targets), tuple(train.classes)


def _svhn(root: Path):
    from torchvision.datasets import SVHN

    found = []
    for split in ("train", "test"):
        url, filename, md5 = SVHN.split_list[split]
        file = root / "svhn" / filename
        fetch(file, addresses(root, file, url), md5)
        part = SVHN(file.parent, split=split)
        found += [part.data, part.labels]
    return *found, tuple("0123456789")


def _mnist(kind: str, root: Path):
    from torchvision import datasets

    source = getattr(datasets, kind)
    found = []
    for filename, md5 in source.resources:
        file = root / kind / "raw" / filename
        fetch(file, addresses(root, file, *(mirror + filename for mirror in source.mirrors)), md5)
        found.append(_idx(file))
    train_x, train_y, test_x, test_y = found
    classes = tuple(name.split(" - ")[0] for name in source.classes)
    return train_x[:, None], train_y, test_x[:, None], test_y, classes


def _speech_commands(root: Path):
    """Version 0.01, the one that the mixup paper used: 30 words."""
    from mixlab.data import speech

    folder, archive = root / "speech-commands", root / "speech_commands_v0.01.tar.gz"
    if not folder.is_dir():
        unpack(fetch(archive, addresses(root, archive, SPEECH_ORIGIN + archive.name), SPEECH_MD5), folder)
    return speech.commands(folder)


def _spoken_digits(root: Path):
    from mixlab.data import speech

    folder = root / "free-spoken-digits"
    if not folder.is_dir():
        raise ValueError(f"free-spoken-digits is not in {root}: git clone {SPOKEN_ORIGIN} {folder}")
    return speech.digits(folder)


PUBLISHED: dict[str, Callable] = {
    "cifar10": partial(_cifar, "CIFAR10"),
    "cifar100": partial(_cifar, "CIFAR100"),
    "svhn": _svhn,
    "mnist": partial(_mnist, "MNIST"),
    "fashion-mnist": partial(_mnist, "FashionMNIST"),
    "speech-commands": _speech_commands,
    "free-spoken-digits": _spoken_digits,
}


def addresses(root: Path, file: Path, *origins: str) -> list[str]:
    """Where to ask for a file of `root`: the mirror, which has the same folders, and then the origins."""
    mirror = os.environ.get("MIXLAB_MIRROR")
    if not mirror:
        return list(origins)
    if not mirror.startswith(("http://", "https://")):
        raise ValueError(f"MIXLAB_MIRROR must begin with http:// or https://, got {mirror!r}; a folder is MIXLAB_DATA")
    return [f"{mirror.rstrip('/')}/{file.relative_to(root).as_posix()}", *origins]


def _idx(file: Path) -> np.ndarray:
    """MNIST's own format: two zeros, the type (8: uint8), the number of axes, their lengths, the values."""
    raw = gzip.decompress(file.read_bytes())
    axes = raw[3]
    shape = np.frombuffer(raw, ">i4", axes, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)
