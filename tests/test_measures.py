"""Error, accuracy on mixed labels, calibration; noise and attack in pixel space."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mixlab import Pairs, one_hot
from mixlab.data import load
from mixlab.results import kept
from mixlab.training import measures
from mixlab.training.loop import held_batches, measure_error
from mixlab.training.measures import (
    PixelModel,
    calibration_error,
    error,
    error_under,
    fgsm,
    final_measures,
    map_area,
    mixed_accuracy,
    noisy,
)
from mixlab.training.models import build

DATA = load("shapes", n_train=40, n_test=70)


def test_error_is_the_percentage_of_wrong_rows_and_no_number_is_wrong():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0], [0.0, 9.0]])
    assert error(logits, torch.tensor([0, 1, 1, 1])) == 25.0
    assert error(torch.full((2, 3), float("nan")), torch.tensor([0, 0])) == 100


def test_mixed_accuracy_is_the_weighted_pair_accuracy_and_at_most_the_mean_row_maximum():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(40, 5, generator=generator), torch.randint(5, (40,), generator=generator)
    plan = Pairs(torch.randperm(40, generator=generator), 0.3)
    own, other = 100 - error(logits, labels), 100 - error(logits, labels[plan.partner])
    mixed = mixed_accuracy(logits, plan.mix_labels(one_hot(labels, 5)))
    assert mixed == pytest.approx(0.3 * own + 0.7 * other, abs=1e-4)
    y = torch.tensor([[0.6, 0.4], [0.3, 0.7]])
    assert (mixed_accuracy(y.log(), y), mixed_accuracy(-y.log(), y)) == pytest.approx((65.0, 35.0), abs=1e-4)


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


def test_calibration_error_equals_a_loop_over_bins():
    generator = torch.Generator().manual_seed(1)
    probabilities = (3 * torch.randn(300, 4, generator=generator, dtype=torch.float64)).softmax(1)
    labels = torch.randint(4, (300,), generator=generator)
    for bins in (1, 10, 15):
        expected = reference_calibration_error(probabilities, labels, bins)
        assert expected > 1 and calibration_error(probabilities, labels, bins) == pytest.approx(expected)


def test_calibration_by_hand():
    """Too sure in one bin and too modest in another do not cancel; confidences of one and of one half are counted."""
    probabilities = torch.tensor([[0.9, 0.1]] * 2 + [[0.6, 0.4]] * 2)
    labels = torch.tensor([0, 1, 0, 0])  # right half of the time at 0.9, always at 0.6
    assert calibration_error(probabilities, labels) == pytest.approx(50 * 0.4 + 50 * 0.4)
    sure = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert [calibration_error(sure, torch.tensor(y)) for y in ([0, 0], [0, 1], [1, 1])] == pytest.approx([0, 50, 100])
    assert calibration_error(torch.full((4, 2), 0.5), torch.tensor([0, 0, 1, 1]), bins=2) == pytest.approx(0)


def test_bad_input_is_refused_by_name():
    two, half = torch.zeros(2, 3), torch.tensor([[0.5, 0.4]])
    wrong = (torch.zeros(2, 1).long(), torch.zeros(2), torch.zeros(2).bool(), torch.zeros(1).long())
    calls = [("labels", error, (two, labels)) for labels in (*wrong, torch.full((2,), 3))]
    calls += [("labels", error, (torch.zeros(0, 3), torch.zeros(0).long())), (r"\by\b", mixed_accuracy, (two, half))]
    calls += [(r"\by\b", mixed_accuracy, (torch.zeros(1, 2), half))]
    calls += [(r"\by\b", calibration_error, (torch.tensor([[3.0, 1.0]]), torch.tensor([0])))]
    calls += [("bins", calibration_error, (torch.tensor([[1.0, 0.0]]), torch.tensor([0]), 0))]
    calls += [("eps", fgsm, (nn.Linear(2, 2), torch.zeros(1, 2), torch.tensor([0]), e)) for e in (-0.1, float("nan"))]
    for name, call, arguments in calls:
        with pytest.raises(ValueError, match=name):
            call(*arguments)
    with pytest.raises(TypeError, match="x"):
        noisy(DATA.test_x, 0.1, np.random.default_rng(0))


def test_normalisation_sits_inside_the_model():
    net = build("lenet", 10, seed=0).eval()
    expected = measure_error(net, held_batches(DATA, torch.device("cpu")))
    assert error_under(net, DATA, lambda model, x, labels: x, 32) == pytest.approx(expected)
    seen = []
    error_under(net, DATA, lambda model, x, labels: seen.append(x) or x)
    assert torch.equal((255 * torch.cat(seen)).round().byte(), DATA.test_x), "attacks live in pixels"


def test_fgsm_of_a_linear_model_is_its_weights_sign_kept_in_range():
    """For two classes the loss rises along w_other - w_own, whatever the point."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    x, labels = torch.rand(5, 3, 2, 2), torch.tensor([0, 1, 0, 1, 1])
    weight = net[1].weight.detach()
    uphill = torch.stack([weight[1 - label] - weight[label] for label in labels]).sign().view_as(x)
    assert torch.allclose(fgsm(net, x, labels, 0.1), (x + 0.1 * uphill).clamp(0, 1), atol=1e-6)
    assert torch.equal(fgsm(net, x, labels, 0.0), x)
    assert net[1].weight.grad is None, "the attack left gradients behind"


