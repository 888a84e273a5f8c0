"""Error, accuracy on mixed labels, calibration; noise and attack in pixel space."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mixlab import Pairs, one_hot
from mixlab.data import load
from mixlab.training.loop import held_batches, measure_error
from mixlab.training.measures import (
    PixelModel,
    calibration_error,
    error,
    error_under,
    fgsm,
    final_measures,
    mixed_accuracy,
    noisy,
)
from mixlab.training.models import build

DATA = load("shapes", n_train=40, n_test=70)


def test_error_in_percent():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0], [0.0, 9.0]])
    assert error(logits, torch.tensor([0, 1, 1, 1])) == 25.0


def test_mixed_accuracy_is_the_weighted_pair_accuracy():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(40, 5, generator=generator), torch.randint(5, (40,), generator=generator)
    plan = Pairs(torch.randperm(40, generator=generator), 0.3)
    own, other = 100 - error(logits, labels), 100 - error(logits, labels[plan.partner])
    mixed = mixed_accuracy(logits, plan.mix_labels(one_hot(labels, 5)))
    assert mixed == pytest.approx(0.3 * own + 0.7 * other, abs=1e-4)
    assert mixed_accuracy(logits, one_hot(labels, 5)) == pytest.approx(own)


def test_no_predictor_beats_the_mean_row_maximum():
    y = torch.tensor([[0.6, 0.4], [0.3, 0.7]])
    assert mixed_accuracy(y.log(), y) == pytest.approx(65.0, abs=1e-4)
    assert mixed_accuracy(-y.log(), y) == pytest.approx(35.0, abs=1e-4)


def reference_calibration_error(probabilities, labels, bins):
    total = 0.0
    for b in range(bins):
        inside = []
        for row, label in zip(probabilities.tolist(), labels.tolist(), strict=True):
            confidence = max(row)
            if min(int(confidence * bins), bins - 1) == b:
                inside.append((confidence, row.index(confidence) == label))
        if inside:
            gap = sum(c for c, _ in inside) / len(inside) - sum(r for _, r in inside) / len(inside)
            total += len(inside) / len(labels) * abs(gap)
    return 100 * total


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_error_equals_a_loop_over_bins(bins):
    generator = torch.Generator().manual_seed(1)
    probabilities = (3 * torch.randn(300, 4, generator=generator, dtype=torch.float64)).softmax(1)
    labels = torch.randint(4, (300,), generator=generator)
    expected = reference_calibration_error(probabilities, labels, bins)
    assert expected > 1 and calibration_error(probabilities, labels, bins) == pytest.approx(expected)


def test_too_sure_in_one_bin_and_too_modest_in_another_do_not_cancel():
    probabilities = torch.tensor([[0.9, 0.1]] * 2 + [[0.6, 0.4]] * 2)
    labels = torch.tensor([0, 1, 0, 0])  # right half of the time at 0.9, always at 0.6
    assert calibration_error(probabilities, labels) == pytest.approx(50 * 0.4 + 50 * 0.4)


def test_calibration_counts_confidence_one_and_one_half():
    sure = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert calibration_error(sure, torch.tensor([0, 0])) == 0
    assert calibration_error(sure, torch.tensor([0, 1])) == pytest.approx(50)
    assert calibration_error(sure, torch.tensor([1, 1])) == pytest.approx(100)
    assert calibration_error(torch.full((4, 2), 0.5), torch.tensor([0, 0, 1, 1]), bins=2) == pytest.approx(0)


def test_scores_that_are_no_numbers_are_wrong():
    assert error(torch.full((2, 3), float("nan")), torch.tensor([0, 0])) == 100


def test_bad_input_is_refused_by_name():
    for labels in (torch.zeros(1).long(), torch.zeros(2, 1).long(), torch.zeros(2), torch.zeros(2).bool()):
        with pytest.raises(ValueError, match="labels"):
            error(torch.zeros(2, 3), labels)
    with pytest.raises(ValueError, match="y must have the shape"):
        mixed_accuracy(torch.zeros(1, 2), torch.tensor([[0.0, 0.0, 1.0]]))
    with pytest.raises(ValueError, match="logits must be"):
        error(torch.zeros(0, 3), torch.zeros(0))
    with pytest.raises(ValueError, match="sum to one"):
        mixed_accuracy(torch.zeros(1, 2), torch.tensor([[0.5, 0.4]]))
    with pytest.raises(ValueError, match="sum to one"):
        calibration_error(torch.tensor([[3.0, 1.0]]), torch.tensor([0]))
    with pytest.raises(ValueError, match="bins"):
        calibration_error(torch.tensor([[1.0, 0.0]]), torch.tensor([0]), bins=0)


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


def test_bad_perturbations_are_refused_by_name():
    with pytest.raises(TypeError, match="convert to float first"):
        noisy(DATA.test_x, 0.1, np.random.default_rng(0))
    for eps in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="eps must be a number >= 0"):
            fgsm(nn.Linear(2, 2), torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), eps)


def test_the_measures_of_a_final_network_say_what_the_single_ones_say():
    net = build("lenet", 10, seed=0).eval()
    found, again = (final_measures(net, DATA, images=35) for _ in range(2))
    assert found == again, "the same noise for every network"
    some = replace(DATA, test_x=DATA.test_x[::2], test_y=DATA.test_y[::2])
    assert final_measures(net, DATA, images=70)["images"] == 70 == final_measures(net, DATA)["images"]
    attack = error_under(net, some, lambda model, x, labels: fgsm(model, x, labels, 8 / 255))
    assert found["images"] == 35 and found["fgsm_8"] == pytest.approx(attack, abs=3)
    assert found["fgsm_16"] >= found["error"] - 3 and found["calibration_error"] >= 0
