"""The drawn data set: what a seed promises, what a box holds, and that an outline is all that tells classes apart."""

import numpy as np
import pytest
import torch

from mixlab.data import shapes
from mixlab.data.shapes import CLASSES, coverage, draw

SIZES = (28, 32, 64)


def centred(labels, turn=0.0, t=0.5, radius=0.7):
    """Places for `coverage` with the object in the middle of the picture."""
    return np.array([[0, 0, radius, turn, t]] * len(labels))


def extent(hit):
    """(top, left, bottom, right) of a boolean picture (h, w), half open, found the slow way."""
    rows, columns = np.nonzero(hit)
    return [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]


def test_same_seed_same_pictures_and_another_seed_others():
    first, again, other = draw(150, 7), draw(150, np.random.default_rng(7)), draw(150, 8)
    for field in ("images", "labels", "boxes"):
        assert torch.equal(getattr(first, field), getattr(again, field))
    assert not torch.equal(first.images, other.images) and not torch.equal(first.labels, other.labels)


def test_the_block_that_is_drawn_at_once_does_not_show(monkeypatch):
    whole = draw(100, 3)
    monkeypatch.setattr(shapes, "BLOCK_PIXELS", 7 * 32**2)
    assert torch.equal(whole.images, draw(100, 3).images)


def test_a_generator_moves_on_and_global_state_is_left_alone():
    rng, before = np.random.default_rng(0), np.random.get_state()[1].copy()  # noqa: NPY002
    assert not torch.equal(draw(20, rng).images, draw(20, rng).images)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


@pytest.mark.parametrize("size", SIZES)
def test_types_shapes_and_a_full_range_of_values(size):
    drawn = draw(40, 0, size)
    assert drawn.images.shape == (40, 3, size, size) and drawn.images.dtype == torch.uint8
    assert drawn.labels.shape == (40,) and drawn.labels.dtype == torch.int64
    assert drawn.boxes.shape == (40, 4) and drawn.boxes.dtype == torch.int64
    assert drawn.images.min() < 20 and drawn.images.max() > 235
    assert (drawn.images.float().std((1, 2, 3)) > 8).all(), "a picture is nearly flat"


@pytest.mark.parametrize("n", [1, 10, 1003])
def test_labels_are_spread_evenly_and_shuffled(n):
    labels = draw(n, 0).labels
    counts = torch.bincount(labels, minlength=len(CLASSES))
    assert counts.max() - counts.min() <= 1
    assert n < 10 or not torch.equal(labels, torch.arange(n) % len(CLASSES))


def test_asked_labels_are_drawn_in_order_and_not_shared_with_the_caller():
    asked = np.array([3, 3, 9, 0])
    drawn = draw(4, 0, labels=asked)
    assert drawn.labels.tolist() == [3, 3, 9, 0]
    drawn.labels[0] = 5
    assert asked[0] == 3
    assert draw(4, 0, labels=torch.tensor([3, 3, 9, 0])).labels.tolist() == [3, 3, 9, 0]


@pytest.mark.parametrize("size", SIZES)
def test_boxes_lie_in_the_picture_and_are_neither_tiny_nor_all_of_it(size):
    top, left, bottom, right = draw(1000, 0, size).boxes.T / size
    assert (torch.stack([top, left]) >= 0).all() and (torch.stack([bottom, right]) <= 1).all()
    for extent in (bottom - top, right - left):
        assert extent.min() > 0.22 and extent.max() < 0.85


