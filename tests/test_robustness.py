"""Noise and attack in pixel space."""

import numpy as np
import pytest
import torch
from torch import nn

from mixlab.data.sets import load
from mixlab.training.loop import held_batches, measure_error
from mixlab.training.measures import PixelModel, error_under, fgsm, noisy
from mixlab.training.models import build

DATA = load("shapes", n_train=40, n_test=70)


def test_normalisation_sits_inside_the_model():
    net = build("lenet", 10, seed=0).eval()
    x = DATA.test_x.float() / 255
    assert torch.allclose(PixelModel(net, DATA)(x), net((x - DATA.mean.view(-1, 1, 1)) / DATA.std.view(-1, 1, 1)))
    expected = measure_error(net, held_batches(DATA, torch.device("cpu")))
    assert error_under(net, DATA, lambda model, x, labels: x, 32) == pytest.approx(expected)


def test_fgsm_of_a_linear_model_is_its_weights_sign():
    """For two classes the loss rises along w_other - w_own, whatever the point."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    x, labels = 0.2 + 0.6 * torch.rand(5, 3, 2, 2), torch.tensor([0, 1, 0, 1, 1])
    weight = net[1].weight.detach()
    uphill = torch.stack([weight[1 - label] - weight[label] for label in labels]).sign().view_as(x)
    assert torch.allclose(fgsm(net, x, labels, 0.1), x + 0.1 * uphill, atol=1e-6)
    assert torch.equal(fgsm(net, x, labels, 0.0), x)
    assert net[1].weight.grad is None, "the attack left gradients behind"


def test_fgsm_stays_in_range_and_hurts_more_than_noise_of_the_same_size():
    net = build("lenet", 10, seed=0).eval()
    x, labels = DATA.test_x.float() / 255, DATA.test_y
    attacked = fgsm(net, x, labels, 8 / 255)
    assert 0 <= attacked.min() and attacked.max() <= 1 and (attacked - x).abs().max() <= 8 / 255 + 1e-6
    loss = nn.CrossEntropyLoss()
    assert loss(net(attacked), labels) > loss(net(noisy(x, 8 / 255, np.random.default_rng(0))), labels)


def test_noise_has_its_size_and_its_generator():
    x = torch.zeros(20_000, 1)
    drawn = noisy(x, 0.1, np.random.default_rng(0))
    assert drawn.std().item() == pytest.approx(0.1, rel=0.03)
    assert torch.equal(drawn, noisy(x, 0.1, np.random.default_rng(0)))
    assert not torch.equal(drawn, noisy(x, 0.1, np.random.default_rng(1)))


def test_bad_input_is_refused_by_name():
    with pytest.raises(TypeError, match="convert to float first"):
        noisy(DATA.test_x, 0.1, np.random.default_rng(0))
    for eps in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="eps must be a number >= 0"):
            fgsm(nn.Linear(2, 2), torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), eps)
