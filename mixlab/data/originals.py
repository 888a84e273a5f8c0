"""Data sets as they were published: where they come from, and how torchvision reads them.

`places` are folders: what is there is read from any of them, what has to be downloaded goes to the last.
"""

import gzip
import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from mixlab.data import speech
from mixlab.data.downloads import fetch, one_at_a_time, unpack

TINY = ("tiny-imagenet-200", "tiny-imagenet")  # folders; the first as its archive calls it
TINY_ORIGIN, TINY_MD5 = "http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de"
# version 0.01, the one that the mixup paper used: 30 words
SPEECH, SPEECH_MD5 = "speech_commands_v0.01.tar.gz", "3cd23799cb2bbdec517f1cc028f8d43c"
SPOKEN_ORIGIN = "https://github.com/Jakobovski/free-spoken-digit-dataset"


def obtain(places: list[Path], name: str, md5: str, *origins: str) -> Path:
    """The file `name` from one of the places, else from the mirror, which has the same folders, else from an origin."""
    from torchvision.datasets.utils import check_integrity

    mirror = os.environ.get("MIXLAB_MIRROR")
    if mirror and not mirror.startswith(("http://", "https://")):
        raise ValueError(f"MIXLAB_MIRROR must begin with http:// or https://, got {mirror!r}; a folder is MIXLAB_DATA")
    found = next((place / name for place in places[:-1] if check_integrity(place / name, md5)), None)
    servers = [f"{mirror.rstrip('/')}/{name}"] if mirror else []
    return found or fetch(places[-1] / name, [*servers, *origins], md5)


def unpacked(places: list[Path], folder: str, archive: str, md5: str, origin: str) -> Path:
    """The folder from one of the places, else unpacked from its archive."""
    return existing(places, folder) or unpack(obtain(places, archive, md5, origin), places[-1] / folder)


def existing(places: list[Path], *names: str) -> Path | None:
    """The first folder of one of these names."""
    return next((place / name for name in names for place in places if (place / name).is_dir()), None)


def tiny_imagenet(places: list[Path]) -> Path:
    """The folder of its images."""
    with one_at_a_time(places[-1]):
        return unpacked(places, TINY[0], f"{TINY[0]}.zip", TINY_MD5, TINY_ORIGIN)


def _cifar(kind: str, places: list[Path]):
    from torchvision import datasets

    source = getattr(datasets, kind)
    folder = unpacked(places, source.base_folder, source.filename, source.tgz_md5, source.url)
    try:
        with warnings.catch_warnings():  # the files are older than what NumPy now warns of
            warnings.simplefilter("ignore")
            train, test = source(folder.parent, train=True), source(folder.parent, train=False)
    except RuntimeError as problem:  # torchvision knows the checksum of every file
        raise ValueError(f"{folder} is damaged ({problem}): delete it and load again") from problem
    train_x, test_x = (split.data.transpose(0, 3, 1, 2) for split in (train, test))
    return train_x, train.targets, test_x, test.targets, train.classes


def _svhn(places: list[Path]):
    from torchvision.datasets import SVHN

    found = []
    for split in ("train", "test"):
        url, filename, md5 = SVHN.split_list[split]
        part = SVHN(obtain(places, f"svhn/{filename}", md5, url).parent, split=split)
        found += [part.data, part.labels]
    return *found, "0123456789"


def _mnist(kind: str, places: list[Path]):
    from torchvision import datasets

    source, found = getattr(datasets, kind), []
    for name, md5 in source.resources:  # torchvision reads them unpacked alone
        file = obtain(places, f"{kind}/raw/{name}", md5, *(f"{mirror}{name}" for mirror in source.mirrors))
        raw = gzip.decompress(file.read_bytes())  # two zeros, the type, the number of axes, their lengths, uint8 values
        shape = np.frombuffer(raw, ">i4", raw[3], offset=4)
        found.append(np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape).copy())
    train_x, train_y, test_x, test_y = found
    return train_x[:, None], train_y, test_x[:, None], test_y, [name.split(" - ")[0] for name in source.classes]


def _speech_commands(places: list[Path]):
    origin = f"http://download.tensorflow.org/data/{SPEECH}"
    return speech.commands(unpacked(places, "speech-commands", SPEECH, SPEECH_MD5, origin))


def _spoken_digits(places: list[Path]):
    folder = existing(places, "free-spoken-digits")
    if folder is None:
        command = f"git clone {SPOKEN_ORIGIN} {places[-1]}/free-spoken-digits"
        raise ValueError(f"free-spoken-digits is not in {places[0]}: {command}")
    return speech.digits(folder)


READERS: dict[str, Callable] = {
    "cifar10": partial(_cifar, "CIFAR10"),
    "cifar100": partial(_cifar, "CIFAR100"),
    "svhn": _svhn,
    "mnist": partial(_mnist, "MNIST"),
    "fashion-mnist": partial(_mnist, "FashionMNIST"),
    "speech-commands": _speech_commands,
    "free-spoken-digits": _spoken_digits,
}