def test_the_map_of_a_network_that_looks_at_one_corner_covers_that_corner():
    """Two feature maps: the first is on in a quarter of the picture and speaks for class 0, the second is flat."""
    net, black = build("quick_resnet", 10, seed=0), torch.zeros(6, 3, 32, 32, dtype=torch.uint8)
    data = replace(DATA, test_x=black, test_y=torch.tensor([0, 0, 1, 0, 0, 1]))
    maps = torch.zeros(1, net.head.in_features, 32, 32)
    maps[:, 0, :16, :16], maps[:, 1] = 3.0, 1.0
    net.hidden = lambda x, stage: maps.expand(len(x), -1, -1, -1)
    nn.init.zeros_(net.head.weight), nn.init.zeros_(net.head.bias)
    net.head.weight.data[0, 0] = net.head.weight.data[1, 1] = 1.0
    assert map_area(net, data) == pytest.approx(100), "1 beats 3/4: what is rightly called 1 is looked at everywhere"
    net.head.weight.data[1, 1] = 0.5
    assert map_area(net, data) == pytest.approx(25), "3/4 beats 1/2: the corner"


def test_attacks_through_another_network_are_made_on_that_network():
    own, other = (build("quick_resnet", 10, seed=seed).eval() for seed in (0, 1))
    found, eps = kept.measure(own, DATA, other), 16 / 255
    attacked = PixelModel(other, DATA).eval()
    through = error_under(own, DATA, lambda net, x, y: fgsm(attacked, x, y, eps))
    direct = error_under(own, DATA, lambda net, x, y: fgsm(net, x, y, eps))
    assert found["through_16"] == pytest.approx(through, abs=1e-3) and abs(through - direct) > 1


def test_noise_has_its_size_and_its_generator():
    x = torch.zeros(20_000, 1)
    drawn = noisy(x, 0.1, np.random.default_rng(0))
    assert drawn.std().item() == pytest.approx(0.1, rel=0.03)
    assert torch.equal(drawn, noisy(x, 0.1, np.random.default_rng(0)))
    assert not torch.equal(drawn, noisy(x, 0.1, np.random.default_rng(1)))


def test_the_measures_of_a_final_network_say_what_the_single_ones_say(monkeypatch):
    net = build("lenet", 10, seed=0).eval()
    found, again = (final_measures(net, DATA, images=35) for _ in range(2))
    assert found == again, "the same noise for every network"
    assert found["images"] == 35 and final_measures(net, DATA)["images"] == 70
    rows = torch.linspace(0, 69, 35).round().long()
    some = replace(DATA, test_x=DATA.test_x[rows], test_y=DATA.test_y[rows])
    rng = np.random.default_rng(0)
    assert found["error"] == pytest.approx(error_under(net, some, lambda model, x, labels: x), abs=1e-3)
    noise = error_under(net, some, lambda model, x, labels: noisy(x, 8 / 255, rng))
    attack = error_under(net, some, lambda model, x, labels: fgsm(model, x, labels, 8 / 255))
    assert (found["noise_8"], found["fgsm_8"]) == pytest.approx((noise, attack), abs=1e-3)
    pixels = (some.test_x.float() / 255 - DATA.mean.view(-1, 1, 1)) / DATA.std.view(-1, 1, 1)
    calibration = calibration_error(net(pixels).detach().softmax(1), some.test_y)
    assert found["calibration_error"] == pytest.approx(calibration, abs=1e-2)
    strengths = []  # of 255, as in the papers' tables
    monkeypatch.setattr(measures, "noisy", lambda x, eps, rng: strengths.append(255 * eps) or x)
    monkeypatch.setattr(measures, "fgsm", lambda net, x, labels, eps: strengths.append(255 * eps) or x)
    final_measures(net, DATA)
    assert strengths == pytest.approx([8, 10, 12, 14, 0.5, 1, 2, 4, 8, 16])
