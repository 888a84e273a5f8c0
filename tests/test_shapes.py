"""The drawn data set: what a seed promises, what a box holds, and that an outline is all that tells classes apart."""

import zlib

import numpy as np
import pytest
import torch

from mixlab.data import shapes
from mixlab.data.shapes import CLASSES, coverage, draw


def centred(labels, turn=0.0, t=0.5, radius=0.7):
    """Places for `coverage` with the object in the middle of the picture."""
    return np.array([[0, 0, radius, turn, t]] * len(labels))


def extent(hit):
    """(top, left, bottom, right) of a boolean picture (h, w), half open, found the slow way."""
    rows, columns = np.nonzero(hit)
    return [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]


def test_same_seed_same_pictures_and_another_seed_others(monkeypatch):
    first, other, before = draw(150, 7), draw(150, 8), np.random.get_state()[1].copy()  # noqa: NPY002
    monkeypatch.setattr(shapes, "BLOCK_PIXELS", 7 * 32**2)  # how many are drawn at once does not show
    rng = np.random.default_rng(7)
    again, more = draw(150, rng), draw(150, rng)
    for field in ("images", "labels", "boxes"):
        assert torch.equal(getattr(first, field), getattr(again, field))
        assert not torch.equal(getattr(first, field), getattr(other, field))
        assert not torch.equal(getattr(first, field), getattr(more, field))
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_the_pictures_of_a_seed_stay_what_they_were():
    """Measured results depend on them. Rounding may differ by processor, so only rough means are held."""
    drawn = draw(60, 0)
    assert zlib.crc32(drawn.labels.numpy()) == 4257458825
    means = drawn.images.float().mean((1, 2, 3))
    assert means[:4].tolist() == pytest.approx([200.8, 72.9, 120.2, 69.1], abs=0.1)
    assert drawn.boxes[0].tolist() == [2, 11, 16, 25]


def test_labels_are_spread_evenly_and_shuffled_or_as_asked_for():
    labels = draw(103, 0).labels
    counts = torch.bincount(labels, minlength=len(CLASSES))
    assert counts.max() - counts.min() <= 1 and not torch.equal(labels, torch.arange(103) % len(CLASSES))
    assert torch.equal(draw(103, 0, labels=labels.flip(0)).labels, labels.flip(0))


def test_nothing_but_the_outline_tells_the_class(monkeypatch):
    """Same seed, other classes: what both objects cover to the same share is the same, colour and all."""
    paint, covers = shapes._paint, []
    monkeypatch.setattr(shapes, "_paint", lambda scene, *rest: (covers.append(rest[0]), paint(scene, *rest))[1])
    labels = np.arange(50) % 10
    one, two = draw(50, 5, labels=labels), draw(50, 5, labels=(labels + 1) % 10)
    same_share = torch.from_numpy(covers[0] == covers[1])
    both_full = same_share & torch.from_numpy(covers[0] == 1)
    assert len(covers) == 2 and both_full.sum() > 1000
    assert ((one.images == two.images).all(1) | ~same_share).all()


def test_boxes_are_those_of_the_object(monkeypatch):
    """Paint the object white on a black ground without confetti or grain: what is bright is the object."""
    monkeypatch.setattr(shapes, "_paint", lambda scene, cover, size, rng: 255 * (cover >= 0.25)[:, None].repeat(3, 1))
    drawn = draw(200, 0)
    assert drawn.boxes.tolist() == [extent(image[0] > 0) for image in drawn.images.numpy()]


def test_no_object_is_cut_by_the_border():
    """On a picture twice as wide, with pixels of the same size, nothing lies outside the part that is shown."""
    places = shapes._place(1000, np.random.default_rng(1)) * [0.5, 0.5, 0.5, 1, 1]
    wide = coverage(np.arange(1000) % 10, places, 64)
    wide[:, 16:48, 16:48] = 0
    assert wide.max() <= 0.5


def test_every_class_differs_from_every_other_at_any_turn():
    """The nearest two outlines of different classes, over turns and proportions, still differ by real area."""
    turns, drawn = np.linspace(-1, 1, 73), []
    for label in range(10):
        places = np.concatenate([centred(turns, t=t) for t in (0, 0.5, 1)])
        places[:, 3] = np.tile(turns, 3)
        drawn.append(coverage([label] * len(places), places, 32).reshape(len(places), -1))
    for a in range(10):
        for b in range(a):  # intersection over union; a disc and a ring with the smallest hole come nearest
            overlap = drawn[a] @ drawn[b].T
            union = (drawn[a] ** 2).sum(1)[:, None] + (drawn[b] ** 2).sum(1) - overlap
            assert (overlap / union).max() < 0.975, (CLASSES[a], CLASSES[b])


def test_edges_are_one_pixel_soft_and_a_disc_is_round_centred_and_of_the_right_area():
    cover = coverage([0], centred([0], t=0), 28)[0]
    radius = 0.7 * 0.85 * 28 / 2
    assert cover.sum() == pytest.approx(np.pi * radius**2, rel=0.01)
    assert ((cover > 0) & (cover < 1)).sum() == pytest.approx(2 * np.pi * radius, rel=0.15)
    assert cover.min() == 0 and cover.max() == 1 and cover.dtype == np.float32
    for mirrored in (cover[::-1], cover[:, ::-1], cover.T):
        assert np.abs(cover - mirrored).max() < 1e-5


def test_a_larger_size_shows_the_same_scene_sharper():
    small, large = draw(200, 2, 32), draw(200, 2, 64)
    assert torch.equal(small.labels, large.labels)
    shrunk = torch.nn.functional.avg_pool2d(large.images.float(), 2)
    assert (shrunk - small.images).abs().mean() < 8  # two unrelated sets differ by about 70
    assert (large.boxes - 2 * small.boxes).abs().max() <= 4


def test_bad_arguments_are_refused_by_name():
    bad = [
        ("n", 0),
        ("size", 8),
        ("rng", None),
        ("labels", [0, 1]),
        ("labels", [0.0, 1.0, 2.0]),
        ("labels", [0, 1, 10]),
    ]
    for argument, value in bad:
        with pytest.raises(ValueError, match=argument):
            draw(**{"n": 3, "rng": 0, argument: value})
