"""Folders of images: the right pixels under the right label, and a sentence for each way a folder can be wrong."""

import os

import numpy as np
import pytest
from PIL import Image

from mixlab.data import folders, pixels
from mixlab.data.sets import load

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
                pixels[str(path)] = colour()
                save(path, pixels[str(path)])
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
    assert not list(folder.parent.glob("*.pixels")) and not list(folder.parent.glob(".*"))


def test_every_image_is_there_once_with_its_pixels_and_its_label(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "BLOCK", 5)  # more blocks than threads
    pixels = make_split(tmp_path / "photos")
    data = get(tmp_path / "photos")
    assert data.classes == ("cat", "dog", "eel") and data.name == "photos"
    for part, x, y in (("train", data.train_x, data.train_y), ("test", data.test_x, data.test_y)):
        ours = {(image.numpy().tobytes(), data.classes[label]) for image, label in zip(x, y.tolist(), strict=True)}
        theirs = {(p.transpose(2, 0, 1).tobytes(), f.split(os.sep)[-2]) for f, p in pixels.items() if f"/{part}/" in f}
        assert ours == theirs and len(x) == len(theirs)


def test_mean_and_std_are_those_of_the_training_pixels(photos):
    data = get(photos)
    large = rng.integers(0, 256, (2500, 2, 3, 3), dtype=np.uint8)
    found = (data.train_x.numpy(), data.mean, data.std, 1e-6), (large, *pixels.moments(large), 1e-12)
    for x, mean, std, rtol in found:
        np.testing.assert_allclose(mean, (x / 255).mean((0, 2, 3)), rtol=rtol)
        np.testing.assert_allclose(std, (x / 255).std((0, 2, 3)), rtol=rtol)
    assert pixels.moments(np.full((3, 1, 2, 2), 7, np.uint8))[1] == [1 / 255]  # not zero: it is divided by


def test_without_a_split_a_fifth_of_every_class_is_held_out_always_the_same(tmp_path):
    for name, many in (("cat", 10), ("dog", 5)):
        for i in range(many):
            save(tmp_path / "photos" / name / "deeper" / f"{i}.png", colour())
    save(tmp_path / "photos" / ".hidden" / "0.png", colour())
    save(tmp_path / "photos" / "cat" / "._0.png", colour())
    save(tmp_path / "photos" / "cat" / ".thumbnails" / "0.png", colour())
    (tmp_path / "photos" / "cat" / "notes.txt").write_text("no image")
    data, again = folders.survey(tmp_path / "photos"), folders.survey(tmp_path / "photos")
    assert np.bincount(data.train_y).tolist() == [8, 4] and np.bincount(data.test_y).tolist() == [2, 1]
    assert len({*data.train, *data.test}) == 15 and data.test == again.test
    assert all(data.classes[y] in file for file, y in zip(data.test, data.test_y, strict=True))


def test_grey_files_among_colour_ones_become_colour(photos):
    grey = colour()[..., 0]
    save(photos / "train" / "cat" / "0.png", grey)
    data = get(photos)
    assert data.train_x.shape == (12, 3, 8, 8)
    assert (data.train_x[0].numpy() == grey).all()  # files are in the order of their names


def test_a_set_of_grey_files_has_one_channel(tmp_path):
    for i in range(4):
        for name in "ab":
            save(tmp_path / "photos" / name / f"{i}.png", colour()[..., 0])
    assert get(tmp_path / "photos").train_x.shape == (6, 1, 8, 8)


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
    assert everything.shape == (8, 3, 16, 16) and data.name == "photos (16 x 16)"
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


def test_sizes_that_differ_are_told_with_what_to_do(photos):
    save(photos / "train" / "dog" / "9.png", colour(9))
    assert_refused(photos, r"1 of 19 images cannot be used:\n.*9\.png: 9 x 9 pixels where the first has 8 x 8.*size=32")
    assert get(photos, size=8).train_x.shape == (13, 3, 8, 8)


@pytest.mark.parametrize("where", ["cat/0.png", "dog/2.png"])
def test_an_unreadable_image_is_named_and_the_next_attempt_works(photos, where):
    file = photos / "train" / where
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert_refused(photos, rf"{where}: not readable")
    file.write_bytes(content)
    assert len(get(photos).train_x) == 12


def test_all_unreadable_images_are_counted(photos):
    for i in range(4):
        (photos / "train" / "dog" / f"{i}.png").write_text("not an image")
    assert_refused(photos, "4 of 18 images cannot be used:(\n.*not readable.*){3}\n  …")


def test_sixteen_bits_are_not_cut_to_eight_in_silence(photos):
    save(photos / "train" / "dog" / "0.png", np.full((8, 8), 40_000, np.uint16))
    assert_refused(photos, "more than 8 bits a channel")


