"""ERM, mixup, label smoothing: what they draw and what it comes to."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision.transforms import v2

from mixlab import ERM, LabelSmoothing, Mixup, Pairs, draw_lambda, one_hot, soft_cross_entropy

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))]


def batch(n=8, classes=3):
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, 4, generator=generator), torch.arange(n) % classes


@pytest.mark.parametrize("device", [*DEVICES, "meta"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_draws_do_not_depend_on_device_or_dtype(device, dtype):
    """The generator lives on the CPU; on the meta device, which has no values, its state shows that it went as far."""
    x, labels = batch()
    here, there = Mixup(0.7, per_sample=True, rng=5), Mixup(0.7, per_sample=True, rng=5)
    plan, moved = here.draw(x, labels), there.draw(x.to(device, dtype), labels.to(device))
    assert moved.partner.device.type == device and here.get_extra_state() == there.get_extra_state()
    if device != "meta":
        assert torch.equal(plan.partner, moved.partner.cpu()) and torch.equal(plan.lam, moved.lam.cpu())


def test_mixup_draws_a_permutation_and_one_lam_or_one_per_row():
    x, labels = batch(9)
    plan = Mixup(1.0, rng=0).draw(x, labels)
    assert sorted(plan.partner.tolist()) == list(range(9)) and isinstance(plan.lam, float)
    plan = Mixup(1.0, per_sample=True, rng=0).draw(x, labels)
    assert plan.lam.shape == (9,) and len(set(plan.lam.tolist())) == 9


@given(st.integers(1, 33), st.booleans())
def test_alpha_zero_mixes_nothing_at_any_batch_size(n, per_sample):
    x, labels = batch(n)
    mixed, y = Mixup(0.0, per_sample=per_sample, rng=0)(x, labels, 3)
    assert torch.equal(mixed, x) and torch.equal(y, one_hot(labels, 3))


def test_torchvision_agrees_at_its_own_pairing():
    """torchvision pairs row i with row i - 1 and draws one lam for the batch; its lam is read back from the labels."""
    x, labels = torch.rand(6, 3, 8, 8), torch.arange(6)
    torch.manual_seed(0)
    theirs, their_y = v2.MixUp(alpha=1.0, num_classes=6)(x, labels)
    plan = Pairs((torch.arange(6) - 1) % 6, their_y[0, 0])
    assert torch.allclose(plan.mix(x), theirs, atol=1e-6)
    assert torch.allclose(plan.mix_labels(one_hot(labels, 6)), their_y, atol=1e-6)


@pytest.mark.parametrize("alpha", [1e-4, 0.2, 1.0, 32.0])
def test_lambda_has_the_moments_of_beta(alpha):
    """E = 1/2, var = 1/(4(2 alpha + 1)): at alpha = 1e-4 a sampler that underflows gives 1/2 in place of 0 or 1."""
    lam = draw_lambda(np.random.default_rng(0), alpha, 40_000).double()
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(lam.mean() - 0.5) < 5 * (variance / 40_000) ** 0.5
    assert abs(lam.var() / variance - 1) < 0.05


def test_mixing_labels_equals_mixing_losses_for_cross_entropy():
    logits, labels = torch.randn(8, 3, dtype=torch.float64), torch.arange(8) % 3
    plan = Pairs(torch.arange(7, -1, -1), 0.3)
    mixed = soft_cross_entropy(logits, plan.mix_labels(one_hot(labels, 3).double()))
    own, other = nn.functional.cross_entropy(logits, labels), nn.functional.cross_entropy(logits, labels[plan.partner])
    assert torch.allclose(mixed, 0.3 * own + 0.7 * other)


def test_erm_is_plain_cross_entropy():
    x, labels = batch()
    net = nn.Linear(4, 3)
    assert torch.allclose(ERM().loss(net, x, labels), nn.functional.cross_entropy(net(x), labels))
    assert torch.equal(ERM().draw(x, labels).matrix(), torch.eye(8, dtype=torch.float64))


@pytest.mark.parametrize("eps", [0.0, 0.1, 1.0])
def test_label_smoothing_is_torchs_and_commutes_with_mixing(eps):
    x, labels = batch()
    net = nn.Linear(4, 3)
    torchs = nn.functional.cross_entropy(net(x), labels, label_smoothing=eps)
    assert torch.allclose(LabelSmoothing(eps).loss(net, x, labels), torchs)
    plan = Mixup(1.0, rng=1).draw(x, labels)
    first_smoothed = plan.mix_labels((1 - eps) * one_hot(labels, 3) + eps / 3)
    assert torch.allclose(LabelSmoothing(eps, Mixup(1.0)).targets(plan, labels, 3), first_smoothed)
