"""Batches: equal to a slow loop over images, each image once, the same from the same seed."""

import numpy as np
import pytest
import torch

from mixlab.data.batches import Batches

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
rng = np.random.default_rng(0)
IMAGES = torch.from_numpy(rng.integers(0, 256, (50, 3, 8, 10), dtype=np.uint8))
LABELS = torch.from_numpy(rng.permutation(50) % 5)


def make(batch_size=16, seed=0, images=IMAGES, labels=LABELS, **options):
    return Batches(images, labels, batch_size, seed, **{"mean": MEAN, "std": STD, **options})


def whole_epoch(batches):
    x, labels = zip(*batches, strict=True)
    return torch.cat(x), torch.cat(labels)


def one_by_one(drawn):
    """The same draws, image by image, with slices."""
    mean, std = np.array(MEAN).reshape(3, 1, 1), np.array(STD).reshape(3, 1, 1)
    for row, top, left, flip in drawn.T.tolist():
        padded = np.zeros((3, 16, 18))
        padded[:, 4:12, 4:14] = IMAGES[row] / 255
        crop = padded[:, top : top + 8, left : left + 10]
        yield ((crop[:, :, ::-1] if flip else crop) - mean) / std, int(LABELS[row])


def test_pixels_and_labels_equal_a_loop_over_images():
    for flip in (False, True):
        x, labels = whole_epoch(make(flip=flip))
        expected, expected_labels = zip(*one_by_one(make(flip=flip).draw()), strict=True)
        np.testing.assert_allclose(x.numpy(), np.stack(expected), atol=2e-6)
        assert labels.tolist() == list(expected_labels)
        assert x.dtype == torch.float32 and labels.dtype == torch.int64


def test_every_offset_and_both_directions_are_drawn():
    images, labels = IMAGES.repeat(100, 1, 1, 1), LABELS.repeat(100)
    _, top, left, flip = make(images=images, labels=labels).draw().numpy()
    for offset in (top, left):
        assert set(offset) == set(range(9))
        assert 450 < np.bincount(offset).min() and np.bincount(offset).max() < 660  # 5000 / 9 = 556, s.d. 22
    assert abs(flip.mean() - 0.5) < 0.03  # s.d. 0.007
    assert abs(np.corrcoef([top, left, flip])[np.triu_indices(3, 1)]).max() < 0.06  # s.d. 0.014


def test_without_augmentation_the_images_are_only_normalised_and_the_set_stays_as_it_is():
    images = IMAGES.clone()
    expected = (IMAGES / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    batches = make(images=images, labels=LABELS.byte(), augment=False, order="fixed")
    for (x, labels), rows in zip(batches, torch.arange(50).split(16), strict=True):
        torch.testing.assert_close(x, expected[rows], atol=2e-6, rtol=0)
        assert labels.equal(LABELS[rows])
        x.zero_()
    assert images.equal(IMAGES)


def test_every_image_comes_once_an_epoch_and_every_epoch_in_another_order():
    for order in ("shuffled", "stratified"):
        batches = make(order=order)
        first, second = batches.draw()[0], batches.draw()[0]
        assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(50))
        assert not first.equal(second) and first.tolist() != list(range(50))


def test_stratified_batches_keep_the_proportions_of_the_classes():
    counts = np.array([500, 300, 150, 40, 10])
    labels = torch.from_numpy(rng.permutation(np.repeat(np.arange(5), counts)))
    images = torch.zeros(1000, 1, 2, 2, dtype=torch.uint8)
    for _, part in make(100, images=images, labels=labels, order="stratified", augment=False, mean=[0], std=[1]):
        assert np.abs(part.bincount(minlength=5).numpy() - counts / 10).max() < 3  # shuffled: up to 14
    batches = make(10, order="stratified")
    assert all(labels.bincount().tolist() == [2] * 5 for _ in range(3) for _, labels in batches)
    rows = batches.draw()[0]
    of_class_0 = rows[LABELS[rows] == 0].tolist()
    assert of_class_0 != sorted(of_class_0), "within a class they are shuffled"
    assert not LABELS[rows].equal(LABELS[batches.draw()[0]]), "and so are the classes"


def test_one_seed_gives_the_same_batches_and_another_gives_others():
    x, labels = whole_epoch(make(seed=3))
    for seed in (3, np.random.default_rng(3)):
        again, labels_again = whole_epoch(make(seed=seed))
        assert again.equal(x) and labels_again.equal(labels)
    assert not whole_epoch(make(seed=4))[0].equal(x)


def test_the_generators_state_repeats_an_epoch_and_all_draws_are_made_when_it_begins():
    own = np.random.default_rng(5)
    batches = make(seed=own)
    next(iter(batches))  # an epoch left after one batch has drawn as much as a whole one
    state = own.bit_generator.state
    x, _ = whole_epoch(batches)
    resumed = np.random.default_rng()
    resumed.bit_generator.state = state
    assert whole_epoch(make(seed=resumed))[0].equal(x)
    iter(make(seed=own))  # the draws are made here
    assert own.bit_generator.state != resumed.bit_generator.state


def test_images_come_in_channels_last_and_in_the_type_that_was_asked_for():
    plain, small = (next(iter(make(batch_size=50, dtype=dtype)))[0] for dtype in (torch.float32, torch.bfloat16))
    assert plain.dtype == torch.float32 and small.dtype == torch.bfloat16 and small.equal(plain.bfloat16())
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in (plain, small))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_one_seed_gives_the_same_batches_on_a_gpu():
    x, labels = whole_epoch(make(device="cuda"))
    assert x.is_cuda and labels.is_cuda
    torch.testing.assert_close(x.cpu(), whole_epoch(make())[0])


def test_bad_arguments_are_named():
    for word, options in (
        ("images", {"images": IMAGES[0]}),
        ("labels", {"labels": LABELS[:9]}),
        ("images", {"images": IMAGES[:0], "labels": LABELS[:0]}),
        ("batch_size", {"batch_size": 0}),
        ("order", {"order": "sorted"}),
        ("mean", {"mean": [0.5]}),
        ("std", {"std": [1, 1, 0]}),
    ):
        with pytest.raises(ValueError, match=word):
            make(**options)
    with pytest.raises(TypeError, match="images"):
        make(images=IMAGES.float())