def test_labels_change_what_is_in_the_box_and_nothing_outside():
    """Same seed, other classes: the same scene with another object, so they differ in the two boxes alone."""
    n = 300
    one = draw(n, 5, 64, labels=np.arange(n) % 10)
    two = draw(n, 5, 64, labels=(np.arange(n) + 1 + np.arange(n) // 10 % 9) % 10)
    differ = (one.images != two.images).any(1).numpy()
    for hit, a, b in zip(differ, one.boxes.numpy(), two.boxes.numpy(), strict=True):
        assert hit.any()
        low, high = np.minimum(a, b)[:2], np.maximum(a, b)[2:]
        found = extent(hit)
        # A pixel covered to less than a quarter may lie outside, and a sharp tip ends in up to three of them.
        assert (found[:2] >= low - 3).all() and (found[2:] <= high + 3).all()


def test_a_box_touches_the_object_on_all_four_sides():
    """With the same outline on both sides of the comparison, drawn by `coverage`, boxes are exact."""
    labels = np.arange(200) % 10
    places = shapes._place(200, np.random.default_rng(0))
    cover = coverage(labels, places, 32)
    assert shapes._bounds(cover).tolist() == [extent(picture >= 0.25) for picture in cover]


def test_draw_boxes_are_those_of_the_object_it_drew(monkeypatch):
    """Paint the object white on a black ground without confetti or grain: what is bright is the object."""
    monkeypatch.setattr(shapes, "_paint", lambda scene, cover, size, rng: 255 * (cover >= 0.25)[:, None].repeat(3, 1))
    drawn = draw(200, 0)
    for image, box in zip(drawn.images.numpy(), drawn.boxes.tolist(), strict=True):
        assert extent(image[0] > 0) == box


def test_no_object_is_cut_by_the_border():
    """On a picture twice as wide, with pixels of the same size, nothing lies outside the part that is shown."""
    labels = np.arange(5000) % 10
    places = shapes._place(5000, np.random.default_rng(1)) * [0.5, 0.5, 0.5, 1, 1]
    wide = coverage(labels, places, 64)
    wide[:, 16:48, 16:48] = 0
    assert wide.max() <= 0.5


def test_every_class_differs_from_every_other_at_any_turn():
    """The nearest two outlines of different classes, over turns and proportions, still differ by real area."""
    turns = np.linspace(-1, 1, 73)
    drawn = []
    for label in range(10):
        places = np.concatenate([centred(turns, t=t) for t in (0, 0.5, 1)])
        places[:, 3] = np.tile(turns, 3)
        drawn.append(coverage([label] * len(places), places, 32).reshape(len(places), -1))
    for a in range(10):
        for b in range(a):
            # intersection over union of the silhouettes; a disc and a ring with the smallest hole come nearest
            overlap = drawn[a] @ drawn[b].T
            union = (drawn[a] ** 2).sum(1)[:, None] + (drawn[b] ** 2).sum(1) - overlap
            assert (overlap / union).max() < 0.975, (CLASSES[a], CLASSES[b])


def test_square_stays_far_from_its_corner_and_a_diamond_is_longer_than_wide():
    for turn in (-1, -0.5, 0, 0.5, 1):
        square = coverage([CLASSES.index("square")], centred([0], turn, t=0), 64)[0]
        top, left, bottom, right = extent(square >= 0.5)
        assert square[top:bottom, left:right].mean() > 0.58  # a square turned by 45 degrees fills half of its box
    diamond = coverage([CLASSES.index("diamond")] * 2, centred([0, 0], 0) * [[1, 1, 1, 1, 0], [1, 1, 1, 1, 2]], 64)
    for picture in diamond:
        top, left, bottom, right = extent(picture >= 0.5)
        assert (right - left) / (bottom - top) > 1.2


@pytest.mark.parametrize("size", SIZES)
def test_edges_are_one_pixel_soft_and_a_disc_is_round_centred_and_of_the_right_area(size):
    cover = coverage([0], centred([0], t=0), size)[0]
    radius = 0.7 * 0.85 * size / 2
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


def test_nothing_but_the_outline_tells_the_class(monkeypatch):
    """Same seed, other classes: every pixel that both objects cover to the same share is the same, colour and all."""
    paint, covers = shapes._paint, []
    monkeypatch.setattr(
        shapes, "_paint", lambda scene, cover, *rest: (covers.append(cover), paint(scene, cover, *rest))[1]
    )
    labels = np.arange(50) % 10
    one, two = draw(50, 5, labels=labels), draw(50, 5, labels=(labels + 1) % 10)
    same_share = torch.from_numpy(covers[0] == covers[1])
    both_full = same_share & torch.from_numpy(covers[0] == 1)
    assert len(covers) == 2 and both_full.sum() > 1000
    assert ((one.images == two.images).all(1) | ~same_share).all()


@pytest.mark.parametrize(
    "change, word",
    [
        ({"n": 0}, "n must"),
        ({"n": 2.5}, "n must"),
        ({"n": True}, "n must"),
        ({"size": 8}, "size must"),
        ({"rng": None}, "rng must"),
        ({"rng": -1}, "rng must"),
        ({"rng": "seed"}, "rng must"),
        ({"labels": [0, 1]}, "labels must"),
        ({"labels": [[0, 1, 2]]}, "labels must"),
        ({"labels": [0.0, 1.0, 2.0]}, "labels must"),
        ({"labels": [True, False, True]}, "labels must"),
        ({"labels": [0, 1, 10]}, "labels must"),
        ({"labels": [-1, 0, 1]}, "labels must"),
    ],
)
def test_bad_arguments_are_refused_by_name(change, word):
    with pytest.raises(ValueError, match=word):
        draw(**{"n": 3, "rng": 0, **change})
