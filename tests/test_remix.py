"""Remix: the rule as printed, inputs by lam and labels by lam_y, mixup as a limit, counts told or counted."""

import numpy as np
import torch
from examples import images, refuses
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mixlab import LabelSmoothing, Pairs, Remix, one_hot
from mixlab.remix import remix_lambda
from mixlab.training.models import build

COUNTS = [90, 9, 30]


@given(st.floats(0, 1), st.integers(0, 50), st.integers(1, 50), st.sampled_from([1.5, 2.0, 3.0]), st.floats(0, 1))
def test_remix_lambda_is_the_rule_with_ratios(lam, own, partner, kappa, tau):
    """Written with divisions, as it is printed; own may be an empty class."""
    ratio, expected = own / partner, lam
    if ratio >= kappa and lam < tau:
        expected = 0.0
    elif ratio <= 1 / kappa and 1 - lam < tau:
        expected = 1.0
    number = torch.tensor([lam], dtype=torch.float64)
    assert remix_lambda(number, own, partner, kappa, tau).item() == expected


def test_remix_lambda_at_its_edges():
    lam = torch.tensor([0.4, 0.5, 0.6, 0.4, 0.4])
    own, partner = torch.tensor([30, 30, 10, 29, 0]), torch.tensor([10, 10, 30, 10, 0])
    assert torch.equal(remix_lambda(lam, own, partner, 3.0, 0.5), torch.tensor([0.0, 0.5, 1.0, 0.4, 0.4]))
    swapped = remix_lambda(1 - lam, partner, own, 3.0, 0.5)
    assert torch.allclose(1 - swapped, remix_lambda(lam, own, partner, 3.0, 0.5))


def test_inputs_mix_by_lam_and_labels_by_lam_y():
    x, labels = images(600, 2)
    plan = Remix(1.0, COUNTS, rng=0).draw(x, labels)
    draws = np.random.default_rng(0)  # the partners first, then lam
    partner, lam = torch.from_numpy(draws.permutation(600)), torch.from_numpy(draws.beta(1.0, 1.0, 600)).float()
    sizes = torch.tensor(COUNTS)[labels]
    lam_y = remix_lambda(lam, sizes, sizes[partner], 3.0, 0.5)
    assert torch.equal(plan.mix(x), Pairs(partner, lam).mix(x)) and (lam != lam_y).float().mean() > 0.2
    assert torch.equal(plan.mix_labels(one_hot(labels, 3)), Pairs(partner, lam_y).mix(one_hot(labels, 3)))
    assert (lam_y <= lam)[sizes > sizes[partner]].all() and (lam_y >= lam)[sizes < sizes[partner]].all()


def test_it_becomes_mixup_at_large_kappa_or_no_tau_or_equal_counts():
    x, labels = images(60, 2)
    for parameters in ({"kappa": 1e9}, {"tau": 0.0}, {"counts": [7, 7, 7]}):
        plan = Remix(**{"alpha": 1.0, "counts": COUNTS, **parameters}, rng=5).draw(x, labels)
        assert torch.equal(plan.label_plan.lam, plan.inputs.lam), parameters


def test_it_counts_the_training_set_if_it_is_not_told():
    (x, labels), train_y = images(12), torch.tensor([0] * 90 + [1] * 9 + [2] * 30)
    told, counting = Remix(1.0, [90, 9, 30, 0], rng=0), LabelSmoothing(0.0, Remix(1.0, rng=0))
    counting.prepare(build("quick_resnet", 4), train_y)
    assert torch.equal(told.draw(x, labels).label_plan.lam, counting.draw(x, labels).label_plan.lam)
    student = Remix(1.0, rng=0)
    student.prepare(nn.Sequential(nn.Linear(2, 3)), train_y.to(torch.uint8))  # no `head`
    assert student.sizes.tolist() == COUNTS and student.counts is None


def test_labels_of_any_whole_type_are_indices():
    """uint8 once selected like a mask."""
    x, labels = images(12)
    expected = Remix(1.0, COUNTS, rng=0).draw(x, labels).label_plan.lam
    for dtype in (torch.uint8, torch.int8, torch.int32):
        assert torch.equal(Remix(1.0, COUNTS, rng=0).draw(x, labels.to(dtype)).label_plan.lam, expected)


def test_what_makes_no_sense_is_refused_by_name():
    x, labels = images()
    wrong = labels + 1, labels - 1, labels > 0, one_hot(labels, 3), labels.float()
    refuses(lambda labels: Remix(1.0, COUNTS).draw(x, labels), "labels", *wrong)
    refuses(lambda counts: Remix(1.0, counts), "counts", [-1, 2], [float("nan"), 1], ["a", "b"])
    refuses(lambda counts: Remix(1.0, counts).prepare(build("quick_resnet", 3)), "counts", [5, 5, 5, 5])
    refuses(lambda counts: Remix(1.0, counts).draw(x, labels), "counts", None)  # and it was not prepared
