"""Sets by name: from a folder, a mirror or the origin, decoded once, and a refusal for whatever is wrong."""

import io
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from failing_disk import files_limited_to, posix, read_only_folder
from local_server import serve
from PIL import Image
from published import MAKERS, md5
from test_folders import make_split, make_tiny

from mixlab import places
from mixlab.data import folders, originals, sets
from mixlab.data.sets import load, on_this_machine


@pytest.fixture(autouse=True)
def users_cache(monkeypatch):
    """A user's cache folder that somebody else can write to as well."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        monkeypatch.setattr(sets, "user_folder", lambda kind: Path(folder) / kind)
        yield Path(folder) / "cache"


@pytest.fixture
def mirror(monkeypatch, tmp_path):
    """A mirror, an empty folder for the data, and no way to any origin."""
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("MIXLAB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("no_proxy", "*")
    with serve() as site:
        monkeypatch.setenv("MIXLAB_MIRROR", site.address + "/")
        yield site


def assert_holds(data, arrays):
    for name, array in zip(("train_x", "train_y", "test_x", "test_y"), arrays, strict=True):
        tensor = getattr(data, name)
        assert tensor.dtype == (torch.uint8 if name.endswith("x") else torch.int64)
        np.testing.assert_array_equal(tensor.numpy(), array)


@pytest.mark.parametrize("name", ["cifar100", "svhn", "mnist"])
def test_a_published_set_comes_from_the_mirror_once_and_then_from_its_cache(mirror, monkeypatch, name):
    arrays = MAKERS[name](mirror, monkeypatch.setattr)
    first = load(name)
    assert_holds(first, arrays)
    assert len(first.classes) == (4 if name.startswith("cifar") else 10) and first.name == name
    monkeypatch.delenv("MIXLAB_MIRROR")
    monkeypatch.setitem(originals.READERS, name, None)  # not even read again
    assert_holds(load(name), arrays)
    assert len(mirror.asked) == len(set(mirror.asked)) == {"cifar100": 1, "svhn": 2, "mnist": 4}[name]


def test_a_wrong_archive_leaves_nothing_the_origin_comes_last_and_a_damaged_folder_is_named(
    mirror, monkeypatch, tmp_path
):
    from torchvision.datasets import CIFAR10

    arrays = MAKERS["cifar10"](mirror, monkeypatch.setattr)
    (name, content), *_ = mirror.files.items()
    for bad in ({}, {name: content[: len(content) // 2]}):
        mirror.files = bad
        with pytest.raises(OSError, match="MIXLAB_MIRROR"):
            load("cifar10")
        assert os.listdir(tmp_path / "data") == [".mixlab.lock"]
    monkeypatch.setattr(CIFAR10, "url", f"{mirror.address}/origin.tar.gz")
    mirror.files["origin.tar.gz"], mirror.asked = content, []
    assert_holds(load("cifar10"), arrays)
    assert mirror.asked == [name, "origin.tar.gz"]
    (tmp_path / "data" / "cifar10.pt").unlink()
    (tmp_path / "data" / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"half")
    with pytest.raises(ValueError, match="cifar-10-batches-py"):
        load("cifar10")


def test_mnist_can_have_the_32_pixels_of_the_lamix_paper(mirror, monkeypatch):
    arrays = MAKERS["mnist"](mirror, monkeypatch.setattr)
    large, small = load("mnist", size=32), load("mnist")
    assert large.train_x.shape == (10, 1, 32, 32) and large.name != small.name and large.key != small.key
    expected = [Image.fromarray(x[0]).resize((32, 32), Image.Resampling.BILINEAR) for x in arrays[0]]
    assert (large.train_x[:, 0].int() - torch.from_numpy(np.stack(expected)).int()).abs().max() <= 1
    assert_holds(small, arrays)


def test_tiny_imagenet_comes_from_the_mirror_or_decoded_and_half_of_it_is_refused(mirror, monkeypatch, tmp_path):
    make_tiny(tmp_path / "made")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file in sorted((tmp_path / "made").rglob("*.*")):
            archive.write(file, f"tiny-imagenet-200/{file.relative_to(tmp_path / 'made').as_posix()}")
    mirror.files["tiny-imagenet-200.zip"] = packed.getvalue()
    monkeypatch.setattr(originals, "TINY_MD5", md5(packed.getvalue()))
    monkeypatch.setattr(sets, "TINY_COUNTS", (4, 6))
    data = load("tiny-imagenet")
    assert data.name == load("tiny-imagenet-200").name == "tiny-imagenet" and data.test_y.tolist().count(0) == 3
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(*(tmp_path / "data").glob("*.pt"), tmp_path / "elsewhere")
    packed = load("tiny-imagenet", root=tmp_path / "elsewhere")
    assert packed.key == data.key and packed.name == data.name and mirror.asked == ["tiny-imagenet-200.zip"]
    next((tmp_path / "data").glob("*/train/*/*/*")).unlink()
    with pytest.raises(ValueError, match=r"\(4, 6\)"):
        load("tiny-imagenet")
    assert load("tiny-imagenet-200").name == "tiny-imagenet-200"  # by that name, a part is only a folder


def test_a_damaged_cache_is_told_and_made_again(tmp_path):
    make_split(tmp_path / "photos", train=40)
    key = load(tmp_path / "photos", root=tmp_path).key
    (cache,) = tmp_path.glob("*.pt")
    content = cache.read_bytes()
    place = content.index(load(tmp_path / "photos", root=tmp_path).train_x.numpy().tobytes()) + 1000
    flipped = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    torch.save(["not", "a", "set"], tmp_path / "another")
    for bad in (b"", content[: len(content) // 2], flipped, (tmp_path / "another").read_bytes()):
        cache.write_bytes(bad)
        with pytest.warns(UserWarning, match="damaged"):
            assert load(tmp_path / "photos", root=tmp_path).key == key
        load(tmp_path / "photos", root=tmp_path).train_x.zero_()  # and what a caller does to it does not reach the file
        assert load(tmp_path / "photos", root=tmp_path).key == key


@posix
def test_a_full_disk_is_named_and_the_next_attempt_works(tmp_path):
    make_split(tmp_path / "photos")
    with files_limited_to(5000), pytest.raises(OSError, match=r"cannot write .*photos"):
        load(tmp_path / "photos", root=tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".mixlab.lock", "photos"]
    assert len(load(tmp_path / "photos", root=tmp_path).train_x) == 12


@posix
def test_what_a_read_only_folder_holds_is_used_and_what_is_new_goes_to_the_users_cache(users_cache, monkeypatch):
    Image.init()  # the superuser, who is somebody else below, can read where Pillow is installed
    with read_only_folder(lambda folder: make_split(folder / "photos")) as folder:
        monkeypatch.setenv("MIXLAB_DATA", str(folder))
        with pytest.warns(UserWarning, match=str(users_cache)):
            key = load("photos").key
        assert os.listdir(folder) == ["photos"] and len(list(users_cache.glob("photos-*.pt"))) == 1
        monkeypatch.setattr(folders, "decode", lambda *_: pytest.fail("decoded again"))
        assert load("photos").key == key


def test_of_two_who_load_at_once_one_decodes(tmp_path, monkeypatch):
    make_split(tmp_path / "photos")
    calls, decode, both = [], folders.decode, threading.Barrier(2)
    monkeypatch.setattr(folders, "decode", lambda *a: calls.append(a) or decode(*a))

    def work(_):
        both.wait()
        return load(tmp_path / "photos", root=tmp_path).key

    with ThreadPoolExecutor(2) as pool:
        assert len(set(pool.map(work, range(2)))) == len(calls) == 1


def test_two_who_cannot_lock_do_no_harm(tmp_path, monkeypatch):
    """Both decode, both write, and what the first has mapped stays as it was."""
    make_split(tmp_path / "photos")
    (tmp_path / ".mixlab.lock").mkdir()
    first, decode = [], folders.decode

    def decode_after_another(*arguments):
        monkeypatch.setattr(folders, "decode", decode)
        first.append(load("photos", root=tmp_path))
        return decode(*arguments)

    monkeypatch.setattr(folders, "decode", decode_after_another)
    assert load("photos", root=tmp_path).key == replace(first[0]).key


def test_digits_are_scikit_learns_with_a_fifth_held_out():
    from sklearn.datasets import load_digits

    data, large = load("digits"), load("digits", size=32)
    assert len(data.train_x) + len(data.test_x) == 1797 and data.train_x.shape[1:] == (1, 8, 8)
    everything = {image.numpy().tobytes() for image in torch.cat([data.train_x, data.test_x])}
    assert everything == {np.rint(image * 255 / 16).astype(np.uint8).tobytes() for image in load_digits().images}
    held = data.test_y.bincount() / torch.cat([data.train_y, data.test_y]).bincount()
    assert 0.2 <= held.min() and held.max() < 0.21
    assert large.train_x.shape[1:] == (1, 32, 32) and large.train_y.equal(data.train_y) and large.name != data.name


def test_shapes_are_drawn_by_seed_and_the_test_set_does_not_depend_on_n_train():
    data, more = load("shapes", n_train=40, n_test=20), load("shapes", n_train=60, n_test=20)
    other = load("shapes", n_train=40, n_test=20, seed=1)
    assert data.test_x.equal(more.test_x) and not data.test_x.equal(other.test_x)
    same = load("shapes", n_train=20, n_test=20, size=16)
    assert not same.train_x.equal(same.test_x) and same.train_x.shape == (20, 3, 16, 16)


def test_the_key_is_that_of_all_that_training_sees():
    data = load("shapes", n_train=40, n_test=20)
    for field in ("train_x", "train_y", "test_x", "test_y", "mean", "std"):
        changed = getattr(data, field).clone()
        assert replace(data, name="another", **{field: changed}).key == data.key
        changed = changed.clone()
        changed.view(-1)[-1] += 1
        assert replace(data, **{field: changed}).key != data.key, field
    assert data.key != replace(data, train_x=data.train_x.reshape(40, 1, 96, 32)).key
    assert data.key != replace(data, classes=(*data.classes, "more")).key


def test_bad_arguments_and_variables_are_named(monkeypatch, tmp_path):
    for argument, *call in (
        ("name", "cifar"),
        ("name", ""),
        ("name", None),
        ("root", "shapes", 40),
        ("root", "cifar10", "/no/such/folder"),
        ("size", "cifar10", None, 64),
        ("size", "digits", None, 0),
        ("size", "digits", None, True),
    ):
        with pytest.raises(ValueError, match=argument):
            load(*call)
    for name, option in (("cifar10", {"n_train": 100}), ("shapes", {"n_train": 0}), ("shapes", {"number": 40})):
        with pytest.raises(ValueError, match=next(iter(option))):
            load(name, **option)
    monkeypatch.setenv("MIXLAB_DATA", "/no/such/folder")
    with pytest.raises(ValueError, match="MIXLAB_DATA"):
        load("cifar10")
    monkeypatch.setenv("MIXLAB_DATA", str(tmp_path))
    monkeypatch.setenv("MIXLAB_MIRROR", "/some/folder")
    with pytest.raises(ValueError, match="MIXLAB_MIRROR"):
        load("cifar10")


def test_a_checkout_keeps_everything_and_a_variable_moves_it(monkeypatch, tmp_path):
    monkeypatch.delenv("MIXLAB_HOME", raising=False)
    assert places.repository() == places.ROOT and places.papers_folder() == places.ROOT / "data" / "papers"
    assert places.runs_folder() == places.ROOT / "data" / "runs"
    assert places.usual_cache() == places.ROOT / "data" / "cache"
    monkeypatch.setenv("MIXLAB_HOME", str(tmp_path / "home"))
    assert places.runs_folder() == tmp_path / "home" / "runs" and places.cache_folder() == tmp_path / "home" / "cache"


@posix
def test_a_read_only_checkout_writes_to_the_users_cache(monkeypatch, users_cache):
    monkeypatch.delenv("MIXLAB_HOME", raising=False)
    monkeypatch.setattr(places, "user_folder", sets.user_folder)
    monkeypatch.setattr(places, "repository", lambda: True)
    with read_only_folder() as folder, pytest.warns(UserWarning, match=str(folder)):
        monkeypatch.setattr(places, "ROOT", folder)
        assert places.cache_folder() == users_cache and users_cache.is_dir()


WHERE = {
    "linux": ({"XDG_CACHE_HOME": "/c", "XDG_DATA_HOME": "relative"}, "/c/mixlab", ".local/share/mixlab"),
    "darwin": ({}, "Library/Caches/mixlab", "Library/Application Support/mixlab"),
    "win32": ({"LOCALAPPDATA": "/local"}, "/local/mixlab/cache", "/local/mixlab/data"),
}


@pytest.mark.parametrize("system", WHERE)
def test_an_installed_package_has_the_papers_and_writes_to_the_users_folders(monkeypatch, tmp_path, system):
    variables, cache, data = WHERE[system]
    for variable in ("MIXLAB_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(places.sys, "platform", system)
    monkeypatch.setattr(places, "ROOT", tmp_path)  # a folder of installed packages
    monkeypatch.setattr(places.Path, "home", lambda: tmp_path)
    assert places.repository() is None and places.papers_folder() == places.PACKAGE / "papers"
    assert places.usual_cache() == tmp_path / cache and places.runs_folder() == tmp_path / data / "runs"


@pytest.mark.slow
def test_a_wheel_carries_the_published_numbers(tmp_path):
    pytest.importorskip("setuptools")
    shutil.copytree(places.ROOT / "mixlab", tmp_path / "mixlab", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(places.ROOT / "data" / "papers", tmp_path / "data" / "papers")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(places.ROOT / name, tmp_path)
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-q", "-w", "out"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "out").glob("*.whl")
    carried = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("mixlab/papers/")}
    assert carried == {f"mixlab/papers/{path.name}" for path in (places.ROOT / "data" / "papers").glob("*.json")}


def test_what_is_on_this_machine_is_known_without_a_download(tmp_path, monkeypatch):
    for variable in ("MIXLAB_DATA", "MIXLAB_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    assert on_this_machine("cifar10", "photos") is None
    (tmp_path / "photos").mkdir()
    assert on_this_machine("cifar10", "photos") == "photos"
    (tmp_path / "cifar-10-batches-py").mkdir()
    assert on_this_machine("cifar10", "photos") == "cifar10"
