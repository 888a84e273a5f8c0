"""Folders of images: the right pixels under the right label, and a refusal for each way a folder can be wrong."""

import os
import re
import shutil

import numpy as np
import pytest
from failing_disk import posix, unreadable
from PIL import EpsImagePlugin, Image

from mixlab.data import folders
from mixlab.data.sets import load
from mixlab.results.expressions import load_data

rng = np.random.default_rng(0)


def colour(side=8):
    return rng.integers(0, 256, (side, side, 3), dtype=np.uint8)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def make_split(root, classes=("cat", "dog", "eel"), train=4, test=2):
    """root/{train,test}/<class>/<i>.png; the pixels by path."""
    pixels = {}
    for part, many in (("train", train), ("test", test)):
        for name in classes:
            for i in range(many):
                path = root / part / name / f"{i}.png"
                pixels[path] = colour()
                save(path, pixels[path])
    return pixels


@pytest.fixture
def photos(tmp_path):
    make_split(tmp_path / "photos")
    return tmp_path / "photos"


def get(folder, **options):
    return load(folder, root=folder.parent, **options)


def assert_refused(folder, sentence, **options):
    with pytest.raises(ValueError, match=sentence):
        get(folder, **options)
    assert not list(folder.parent.glob("*.pt"))


def test_every_image_is_there_once_with_its_pixels_and_its_label(tmp_path):
    pixels = make_split(tmp_path / "photos")
    data = get(tmp_path / "photos")
    assert data.classes == ("cat", "dog", "eel") and data.name == "photos"
    for part, x, y in (("train", data.train_x, data.train_y), ("test", data.test_x, data.test_y)):
        ours = [(data.classes[label], image.permute(1, 2, 0).tolist()) for image, label in zip(x, y, strict=True)]
        theirs = [(p.parent.name, a.tolist()) for p, a in sorted(pixels.items()) if p.parts[-3] == part]
        assert ours == theirs  # in the order of the names
    np.testing.assert_allclose(data.mean, (data.train_x.numpy() / 255).mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(data.std, (data.train_x.numpy() / 255).std((0, 2, 3)), rtol=1e-6)


def test_without_a_split_a_fifth_of_every_class_is_held_out_always_the_same(tmp_path):
    for name, many in (("cat", 10), ("dog", 5)):
        for i in range(many):
            save(tmp_path / "photos" / name / "deeper" / f"{i}.png", colour())
    for hidden in (".hidden/0.png", "__MACOSX/0.png", "cat/._0.png", "cat/.thumbnails/0.png"):
        save(tmp_path / "photos" / hidden, colour())
    (tmp_path / "photos" / "cat" / "notes.txt").write_text("no image")
    data, again = folders.survey(tmp_path / "photos"), folders.survey(tmp_path / "photos")
    n = data.n_train
    assert np.bincount(data.labels[:n]).tolist() == [8, 4] and np.bincount(data.labels[n:]).tolist() == [2, 1]
    assert len(set(data.files)) == 15 and data.files == again.files
    assert all(data.classes[y] in file for file, y in zip(data.files, data.labels, strict=True))


def test_a_split_is_known_whatever_its_capitals(photos):
    for before, after in (("train", "t"), ("t", "TRAIN"), ("test", "t"), ("t", "Valid")):
        (photos / before).rename(photos / after)
    data = get(photos)
    assert data.classes == ("cat", "dog", "eel") and (len(data.train_x), len(data.test_x)) == (12, 6)


def test_a_folder_may_be_called_anything_and_is_not_taken_for_an_original(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXLAB_DATA", str(tmp_path))
    for name in ("photos (copy)", "cifar10"):
        make_split(tmp_path / name)
        data = load_data(str(tmp_path / name))
        assert len(data.train_x) == 12 and data.name != "cifar10"


def test_grey_files_stay_grey_if_all_are(photos):
    grey = colour()[..., 0]
    save(photos / "train" / "cat" / "0.png", grey)
    data = get(photos)
    assert data.train_x.shape == (12, 3, 8, 8) and (data.train_x[0].numpy() == grey).all()
    for file in photos.rglob("*.png"):
        save(file, grey)
    assert get(photos).train_x.shape == (12, 1, 8, 8)


def test_photos_of_many_sizes_and_kinds_load_at_the_size_asked_for(tmp_path):
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 255  # the middle square
    for name in ("a", "b"):
        save(tmp_path / "photos" / name / "wide.png", wide)
        save(tmp_path / "photos" / name / "large.jpg", wide.repeat(4, 0).repeat(4, 1))
        save(tmp_path / "photos" / name / "alpha.png", np.full((9, 7, 4), 255, np.uint8))
        Image.fromarray(wide).quantize(4).save(tmp_path / "photos" / name / "palette.gif", transparency=0)
    data = get(tmp_path / "photos", size=16)
    everything = np.concatenate([data.train_x, data.test_x])
    assert everything.shape == (8, 3, 16, 16) and "16" in data.name
    assert everything.min() > 200  # one edge of another square would be black


def test_photos_are_turned_the_way_the_camera_was_held(tmp_path):
    left_white = np.zeros((16, 16, 3), np.uint8)
    left_white[:, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # held upright: the left of the file is the top of the picture
    for name in ("a0", "a1", "b0", "b1"):
        save(tmp_path / "photos" / name[0] / f"{name}.jpg", left_white, exif=exif)
    x = get(tmp_path / "photos").train_x.float()
    assert x[..., 0, :].mean() > 240 and x[..., -1, :].mean() < 15


def eps(file):
    Image.fromarray(colour()).save(file.with_suffix(".eps"))
    file.with_suffix(".eps").rename(file)


SPOILT = {
    "half": lambda file: file.write_bytes(file.read_bytes()[:60]),
    "eps": eps,
    "pipe": lambda file: (file.unlink(), os.mkfifo(file)),
    "another size": lambda file: save(file, colour(9)),
    "16 bits": lambda file: save(file, np.full((8, 8), 40_000, np.uint16)),
}


@posix
@pytest.mark.parametrize("how", SPOILT)
def test_an_image_that_cannot_be_used_is_named_and_the_next_attempt_works(photos, monkeypatch, how):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("Ghostscript was started"))
    file = photos / "train" / "dog" / "2.png"
    content = file.read_bytes()
    SPOILT[how](file)
    assert_refused(photos, "dog.2.png")
    file.unlink()
    file.write_bytes(content)
    assert len(get(photos).train_x) == 12


def test_a_second_load_decodes_nothing_and_each_change_is_noticed(photos, monkeypatch):
    monkeypatch.setattr(folders, "SAMPLES", 1)  # as if there were too many images to look into each
    calls, decode = [], folders.decode
    monkeypatch.setattr(folders, "decode", lambda *a: calls.append(a) or decode(*a))
    first = get(photos)
    again = get(photos)
    assert len(calls) == 1 and again.train_x.equal(first.train_x) and again.classes == first.classes
    (photos / "train" / "cat" / "3.png").rename(photos / "train" / "dog" / "4.png")  # a label put right
    assert get(photos).train_y.bincount().tolist() == [3, 5, 4]
    save(photos / "test" / "eel" / "7.png", colour())
    assert len(get(photos).test_x) == 7
    file, changed = photos / "train" / "eel" / "0.png", colour()
    content = file.read_bytes()
    save(file, changed)
    file.write_bytes(file.read_bytes().ljust(len(content), b"\0"))
    os.utime(file, ns=(0, max(p.stat().st_mtime_ns for p in photos.rglob("*.png")) + 10**9))
    assert (get(photos).train_x[8].permute(1, 2, 0).numpy() == changed).all()
    assert len(calls) == 4


def test_folders_of_one_name_do_not_share_a_cache(tmp_path):
    for place in ("one", "two"):
        make_split(tmp_path / place / "photos")
    loaded = [load(tmp_path / place / "photos", root=tmp_path) for place in ("one", "two", "one")]
    assert loaded[0].key == loaded[2].key != loaded[1].key
    one, two = sorted(tmp_path.glob("*.pt"))
    shutil.copy(one, two)  # the wrong pixels under the right name
    assert {load(tmp_path / place / "photos", root=tmp_path).key for place in ("one", "two")} == {d.key for d in loaded}


def test_a_cache_is_used_on_another_machine_with_and_without_the_images(tmp_path, monkeypatch):
    make_split(tmp_path / "here" / "photos")
    first = {size: get(tmp_path / "here" / "photos", size=size) for size in (None, 4)}
    assert not any(re.search(rb"here", file.read_bytes()) for file in (tmp_path / "here").glob("*.pt"))
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    monkeypatch.setattr(folders, "decode", lambda *_: pytest.fail("decoded again"))
    for gone in (False, True):
        if gone:
            shutil.rmtree(tmp_path / "there" / "photos")
        for size, data in first.items():
            found = load("photos", root=tmp_path / "there", size=size)
            assert found.key == data.key and (found.name, found.classes) == (data.name, data.classes)
    for name, size in (("photos", 5), ("elsewhere/photos", None), (tmp_path / "elsewhere" / "photos", None)):
        with pytest.raises(ValueError, match="name must be"):
            load(name, root=tmp_path / "there", size=size)
    (file,) = (tmp_path / "there").glob("photos-????????.pt")
    shutil.copy(file, file.with_stem("photos-00000000"))
    with pytest.raises(ValueError, match="photos-00000000"):  # which of the two?
        load("photos", root=tmp_path / "there")


def make_tiny(root, classes=("n00000001", "n00000002"), test=3):
    """Tiny-ImageNet's layout; returns the right label of every test image by its pixels."""
    answers, lines = {}, []
    for name in classes:
        for i in range(2):
            save(root / "train" / name / "images" / f"{name}_{i}.JPEG", colour())
    for i in range(test * len(classes)):
        name = f"val_{i}.JPEG"
        save(root / "val" / "images" / name, colour())
        answers[np.asarray(Image.open(root / "val" / "images" / name)).tobytes()] = i % len(classes)
        lines.append(f"{name}\t{classes[i % len(classes)]}\t0\t0\t62\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "words.txt").write_text("n00000001\tgoldfish, Carassius auratus\nn00000002\ttailed frog, bell toad\n")
    (root / "test" / "images").mkdir(parents=True)
    save(root / "test" / "images" / "test_0.JPEG", colour())  # has no label
    return answers


def test_tiny_imagenets_val_is_labelled_by_its_annotations_and_a_correction_is_noticed(tmp_path):
    answers = make_tiny(tmp_path / "tiny")
    data = get(tmp_path / "tiny")
    assert data.classes == ("goldfish", "tailed frog") and data.train_y.tolist() == [0, 0, 1, 1]
    labels = data.test_y.tolist()
    assert answers == {x.permute(1, 2, 0).numpy().tobytes(): y for x, y in zip(data.test_x, labels, strict=True)}
    for wanted in ([3, 3], [2, 4]):  # the files are the same and even stay in the same order
        names = ["n00000001"] * wanted[0] + ["n00000002"] * wanted[1]
        lines = [f"val_{i}.JPEG\t{name}\n" for i, name in enumerate(names)]
        (tmp_path / "tiny" / "val" / "val_annotations.txt").write_text("".join(lines))
        assert get(tmp_path / "tiny").test_y.bincount().tolist() == wanted


def test_tiny_imagenets_annotations_and_images_must_pair_up(tmp_path):
    make_tiny(tmp_path / "tiny")
    val = tmp_path / "tiny" / "val"
    lines = (val / "val_annotations.txt").read_text()
    (val / "val_annotations.txt").write_text(lines.replace("val_2.JPEG", "val_9.JPEG"))
    assert_refused(tmp_path / "tiny", r"val_annotations\.txt")
    (val / "val_annotations.txt").unlink()
    shutil.rmtree(tmp_path / "tiny" / "test")  # then all of val looks like one class, and no network is right on more
    assert_refused(tmp_path / "tiny", r"val_annotations\.txt")


def one_image(train):
    for name in ("a/0.png", "a/1.png", "b/0.png"):
        save(train / name, colour())


WRONG = {
    "a class of the test set has another name": (lambda p: (p / "test/cat").rename(p / "test/kat"), "kat"),
    "a class is empty": (lambda p: (p / "train/fox").mkdir(), "fox"),
    "no train": (lambda p: (p / "train").rename(p / "pictures"), "train"),
    "two trains": (lambda p: shutil.copytree(p / "train", p / "Training"), "Training"),
    "one class": (lambda p: [shutil.rmtree(p / "train" / name) for name in ("dog", "eel")], "cat"),
    "no class in the test set": (lambda p: [shutil.rmtree(d) for d in (p / "test").iterdir()], "test"),
    "links in a circle": (lambda p: (p / "train/cat/again").symlink_to(p / "train/cat"), "train.cat"),
    "a class of one image": (
        lambda p: [shutil.rmtree(p / "test"), (p / "train").rename(p / "x"), one_image(p)],
        "photos.b ",
    ),
}


@pytest.mark.parametrize("how", WRONG)
def test_what_is_wrong_with_a_folder_is_said(photos, how):
    spoil, word = WRONG[how]
    spoil(photos)
    assert_refused(photos, word)


@posix
def test_a_folder_that_may_not_be_read_is_not_passed_over(photos):
    save(photos / "train" / "cat" / "deeper" / "9.png", colour())
    for where in ("train", "test/dog", "train/cat/deeper"):
        with unreadable(photos / where):
            assert_refused(photos, where)
