"""Error, accuracy on mixed labels, calibration."""

import pytest
import torch

from mixlab import Pairs, one_hot
from mixlab.training.measures import calibration_error, error, mixed_accuracy


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


def test_bad_input_is_refused_by_name():
    with pytest.raises(ValueError, match="labels has 1 rows"):
        error(torch.zeros(2, 3), torch.zeros(1))
    with pytest.raises(ValueError, match="logits must be"):
        error(torch.zeros(0, 3), torch.zeros(0))
    with pytest.raises(ValueError, match="sum to one"):
        mixed_accuracy(torch.zeros(1, 2), torch.tensor([[0.5, 0.4]]))
    with pytest.raises(ValueError, match="sum to one"):
        calibration_error(torch.tensor([[3.0, 1.0]]), torch.tensor([0]))
    with pytest.raises(ValueError, match="bins"):
        calibration_error(torch.tensor([[1.0, 0.0]]), torch.tensor([0]), bins=0)
