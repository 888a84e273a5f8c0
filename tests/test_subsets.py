"""Subsets: so many of each class, nested, named for what they are."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from mixlab.data import subsets


@dataclass(frozen=True)
class Stub:
    """A set whose pixels say which image it is."""

    name: str
    train_x: torch.Tensor
    train_y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor
    classes: tuple


def stub(counts, seed=0):
    labels = torch.from_numpy(np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts)))
    x = torch.arange(len(labels)).view(-1, 1, 1, 1)
    return Stub("set", x, labels, x[:3] + 10**6, labels[:3], tuple("abcdefghij"[: len(counts)]))


def counts_of(data):
    return data.train_y.bincount(minlength=len(data.classes)).tolist()


def images_of(data):
    return set(data.train_x.flatten().tolist())


def assert_part_of(part, data):
    """Distinct images of the set, each with its own label; test set untouched."""
    rows = part.train_x.flatten()
    assert len(rows.unique()) == len(rows)
    assert data.train_y[rows].equal(part.train_y)
    assert part.test_x is data.test_x


@pytest.mark.parametrize("share", [0.5, 0.25, 0.1])
def test_a_fraction_takes_the_same_share_of_every_class(share):
    data = stub([100, 60, 40, 3])
    part = subsets.fraction(data, share, 0)
    assert counts_of(part) == [round(100 * share), round(60 * share), round(40 * share), max(1, int(3 * share + 0.5))]
    assert_part_of(part, data)
    assert part.name == f"set ({100 * share:g}%)"


def test_smaller_subsets_of_one_seed_lie_inside_larger_ones_and_seeds_differ():
    data = stub([100, 80])
    tenth, quarter, half = (images_of(subsets.fraction(data, share, 7)) for share in (0.1, 0.25, 0.5))
    assert tenth < quarter < half
    assert half != images_of(subsets.fraction(data, 0.5, 8))
    assert half == images_of(subsets.fraction(data, 0.5, np.random.default_rng(7)))


def test_fifty_per_class():
    data = stub([100, 60, 50])
    part = subsets.per_class(data, 50, 0)
    assert counts_of(part) == [50, 50, 50] and part.name == "set (50 per class)"
    assert_part_of(part, data)


@pytest.mark.parametrize(("classes", "ratio", "total"), [(10, 0.01, 12406), (10, 0.1, 20431)])
def test_a_long_tail_has_the_size_of_the_published_ones(classes, ratio, total):
    data = stub([50_000 // classes] * classes)
    part = subsets.long_tailed(data, ratio, 0)
    counts = counts_of(part)
    assert sum(counts) == total and counts == sorted(counts, reverse=True)
    assert counts[0] == 50_000 // classes and counts[-1] == round(ratio * 50_000 / classes)
    assert part.name == f"set (LT {ratio:g})"
    assert_part_of(part, data)


def test_a_long_tail_of_a_hundred_classes_has_the_published_size():
    data = stub([500] * 10)
    hundred = Stub("set", *(torch.arange(50_000).view(-1, 1, 1, 1), torch.arange(50_000) % 100) * 2, tuple(range(100)))
    assert len(subsets.long_tailed(hundred, 0.01, 0).train_y) == 10_847
    assert counts_of(subsets.long_tailed(data, 1, 0)) == [500] * 10


def test_a_class_that_has_fewer_than_its_tail_keeps_what_it_has():
    assert counts_of(subsets.long_tailed(stub([100, 20, 90]), 0.25, 0)) == [100, 20, 25]
    assert counts_of(subsets.long_tailed(stub([10, 10, 10]), 0.01, 0)) == [10, 1, 1]  # and never nothing


def test_a_held_out_split_is_disjoint_stratified_and_hides_the_test_set():
    data = stub([100, 60, 10])
    split = subsets.hold_out(data, 0.1, 0)
    held = set(split.test_x.flatten().tolist())
    assert split.test_y.bincount().tolist() == [10, 6, 1] and counts_of(split) == [90, 54, 9]
    assert held | images_of(split) == images_of(data) and not held & images_of(split)
    assert data.train_y[split.test_x.flatten()].equal(split.test_y)
    assert split.name == "set (10% held out)"
    assert counts_of(subsets.hold_out(stub([10, 2]), 0.9, 0)) == [1, 1]  # nothing is held out to the last image


def test_every_member_of_a_class_is_picked_equally_often():
    labels = np.array([0] * 6 + [1] * 3)
    picks = np.bincount(np.concatenate([subsets.pick(labels, [2, 1], seed) for seed in range(3000)]), minlength=9)
    assert abs(picks - 1000).max() < 110  # s.d. 26


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda d: subsets.fraction(d, 25, 0), r"share must lie in \(0, 1\], got 25; a quarter is 0\.25"),
        (lambda d: subsets.fraction(d, 0, 0), "share must lie in"),
        (
            lambda d: subsets.per_class(d, 5, 0),
            r"count must be whole and lie in 1\.\.4, the size of the smallest class, got 5",
        ),
        (lambda d: subsets.per_class(d, 0, 0), "count must be whole"),
        (lambda d: subsets.per_class(d, 2.5, 0), "count must be whole"),
        (lambda d: subsets.long_tailed(d, 100, 0), r"ratio must lie in \(0, 1\].* got 100; 100:1 is 0\.01"),
        (lambda d: subsets.hold_out(d, 1, 0), r"share must lie in \(0, 1\), got 1"),
        (lambda d: subsets.hold_out(stub([8, 1]), 0.1, 0), "class 'b' has 1 training image"),
    ],
)
def test_bad_arguments_are_named(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(stub([10, 4]))
