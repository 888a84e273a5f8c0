"""Any folder of images laid out by class, as one array of pixels.

    photos/cat/*.jpg, photos/dog/*.png            a fifth of every class is held out as the test set
    photos/train/cat/*.jpg, photos/test/cat/*.jpg       or training; test, testing, val, valid, validation
    tiny-imagenet-200/train/n01443537/images/*.JPEG, val/images/*.JPEG, val/val_annotations.txt

Images may lie deeper than the class's folder. What is no image does not count, nor what begins with a dot, nor a folder
of a class that begins with an underscore (`__MACOSX`); torchvision's ImageFolder counts these, passes over a folder
that it may not read, and opens whatever Pillow can, Ghostscript's files among them.
"""

import hashlib
import math
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixlab.data.downloads import bar

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "PPM", "TIFF")  # whatever its name, nothing else is opened
TRAINS = ("train", "training")
TESTS = ("test", "testing", "val", "valid", "validation")
ANNOTATIONS = "val_annotations.txt"
HELD_OUT = 0.2
SAMPLES, BEGINNING = 256, 2**16  # files, and bytes of each, that are read for a folder's key
ByClass = dict[str, list[str]]  # class -> its files


@dataclass(frozen=True)
class Listing:
    """What lies in a folder, before any image is opened: n_train files for training, then those of the test.

    labels (n,): of the files, indices into classes. key: of the names, labels and sizes of all files, and of what is in
    some, wherever the folder lies. time: when a file was last changed, in ns.
    """

    classes: tuple[str, ...]
    files: list[str]
    labels: np.ndarray
    n_train: int
    key: str
    time: int


def survey(folder: Path) -> Listing:
    """List a folder's images and their classes, sorted by name: that order is the order of the labels."""
    parts = _folders(folder)
    trains, tests = ([name for name in parts if name.lower() in known] for known in (TRAINS, TESTS))
    if len(trains) > 1 or (tests and not trains):
        raise ValueError(f"{folder} must hold one folder named train, or else none named test, it holds {parts}")
    train = _by_class(folder / trains[0] if trains else folder)
    if len(train) < 2:
        raise ValueError(f"{folder} must hold two folders of images or more, one for each class, got {list(train)}")
    places = [folder / name for name in sorted(tests, key=lambda name: TESTS.index(name.lower()))]
    # val where it is annotated: Tiny-ImageNet's test has no labels
    place = next(filter(_is_annotated, places), places[0] if places else None)
    train, test = (train, _test_images(place, train)) if place else _hold_out(folder, train)
    pairs = [(f, y) for part in (train, test) for y, name in enumerate(train) for f in part.get(name, [])]
    files, labels = map(list, zip(*pairs, strict=True))
    n_train = sum(map(len, train.values()))
    key, time = _key(folder, files, labels, n_train)
    return Listing(_in_words(folder, tuple(train)), files, np.array(labels), n_train, key, time)


def decode(files: list[str], size: int | None = None) -> np.ndarray:
    """Every image as uint8 (n, 3, height, width), or (n, 1, …) if all are grey, decoded in parallel.

    size: cut the middle square out and scale it to size x size; None takes them as they are, all of one size.
    """
    first, _ = _read(files[0], size)
    pixels, grey = np.empty((len(files), *first.shape), np.uint8), np.empty(len(files), bool)

    def fill(row: int) -> None:
        image, grey[row] = _read(files[row], size)
        if image.shape != first.shape:
            sides = "{2} x {1} pixels".format(*image.shape)
            raise ValueError(f"{files[row]} has {sides}, and {files[0]} others: choose one, as size=32")
        pixels[row] = image

    # Threads, not processes: Pillow lets go of the interpreter while it decodes, and a notebook needs no main guard.
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        with bar(len(files), "decoding", unit=" images") as progress:
            for _ in pool.map(fill, range(len(files))):
                progress.update()
    finally:
        pool.shutdown(cancel_futures=True)
    return pixels[:, :1] if grey.all() else pixels


