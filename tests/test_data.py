"""Sets by name: from a folder, a mirror or the origin, decoded once, and a sentence for whatever goes wrong."""

import io
import os
import sys
import tempfile
import threading
import zipfile

import numpy as np
import pytest
import torch
from failing_disk import files_limited_to, read_only_folder
from local_server import serve
from PIL import Image
from published import MAKERS, md5
from test_folders import make_split, make_tiny

from mixlab.data import downloads, folders
from mixlab.data import sets as data_module
from mixlab.data.sets import load

posix = pytest.mark.skipif(sys.platform == "win32", reason="limits and locks of POSIX systems")


@pytest.fixture
def mirror(monkeypatch, tmp_path):
    """A mirror, an empty folder for the data, and no way to any origin."""
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("MIXLAB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(downloads, "PAUSE", 0)
    with serve() as site:
        monkeypatch.setenv("MIXLAB_MIRROR", site.address + "/")
        yield site


def assert_holds(data, arrays):
    for name, array in zip(("train_x", "train_y", "test_x", "test_y"), arrays, strict=True):
        tensor = getattr(data, name)
        assert tensor.dtype == (torch.uint8 if name.endswith("x") else torch.int64)
        np.testing.assert_array_equal(tensor.numpy(), array)


@pytest.mark.parametrize("name", MAKERS)
def test_a_published_set_comes_from_the_mirror_once_and_then_from_its_cache(mirror, monkeypatch, name):
    arrays = MAKERS[name](mirror, monkeypatch.setattr)
    first = load(name)
    assert_holds(first, arrays)
    assert len(first.classes) == (4 if name.startswith("cifar") else 10) and first.name == name
    monkeypatch.delenv("MIXLAB_MIRROR")
    asked = len(mirror.asked)
    monkeypatch.setitem(data_module.PUBLISHED, name, None)  # not even read again
    assert_holds(load(name), arrays)
    assert len(mirror.asked) == asked == len(set(mirror.asked))


def test_the_origin_is_asked_where_no_mirror_has_the_set(mirror, monkeypatch):
    from torchvision.datasets import CIFAR10

    arrays = MAKERS["cifar10"](mirror, monkeypatch.setattr)
    monkeypatch.setattr(CIFAR10, "url", f"{mirror.address}/origin.tar.gz")
    mirror.files["origin.tar.gz"] = mirror.files.pop(CIFAR10.filename)
    assert_holds(load("cifar10"), arrays)
    assert [path for path, _ in mirror.asked] == [CIFAR10.filename, "origin.tar.gz"]


def test_without_a_network_every_place_that_was_tried_is_named(mirror, monkeypatch, tmp_path):
    MAKERS["cifar10"](mirror, monkeypatch.setattr)
    mirror.files.clear()
    with pytest.raises(OSError, match=r"cannot get .*cifar-10-python\.tar\.gz") as caught:
        load("cifar10")
    assert "404" in str(caught.value) and "Connection refused" in str(caught.value)
    assert not list((tmp_path / "data").iterdir())


def test_a_wrong_or_truncated_archive_is_refused_and_the_next_attempt_works(mirror, monkeypatch, tmp_path):
    arrays = MAKERS["cifar10"](mirror, monkeypatch.setattr)
    (name, content), *_ = mirror.files.items()
    for bad in (content[: len(content) // 2], content[:-1] + b"?"):
        mirror.files[name] = bad
        with pytest.raises(OSError, match=f"the md5 is {md5(bad)}, not {md5(content)}"):
            load("cifar10")
        assert not list((tmp_path / "data").iterdir())
    mirror.files[name] = content
    assert_holds(load("cifar10"), arrays)


def test_a_damaged_unpacked_folder_is_named_and_deleting_it_helps(mirror, monkeypatch, tmp_path):
    arrays = MAKERS["cifar10"](mirror, monkeypatch.setattr)
    load("cifar10")
    (tmp_path / "data" / "cifar10.pixels").unlink()
    folder = tmp_path / "data" / "cifar-10-batches-py"
    (folder / "data_batch_3").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"cifar-10-batches-py is damaged .*: delete it and load again"):
        load("cifar10")
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    assert_holds(load("cifar10"), arrays)


def tiny_zip(tmp_path, site, monkeypatch):
    make_tiny(tmp_path / "made")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file in sorted((tmp_path / "made").rglob("*.*")):
            archive.write(file, f"tiny-imagenet-200/{file.relative_to(tmp_path / 'made').as_posix()}")
    site.files["tiny-imagenet-200.zip"] = packed.getvalue()
    monkeypatch.setattr(data_module, "TINY_MD5", md5(packed.getvalue()))
    monkeypatch.setattr(data_module, "TINY_COUNTS", (4, 6))


def test_tiny_imagenet_comes_from_the_mirror_and_half_of_it_is_refused(mirror, monkeypatch, tmp_path):
    tiny_zip(tmp_path, mirror, monkeypatch)
    data = load("tiny-imagenet")
    assert data.name == "tiny-imagenet" and data.test_y.tolist().count(0) == 3
    assert load("tiny-imagenet").test_x.equal(data.test_x)
    assert load("tiny-imagenet-200").name == "tiny-imagenet"
    next((tmp_path / "data").glob("*/train/*/*/*")).unlink()
    with pytest.raises(ValueError, match=r"holds \(3, 6\) training and test images, not \(4, 6\): delete it"):
        load("tiny-imagenet")
    assert load("tiny-imagenet-200").name == "tiny-imagenet-200"  # by that name, a part is only a folder


def spoilt(content, how):
    """Whichever byte is hit, the file must not be believed."""
    return {
        "truncated": content[: len(content) // 2],
        "empty": b"",
        "pixel": content[:-1] + bytes([content[-1] ^ 1]),
        "header": content[:40] + b"#" + content[41:],
        "begin": content[:13] + b"3" + content[14:],
        "checksum": b"zz" + content[2:],
    }[how]


@pytest.mark.parametrize("how", ["truncated", "empty", "pixel", "header", "begin", "checksum"])
def test_a_corrupt_cache_is_told_and_made_again(tmp_path, how):
    make_split(tmp_path / "photos")
    first = load(tmp_path / "photos", root=tmp_path)
    right = first.train_x.clone(), first.test_y.clone()
    (cache,) = tmp_path.glob("*.pixels")
    content = cache.read_bytes()
    del first
    cache.write_bytes(spoilt(content, how))
    with pytest.warns(UserWarning, match=r"\.pixels is damaged .* made again from the images"):
        again = load(tmp_path / "photos", root=tmp_path)
    assert again.train_x.equal(right[0]) and again.test_y.equal(right[1])
    assert cache.read_bytes() == content


def test_what_a_caller_does_to_the_pixels_does_not_reach_the_cache(tmp_path):
    make_split(tmp_path / "photos")
    load(tmp_path / "photos", root=tmp_path).train_x.zero_()
    assert load(tmp_path / "photos", root=tmp_path).train_x.any()


@posix
def test_a_full_disk_is_named_and_the_next_attempt_works(tmp_path):
    make_split(tmp_path / "photos")
    with files_limited_to(5000), pytest.raises(OSError, match=r"cannot write .*photos-\w+\.pixels"):
        load(tmp_path / "photos", root=tmp_path)
    assert os.listdir(tmp_path) == ["photos"]
    assert len(load(tmp_path / "photos", root=tmp_path).train_x) == 12


def fill(folder):
    make_split(folder / "photos")


@posix
def test_a_read_only_folder_is_named_and_its_images_can_be_cached_elsewhere():
    Image.init()  # the superuser, who may be somebody else below, can read where Pillow is installed
    with read_only_folder(fill) as folder:
        with pytest.raises(PermissionError, match=r"cannot write .*photos-\w+\.pixels .* another folder with root="):
            load("photos", root=folder)
        assert os.listdir(folder) == ["photos"]
        with tempfile.TemporaryDirectory() as elsewhere:
            assert len(load(folder / "photos", root=elsewhere).train_x) == 12


@posix
def test_a_read_only_folder_with_a_finished_cache_loads():
    with read_only_folder(lambda folder: (fill(folder), load("photos", root=folder))) as folder:
        assert len(load("photos", root=folder).train_x) == 12


@posix
def test_of_two_who_load_at_once_one_decodes(tmp_path, monkeypatch):
    make_split(tmp_path / "photos")
    calls, decode, both = [], folders.decode, threading.Barrier(2)
    monkeypatch.setattr(folders, "decode", lambda *a: calls.append(a) or decode(*a))
    found = []

    def work():
        both.wait()
        found.append(load(tmp_path / "photos", root=tmp_path))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1 and found[0].train_x.equal(found[1].train_x)


def test_a_folder_named_like_an_original_is_not_called_by_its_name(tmp_path):
    make_split(tmp_path / "cifar10")
    assert load(tmp_path / "cifar10", root=tmp_path).name == "cifar10 (folder)"


def test_digits_are_scikit_learns_with_a_fifth_held_out():
    from sklearn.datasets import load_digits

    data, large = load("digits"), load("digits", size=32)
    assert len(data.train_x) + len(data.test_x) == 1797 and data.train_x.shape[1:] == (1, 8, 8)
    everything = {image.numpy().tobytes() for image in torch.cat([data.train_x, data.test_x])}
    assert everything == {np.rint(image * 255 / 16).astype(np.uint8).tobytes() for image in load_digits().images}
    held = data.test_y.bincount() / torch.cat([data.train_y, data.test_y]).bincount()
    assert 0.2 <= held.min() and held.max() < 0.21
    assert large.train_x.shape[1:] == (1, 32, 32) and large.train_y.equal(data.train_y)
    assert large.name == "digits (32 x 32)"


def test_shapes_are_drawn_by_seed_and_the_test_set_does_not_depend_on_n_train():
    data, more = load("shapes", n_train=40, n_test=20), load("shapes", n_train=60, n_test=20)
    other = load("shapes", n_train=40, n_test=20, seed=1)
    assert data.train_x.shape == (40, 3, 32, 32) and data.train_x.dtype == torch.uint8
    assert data.test_x.equal(more.test_x) and not data.test_x.equal(other.test_x)
    same = load("shapes", n_train=20, n_test=20)
    assert not same.train_x.equal(same.test_x)
    assert len(data.classes) == 10 and data.mean.shape == data.std.shape == (3,)
    assert load("shapes", n_train=4, n_test=2, size=16).train_x.shape == (4, 3, 16, 16)


def test_a_set_says_what_it_is():
    assert repr(load("digits")) == "digits: 1,433 training and 364 test images of 1 x 8 x 8, 10 classes"


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: load("cifar"), "name must be one of shapes, digits, cifar10, .* or a folder of images .* got 'cifar'"),
        (lambda: load("cifar10", size=64), "size cannot be chosen for cifar10"),
        (lambda: load("cifar10", n_train=100), r"n_train: only shapes are drawn to order; data"),
        (lambda: load("digits", size=0), "size must be a whole number of pixels, got 0"),
        (lambda: load("shapes", n_train=0), "n must be a whole number of at least 1, got 0"),
        (lambda: load("cifar10", root="/no/such/folder"), "root must be a folder, there is none at /no/such/folder"),
    ],
)
def test_bad_arguments_are_named(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("MIXLAB_DATA", "/no/such/folder", "MIXLAB_DATA must be a folder, there is none at /no/such/folder"),
        ("MIXLAB_MIRROR", "/some/folder", "MIXLAB_MIRROR must begin with http.* a folder is MIXLAB_DATA"),
    ],
)
def test_bad_variables_are_named(mirror, monkeypatch, variable, value, sentence):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=sentence):
        load("cifar10")
