"""bench: every part runs, and what it calls equal is equal. How fast things are is not a test: machines differ."""

import inspect

import numpy as np
import pytest
import torch

from bench import peers
from bench import speed as bench
from mixlab.confusion import increment
from mixlab.plans import Pairs, one_hot

SMALL = {"rounds": 1, "batch": 32, "images": 256, "epochs": 1, "alone": 1, "batches": (32,), "ks": (2, 16)}


SLOW = ("training", "steps")


@pytest.mark.parametrize("name", [pytest.param(p, marks=[pytest.mark.slow] * (p in SLOW)) for p in bench.PARTS])
def test_every_part_runs(name, capsys):
    part = bench.PARTS[name]
    part(**{word: size for word, size in SMALL.items() if word in inspect.signature(part).parameters})
    said = capsys.readouterr().out
    assert any(character.isdigit() for character in said) and "(differs)" not in said and "nan" not in said


def test_the_loops_it_compares_with_do_the_same_work():
    rng = np.random.default_rng(0)
    labels = torch.arange(30) % 3
    probabilities = torch.from_numpy(rng.dirichlet(np.ones(3), 30)).float()
    y = Pairs(rng.permutation(30), 0.7).mix_labels(one_hot(labels, 3))
    assert torch.allclose(peers.count_one_by_one(probabilities, y).double(), increment(probabilities, y), atol=1e-5)
    partner = peers.pair_as_released(labels, torch.full((3, 3), 1 / 3), rng)
    assert sorted(partner.tolist()) == list(range(30))


def test_an_unknown_part_is_refused_before_anything_is_measured():
    with pytest.raises(ValueError, match="everything"):
        bench.run("everything")
