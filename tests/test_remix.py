"""Remix: the rule as printed, inputs by lam and labels by lam_y, mixup as a limit, counts told or counted."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mixlab import LabelSmoothing, Pairs, Remix, Split, one_hot, soft_cross_entropy
from mixlab.remix import remix_lambda
from mixlab.training.models import build

COUNTS = [90, 9, 30]


def images(n=6):
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(n) % 3


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
    assert remix_lambda(lam, own, partner, 3.0, 0.5).tolist() == pytest.approx([0.0, 0.5, 1.0, 0.4, 0.4])
    swapped = remix_lambda(1 - lam, partner, own, 3.0, 0.5)
    assert torch.allclose(1 - swapped, remix_lambda(lam, own, partner, 3.0, 0.5))


def test_inputs_mix_by_lam_and_labels_by_lam_y():
    x, labels = images(600)
    plan = Remix(1.0, COUNTS, rng=0).draw(x, labels)
    assert type(plan) is Split and torch.equal(plan.partner, plan.inputs.partner)
    sizes, lam = torch.tensor(COUNTS)[labels], plan.inputs.lam
    lam_y = remix_lambda(lam, sizes, sizes[plan.partner], 3.0, 0.5)
    assert torch.equal(plan.label_plan.lam, lam_y) and (lam != lam_y).float().mean() > 0.2
    assert torch.equal(plan.mix(x), Pairs(plan.partner, lam).mix(x))
    y = plan.mix_labels(one_hot(labels, 3))
    assert torch.equal(y, Pairs(plan.partner, lam_y).mix(one_hot(labels, 3)))
    assert torch.allclose(plan.matrix() @ one_hot(labels, 3).double(), y.double())
    assert (lam_y <= lam)[sizes > sizes[plan.partner]].all() and (lam_y >= lam)[sizes < sizes[plan.partner]].all()


@pytest.mark.parametrize("parameters", [{"kappa": 1e9}, {"tau": 0.0}, {"counts": [7, 7, 7]}], ids=str)
def test_it_becomes_mixup(parameters):
    """At kappa without bound, at tau = 0, at equal counts."""
    x, labels = images()
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    remix = Remix(**{"alpha": 1.0, "counts": COUNTS, **parameters}, rng=5)
    draws = np.random.default_rng(5)  # Remix draws partners first, mixup lam first: the same pairs by hand
    plan = Pairs(draws.permutation(6), draws.beta(1.0, 1.0, 6))
    by_hand = soft_cross_entropy(net(plan.mix(x)), plan.mix_labels(one_hot(labels, 3).double()).float())
    assert torch.allclose(remix.loss(net, x, labels), by_hand, atol=1e-6)
    assert not torch.allclose(Remix(1.0, COUNTS, rng=5).loss(net, x, labels), by_hand, atol=1e-6)


def test_it_counts_the_training_set_if_it_is_not_told():
    x, labels = images(12)
    train_y = torch.tensor([0] * 90 + [1] * 9 + [2] * 30)
    told, counting = Remix(1.0, [90, 9, 30, 0], rng=0), LabelSmoothing(0.0, Remix(1.0, rng=0))
    counting.prepare(build("quick_resnet", 4), train_y)
    assert torch.equal(told.draw(x, labels).label_plan.lam, counting.draw(x, labels).label_plan.lam)
    student = Remix(1.0, rng=0)
    student.prepare(nn.Sequential(nn.Linear(2, 3)), train_y.to(torch.uint8))  # no `head`
    assert student.sizes.tolist() == COUNTS and student.counts is None


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32])
def test_labels_of_any_whole_type_are_indices(dtype):
    """uint8 once selected like a mask."""
    x, labels = images(12)
    plans = [Remix(1.0, COUNTS, rng=0).draw(x, given) for given in (labels, labels.to(dtype))]
    assert torch.equal(plans[0].label_plan.lam, plans[1].label_plan.lam)


def test_what_makes_no_sense_is_refused_by_name():
    for name, value in (
        *(("kappa", value) for value in (1.0, float("inf"), "3", None)),
        *(("tau", value) for value in (1.5, -0.1, [0.5], "x")),
        *(("alpha", value) for value in (-1.0, float("nan"), None)),
        *(("counts", value) for value in ([-1, 2], [float("nan"), 1], ["a", "b"], [])),
    ):
        with pytest.raises(ValueError, match=f"^{name} "):
            Remix(**{"alpha": 1.0, "counts": [1, 1, 1], name: value})
    x, labels = images()
    for wrong in (labels + 1, labels - 1, labels > 0, one_hot(labels, 3), labels.float()):
        with pytest.raises(ValueError, match=r"^labels "):
            Remix(1.0, COUNTS).draw(x, wrong)
    with pytest.raises(ValueError, match=r"^counts "):
        Remix(1.0, [5, 5, 5, 5]).prepare(build("quick_resnet", 3))
    with pytest.raises(ValueError, match=r"^counts .*prepare"):
        Remix(1.0).draw(x, labels)
