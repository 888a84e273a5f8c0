"""ERM, mixup, label smoothing: what they draw and what it comes to."""

import numpy as np
import torch
from examples import batch
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import v2

from mixlab import ERM, LabelSmoothing, Mixup, Pairs, draw_lambda, one_hot


def test_mixup_draws_a_permutation_and_one_lam_or_one_per_row():
    plan = Mixup(1.0, rng=0).draw(*batch(9))
    assert sorted(plan.partner.tolist()) == list(range(9)) and isinstance(plan.lam, float)
    plan = Mixup(1.0, per_sample=True, rng=0).draw(*batch(9))
    assert plan.lam.shape == (9,) and len(set(plan.lam.tolist())) == 9


def test_torchvision_agrees_at_its_own_pairing():
    """torchvision pairs row i with row i - 1 and draws one lam for the batch; its lam is read back from the labels."""
    x, labels = torch.rand(6, 3, 8, 8), torch.arange(6)
    torch.manual_seed(0)
    theirs, their_y = v2.MixUp(alpha=1.0, num_classes=6)(x, labels)
    plan = Pairs((torch.arange(6) - 1) % 6, their_y[0, 0])
    assert torch.allclose(plan.mix(x), theirs, atol=1e-6)
    assert torch.allclose(plan.mix_labels(one_hot(labels, 6)), their_y, atol=1e-6)


def test_lambda_has_the_moments_of_beta():
    """E = 1/2, var = 1/(4(2 alpha + 1)): at alpha = 1e-4 a sampler that underflows gives 1/2 in place of 0 or 1."""
    for alpha in (1e-4, 1.0, 32.0):
        lam = draw_lambda(np.random.default_rng(0), alpha, 40_000).double()
        variance = 1 / (4 * (2 * alpha + 1))
        assert abs(lam.mean() - 0.5) < 5 * (variance / 40_000) ** 0.5 and abs(lam.var() / variance - 1) < 0.05, alpha


def test_erm_is_plain_cross_entropy():
    (x, labels), net = batch(), nn.Linear(4, 3)
    assert torch.allclose(ERM().loss(net, x, labels), F.cross_entropy(net(x), labels))
    assert torch.equal(ERM().draw(x, labels).matrix(), torch.eye(8, dtype=torch.float64))


def test_label_smoothing_is_torchs_and_commutes_with_mixing():
    (x, labels), net = batch(), nn.Linear(4, 3)
    plan = Mixup(1.0, rng=1).draw(x, labels)
    for eps in (0.0, 0.1, 1.0):
        torchs = F.cross_entropy(net(x), labels, label_smoothing=eps)
        assert torch.allclose(LabelSmoothing(eps).loss(net, x, labels), torchs)
        first_smoothed = plan.mix_labels((1 - eps) * one_hot(labels, 3) + eps / 3)
        assert torch.allclose(LabelSmoothing(eps, Mixup(1.0)).targets(plan, labels, 3), first_smoothed)
