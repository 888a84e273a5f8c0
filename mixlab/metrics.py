"""How good a network is: error, accuracy on mixed labels, calibration. Numbers come back as Python floats."""

import torch
from torch import Tensor

from mixlab.plans import check_soft_labels


def error(logits: Tensor, labels: Tensor) -> float:
    """Percent of rows of logits (n, c) whose largest entry is not at labels (n,)."""
    _check_lengths(logits, labels)
    return 100 * float((logits.argmax(1) != labels).double().mean())


def mixed_accuracy(logits: Tensor, y: Tensor) -> float:
    """Percent of the label mass that the predicted classes carry: the mean over rows of y[i, argmax logits_i].

    With plain labels this is accuracy. With a mix of two samples it is lam times "right about the one" plus 1 - lam
    times "right about the other", so no predictor can reach more than the mean of y's row maxima.
    """
    _check_lengths(logits, y)
    check_soft_labels(y, len(logits))
    return 100 * float(y.gather(1, logits.argmax(1, keepdim=True)).double().mean())


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Expected calibration error in percent: the mean gap between confidence and accuracy over equal-width bins.

    probabilities (n, c) with rows that sum to one. A confidence on an edge belongs to the bin above it, and 1 to the
    last bin, so that 0 and 1 are both counted.
    """
    _check_lengths(probabilities, labels)
    check_soft_labels(probabilities, len(labels))
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}")
    confidence, predicted = probabilities.double().max(1)
    gap = confidence - (predicted == labels).double()
    where = (confidence * bins).long().clamp(0, bins - 1)
    per_bin = torch.zeros(bins, dtype=torch.float64, device=gap.device).index_add_(0, where, gap)
    return 100 * float(per_bin.abs().sum()) / len(labels)


def _check_lengths(logits: Tensor, labels: Tensor) -> None:
    if logits.dim() != 2 or len(logits) == 0:
        raise ValueError(f"logits must be (n, c) with n >= 1, not {tuple(logits.shape)}")
    if len(labels) != len(logits):
        raise ValueError(f"labels has {len(labels)} rows, logits {len(logits)}")
