"""Subsets: so many of each class, nested, named for what they are."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from mixlab.data import subsets


@dataclass
class Stub:
    """A set whose pixels say which image it is."""

    train_y: torch.Tensor
    classes: tuple
    name: str = "set"
    train_x: torch.Tensor = None
    test_x: torch.Tensor = field(default_factory=lambda: torch.arange(3))
    test_y: torch.Tensor = field(default_factory=lambda: torch.arange(3))

    def __post_init__(self):
        self.train_x = torch.arange(len(self.train_y)) if self.train_x is None else self.train_x


def stub(*counts):
    labels = torch.from_numpy(np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts)))
    return Stub(labels, tuple("abcdefghij"[: len(counts)]))


def assert_part(part, data, counts, name):
    """So many distinct images of each class, each with its own label; the test set untouched."""
    assert part.train_y.bincount(minlength=len(data.classes)).tolist() == counts and part.name == f"set ({name})"
    assert len(part.train_x.unique()) == len(part.train_x) and data.train_y[part.train_x].equal(part.train_y)
    assert part.test_x is data.test_x


def test_so_many_of_each_class():
    data = stub(100, 60, 50, 3)
    assert_part(subsets.fraction(data, 0.5, 0), data, [50, 30, 25, 2], "50%")
    assert_part(subsets.fraction(data, 0.1, 0), data, [10, 6, 5, 1], "10%")
    assert_part(subsets.per_class(data, 3, 0), data, [3, 3, 3, 3], "3 per class")
    few = stub(100, 20, 90)
    assert_part(subsets.long_tailed(few, 0.25, 0), few, [100, 20, 25], "LT 0.25")  # a class keeps what it has
    few = stub(10, 10, 10)
    assert_part(subsets.long_tailed(few, 0.01, 0), few, [10, 1, 1], "LT 0.01")  # and never nothing
    assert_part(subsets.long_tailed(few, 1, 0), few, [10, 10, 10], "LT 1")


def test_a_long_tail_has_the_size_of_the_published_ones():
    for classes, ratio, total in ((10, 0.01, 12_406), (10, 0.1, 20_431), (100, 0.01, 10_847)):
        data = Stub(torch.arange(50_000) % classes, tuple(range(classes)))
        counts = subsets.long_tailed(data, ratio, 0).train_y.bincount().tolist()
        assert sum(counts) == total and counts == sorted(counts, reverse=True)


def test_smaller_subsets_of_one_seed_lie_inside_larger_ones_and_seeds_differ():
    data = stub(100, 80)
    tenth, half = (set(subsets.fraction(data, share, 7).train_x.tolist()) for share in (0.1, 0.5))
    assert tenth < half != set(subsets.fraction(data, 0.5, 8).train_x.tolist())
    assert half == set(subsets.fraction(data, 0.5, np.random.default_rng(7)).train_x.tolist())


def test_a_held_out_split_is_disjoint_stratified_and_hides_the_test_set():
    data = stub(100, 60, 10)
    split = subsets.hold_out(data, 0.1, 0)
    assert split.test_y.bincount().tolist() == [10, 6, 1] and split.train_y.bincount().tolist() == [90, 54, 9]
    assert torch.cat([split.train_x, split.test_x]).sort().values.equal(data.train_x)
    assert data.train_y[split.test_x].equal(split.test_y) and split.name == "set (10% held out)"
    assert subsets.hold_out(stub(10, 2), 0.9, 0).train_y.bincount().tolist() == [1, 1]  # never to the last image


def test_every_member_of_a_class_is_picked_equally_often():
    labels = np.array([0] * 6 + [1] * 3)
    picks = np.bincount(np.concatenate([subsets.pick(labels, [2, 1], seed) for seed in range(3000)]), minlength=9)
    assert abs(picks - 1000).max() < 110  # s.d. 26


def test_the_first_classes_alone_and_labels_at_random():
    data = stub(100, 60, 50)
    part = subsets.first_classes(data, 2)
    assert part.train_y.bincount().tolist() == [100, 60] and part.test_y.tolist() == [0, 1] and len(part.classes) == 2
    assert data.train_y[part.train_x].equal(part.train_y) and part.name == "set (2 classes)"
    noisy = subsets.random_labels(data, 0.6, 0)
    assert noisy.train_x.equal(data.train_x) and noisy.test_y is data.test_y and "60%" in noisy.name
    assert 0.3 < (noisy.train_y != data.train_y).double().mean() < 0.5  # two in three of 0.6


def test_bad_arguments_are_named():
    data = stub(10, 4)
    for argument, change, value in (
        ("share", subsets.fraction, 25),
        ("share", subsets.random_labels, 0),
        ("count", subsets.per_class, 5),
        ("count", subsets.first_classes, 3),
        ("ratio", subsets.long_tailed, 100),
        ("share", subsets.hold_out, 1),
    ):
        with pytest.raises(ValueError, match=argument):
            change(data, value, 0)
    with pytest.raises(ValueError, match="'b'"):
        subsets.hold_out(stub(8, 1), 0.1, 0)