def test_a_second_load_decodes_nothing_and_each_change_is_noticed(photos, monkeypatch):
    calls, decode = [], folders.decode
    monkeypatch.setattr(folders, "decode", lambda *a: calls.append(a) or decode(*a))
    first = get(photos)
    again = get(photos)
    assert len(calls) == 1 and again.train_x.equal(first.train_x) and again.classes == first.classes
    (photos / "train" / "cat" / "3.png").rename(photos / "train" / "dog" / "4.png")  # a label put right
    assert get(photos).train_y.bincount().tolist() == [3, 5, 4]
    save(photos / "test" / "eel" / "7.png", colour())
    assert len(get(photos).test_x) == 7
    facts, changed = os.stat(photos / "train" / "eel" / "0.png"), colour()
    save(photos / "train" / "eel" / "0.png", changed)
    os.utime(photos / "train" / "eel" / "0.png", ns=(facts.st_atime_ns, facts.st_mtime_ns + 10**9))
    assert (get(photos).train_x[8].permute(1, 2, 0).numpy() == changed).all()
    assert len(calls) == 4


def test_folders_of_one_name_do_not_share_a_cache(tmp_path):
    for place in ("one", "two"):
        make_split(tmp_path / place / "photos")
    loaded = [load(tmp_path / place / "photos", root=tmp_path) for place in ("one", "two", "one")]
    assert loaded[0].train_x.equal(loaded[2].train_x) and not loaded[0].train_x.equal(loaded[1].train_x)
    assert len(list(tmp_path.glob("*.pixels"))) == 2


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


def test_tiny_imagenets_val_is_labelled_by_its_annotations(tmp_path):
    answers = make_tiny(tmp_path / "tiny")
    data = get(tmp_path / "tiny")
    assert data.classes == ("goldfish", "tailed frog") and data.train_y.tolist() == [0, 0, 1, 1]
    labels = data.test_y.tolist()
    found = {image.permute(1, 2, 0).numpy().tobytes(): y for image, y in zip(data.test_x, labels, strict=True)}
    assert found == answers


def test_a_corrected_annotation_is_noticed(tmp_path):
    make_tiny(tmp_path / "tiny")
    for wanted in ([3, 3], [2, 4]):  # the files are the same and even stay in the same order
        names = ["n00000001"] * wanted[0] + ["n00000002"] * wanted[1]
        lines = [f"val_{i}.JPEG\t{name}\n" for i, name in enumerate(names)]
        (tmp_path / "tiny" / "val" / "val_annotations.txt").write_text("".join(lines))
        assert get(tmp_path / "tiny").test_y.bincount().tolist() == wanted


def test_tiny_imagenets_one_class_reading_is_refused(tmp_path):
    make_tiny(tmp_path / "tiny")
    (tmp_path / "tiny" / "val" / "val_annotations.txt").unlink()
    (tmp_path / "tiny" / "test").rename(tmp_path / "elsewhere")
    assert_refused(tmp_path / "tiny", r"labels in val_annotations\.txt, which is not there.* one class.*more than 50%")


@pytest.mark.parametrize("lost", ["image", "line"])
def test_annotations_and_images_must_pair_up(tmp_path, lost):
    make_tiny(tmp_path / "tiny")
    val = tmp_path / "tiny" / "val"
    if lost == "image":
        (val / "images" / "val_2.JPEG").unlink()
    else:
        lines = (val / "val_annotations.txt").read_text().splitlines(True)
        (val / "val_annotations.txt").write_text("".join(lines[:2] + lines[3:]))
    assert_refused(tmp_path / "tiny", r"1 files and lines of val_annotations\.txt do not pair up, val_2\.JPEG first")


def test_val_sorted_into_classes_needs_no_annotations(tmp_path):
    make_split(tmp_path / "photos")
    (tmp_path / "photos" / "test").rename(tmp_path / "photos" / "val")
    assert get(tmp_path / "photos").test_y.bincount().tolist() == [2, 2, 2]


def spoil_class(root):
    (root / "test" / "cat").rename(root / "test" / "kat")


def spoil_empty(root):
    (root / "train" / "fox").mkdir()


def spoil_train(root):
    (root / "train").rename(root / "training")


def spoil_one(root):
    for name in ("dog", "eel"):
        (root / "train" / name).rename(root.parent / name)


def spoil_test(root):
    (root / "test").rename(root.parent / "test")
    save(root / "test" / "0.png", colour())


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (spoil_class, "test holds classes that the training set has not: kat$"),
        (spoil_empty, "no image in .*fox: a class needs some"),
        (spoil_train, "photos holds test, training but no folder named train"),
        (spoil_one, r"must hold two folders of images or more, one for each class, got \['cat'\]"),
        (spoil_test, "test must hold a folder of images for each class, it holds none"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(photos, spoil, sentence):
    spoil(photos)
    assert_refused(photos, sentence)


def test_a_class_of_one_image_cannot_be_split(tmp_path):
    for name, many in (("cat", 3), ("dog", 1)):
        for i in range(many):
            save(tmp_path / "photos" / name / f"{i}.png", colour())
    assert_refused(tmp_path / "photos", "dog holds one image: a class needs two")