def _read(file: str, size: int | None) -> tuple[np.ndarray, bool]:
    """One image, uint8 (3, height, width), and whether its file is grey."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file, formats=FORMATS) as image:
            if size:
                image.draft(None, (2 * size, 2 * size))  # a JPEG can be decoded small, which is faster
            if "exif" in image.info:
                image = ImageOps.exif_transpose(image)  # cameras note how they were held
            if image.mode[0] in "IF":
                raise ValueError("more than 8 bits a channel")
            grey = image.mode in ("1", "L", "LA")
            image = image.convert("RGBA") if "transparency" in image.info else image
            image = image.convert("RGB")
            image = ImageOps.fit(image, (size, size)) if size else image
            return np.asarray(image).transpose(2, 0, 1), grey
    except Exception as problem:  # decoders fail in many ways, and all mean the same here
        raise ValueError(f"{file} cannot be used ({problem}): restore it or take it away") from problem


def _refuse(problem: OSError):
    raise ValueError(f"{problem.filename} cannot be read ({problem.strerror})") from problem


def _folders(folder: Path) -> list[str]:
    _, found, _ = next(os.walk(folder, onerror=_refuse))
    return sorted(name for name in found if name[0] not in "._")


def _images(folder: Path) -> list[str]:
    found = []
    for place, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if name[0] != "."]
        if linked := [name for name in folders if os.path.islink(os.path.join(place, name))]:
            raise ValueError(f"{os.path.join(place, linked[0])} is a link to a folder, which may lead in a circle")
        found += [os.path.join(place, f) for f in files if f[0] != "." and f.lower().endswith(SUFFIXES)]
    return sorted(found)


def _by_class(folder: Path) -> ByClass:
    """For every folder in `folder`."""
    found = {name: _images(folder / name) for name in _folders(folder)}
    empty = [name for name, files in found.items() if not files]
    if 0 < len(empty) < len(found):
        raise ValueError(f"no image in {folder / empty[0]}: a class needs some ({', '.join(SUFFIXES)})")
    return {} if empty else found


def _hold_out(folder: Path, found: ByClass) -> tuple[ByClass, ByClass]:
    """A fifth of every class's images for the test, always the same ones, and the others."""
    rng, train, test = np.random.default_rng(0), {}, {}
    for name, files in found.items():
        if len(files) < 2:
            raise ValueError(f"{folder / name} holds one image: a class needs two, one of them for the test")
        order = [files[i] for i in rng.permutation(len(files))]
        many = math.ceil(HELD_OUT * len(files))
        test[name], train[name] = sorted(order[:many]), sorted(order[many:])
    return train, test


def _test_images(place: Path, train: ByClass) -> ByClass:
    found = _annotated(place) if _is_annotated(place) else _by_class(place)
    strangers = sorted(found.keys() - train.keys())
    if found and not strangers:
        return found
    # Without its annotations, Tiny-ImageNet's val is one folder: one class, on which no network is right.
    hint = f"; Tiny-ImageNet's labels are in {ANNOTATIONS}, which is not there" if strangers == ["images"] else ""
    raise ValueError(f"{place} must hold folders named like the training set's, it holds {strangers[:5]}{hint}")


def _is_annotated(place: Path) -> bool:
    return (place / ANNOTATIONS).is_file() and (place / "images").is_dir() and bool(_images(place / "images"))


def _annotated(place: Path) -> ByClass:
    """By the lines "val_0.JPEG<tab>n03444034<tab>…" of Tiny-ImageNet's val."""
    lines = (place / ANNOTATIONS).read_text(encoding="utf-8").splitlines()
    label = dict(line.split("\t")[:2] for line in lines if line.strip())
    files = {os.path.basename(file): file for file in _images(place / "images")}
    lost = sorted(label.keys() ^ files.keys())
    if lost:
        raise ValueError(f"{place}: {len(lost)} files and lines of {ANNOTATIONS} do not pair up, {lost[0]} first")
    found: ByClass = {}
    for name in sorted(files):
        found.setdefault(label[name], []).append(files[name])
    return found


def _in_words(folder: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    """ImageNet's class numbers in words where words.txt says them (n01443537 is a goldfish)."""
    file = folder / "words.txt"
    if not file.is_file() or not all(re.fullmatch(r"n\d{8}", name) for name in names):
        return names
    words = dict(line.split("\t", 1) for line in file.read_text(encoding="utf-8").splitlines() if "\t" in line)
    return tuple(words.get(name, name).split(",")[0] for name in names)


def _key(folder: Path, files: list[str], labels: list[int], n_train: int) -> tuple[str, int]:
    """The key and the time of a Listing; refuses what is no file, such as a pipe, which nobody may ever write to."""
    digest, last = hashlib.sha256(str(n_train).encode()), 0
    for row, (file, label) in enumerate(zip(files, labels, strict=True)):
        facts = os.stat(file)
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError(f"{file} must be a file, it is something else, such as a pipe")
        name = file[len(str(folder)) + 1 :].replace(os.sep, "/")
        digest.update(f"\0{name}\0{label}\0{facts.st_size}\0".encode("utf-8", "surrogateescape"))
        if row % -(-len(files) // SAMPLES) == 0:
            with open(file, "rb") as content:
                digest.update(content.read(BEGINNING))
        last = max(last, facts.st_mtime_ns)
    return digest.hexdigest(), last
