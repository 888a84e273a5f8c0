"""How good a network is: error, accuracy on mixed labels, calibration; error under noise and under attack.

Numbers come back as Python floats. Noise and attacks live in pixels: images in [0, 1], the normalisation inside the
model, so that a perturbation of 8/255 means the same for every network, however its inputs are normalised.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixlab.checks import check_indices, check_inputs, check_number, check_soft_labels, check_whole
from mixlab.training.device import autocast

NOISE, FGSM = (8, 10, 12, 14), (0.5, 1, 2, 4, 8, 16)  # of 255: k-mixup's tables 6 and 7


def error(logits: Tensor, labels: Tensor) -> float:
    """Percent of rows of logits (n, c) whose largest entry is not at labels (n,); a row with NaN is wrong."""
    _check_labels(logits, labels)
    wrong = (logits.argmax(1) != labels) | logits.isnan().any(1)
    return 100 * float(wrong.double().mean())


def mixed_accuracy(logits: Tensor, y: Tensor) -> float:
    """Percent of the label mass that the predicted classes carry: the mean over rows of y[i, argmax logits_i].

    With plain labels this is accuracy. With a mix of two samples it is lam times "right about the one" plus 1 - lam
    times "right about the other", so no predictor can reach more than the mean of y's row maxima.
    """
    if logits.shape != y.shape:
        raise ValueError(f"y must have the shape of logits, {tuple(logits.shape)}, not {tuple(y.shape)}")
    check_soft_labels(y, len(logits))
    return 100 * float(y.gather(1, logits.argmax(1, keepdim=True)).double().mean())


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Expected calibration error in percent: the mean gap between confidence and accuracy over equal-width bins.

    probabilities (n, c) with rows that sum to one. A confidence on an edge belongs to the bin above it, and 1 to the
    last bin, so that 0 and 1 are both counted.
    """
    _check_labels(probabilities, labels)
    check_soft_labels(probabilities, len(labels))
    check_whole("bins", bins)
    confidence, predicted = probabilities.double().max(1)
    gap = confidence - (predicted == labels).double()
    where = (confidence * bins).long().clamp(0, bins - 1)
    per_bin = torch.zeros(bins, dtype=torch.float64, device=gap.device).index_add_(0, where, gap)
    return 100 * float(per_bin.abs().sum()) / len(labels)


def _check_labels(logits: Tensor, labels: Tensor) -> None:
    """Refuse what is not a row of logits for every label, which is one of its columns."""
    if logits.dim() != 2 or len(check_indices("labels", labels, logits.shape[1])) != len(logits):
        shapes = f"{tuple(logits.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"logits and labels must have shapes (n, c) and (n,), not {shapes}")


class PixelModel(nn.Module):
    """The network with its normalisation in front: takes images (n, channels, h, w) in [0, 1]."""

    def __init__(self, model: nn.Module, data):
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.as_tensor(data.mean).float().view(-1, 1, 1))
        self.register_buffer("std", torch.as_tensor(data.std).float().view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.model((x - self.mean) / self.std)


def noisy(x: Tensor, eps: float, rng: np.random.Generator) -> Tensor:
    """x + eps * Gaussian noise, not clipped: the noise is as strong at the edge of the range as in its middle."""
    check_inputs(x, len(x))
    return x + check_number("eps", eps) * torch.from_numpy(rng.standard_normal(x.shape, dtype=np.float32)).to(x)


def fgsm(model: nn.Module, x: Tensor, labels: Tensor, eps: float) -> Tensor:
    """The fast gradient sign attack: clip(x + eps * sign(gradient of the loss with respect to x), 0, 1)."""
    check_inputs(x, len(x))
    check_number("eps", eps)
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), labels, reduction="sum"), x)
    return (x + eps * gradient.sign()).clamp(0, 1).detach()


def error_under(model: nn.Module, data, attack, batch_size: int = 500) -> float:
    """Percent wrong on the test set after attack(pixel_model, x, labels) has changed the images x in [0, 1]."""
    device = next(model.parameters()).device
    pixels = PixelModel(model, data).to(device).eval()
    logits = []
    for x, labels in zip(data.test_x.split(batch_size), data.test_y.split(batch_size), strict=True):
        x = x.to(device).to(memory_format=torch.channels_last).float() / 255
        changed = attack(pixels, x, labels.to(device))
        with torch.no_grad():
            logits.append(pixels(changed))
    return error(torch.cat(logits).float(), data.test_y.to(device))


@torch.no_grad()
def map_area(model: nn.Module, data, batch_size: int = 500) -> float | None:
    """Percent of the picture on which the map of the true class exceeds half its maximum: where the network looks.

    With h the last feature map (m, u, v) and W the head, the map of class l is sum_m W_lm h_muv; its mean over u, v is
    the score, less the bias (Zhou et al. 2016). The mean over the test images that the network classifies rightly and
    whose map is above zero somewhere; drawn at the size of the images. None if the last stage has no pixels left.
    """
    device, areas = next(model.parameters()).device, []
    pixels = PixelModel(model.eval(), data).to(device)
    for x, labels in zip(data.test_x.split(batch_size), data.test_y.split(batch_size), strict=True):
        x, labels = (x.to(device).float() / 255 - pixels.mean) / pixels.std, labels.to(device)
        features = model.hidden(x, len(model.stages))
        if features.dim() != 4:
            return None
        maps = torch.einsum("lm,nmuv->nluv", model.head.weight, features)
        right = (maps.mean((2, 3)) + model.head.bias).argmax(1) == labels
        own = F.interpolate(maps[right, labels[right], None], size=x.shape[2:], mode="bilinear").flatten(1)
        most = own.amax(1, keepdim=True)
        areas.append((own > most / 2).double().mean(1)[most[:, 0] > 0])
    return 100 * float(torch.cat(areas).mean())


def spread_evenly(data, images: int):
    """The same data with at most so many test images, spread evenly over the test set."""
    rows = torch.linspace(0, len(data.test_y) - 1, min(images, len(data.test_y))).round().long()
    return replace(data, test_x=data.test_x[rows], test_y=data.test_y[rows])


def final_measures(model: nn.Module, data, precision: str = "float32", images: int | None = None) -> dict:
    """What a record says of the final network beyond its error: calibration, Gaussian noise, FGSM.

    In percent, at the strengths (of 255) of the k-mixup paper's tables 6 and 7. images: how many test images to take,
    spread evenly over the test set, 2,000 on a CPU and all on a GPU if not said; the clean error on the same images is
    "error", so that a rise can be taken.
    """
    device = next(model.parameters()).device
    images = images or (2000 if device.type == "cpu" else len(data.test_y))
    part = spread_evenly(data, images)
    rng, kept = np.random.default_rng(0), []  # the same noise for every network

    def clean(pixels, x, labels):
        with torch.no_grad():
            kept.append(pixels(x).float().softmax(1))
        return x

    attacks = {f"noise_{eps}": lambda _, x, y, e=eps: noisy(x, e / 255, rng) for eps in NOISE}
    attacks |= {f"fgsm_{eps:g}": lambda net, x, y, e=eps: fgsm(net, x, y, e / 255) for eps in FGSM}
    with autocast(device, precision):
        found = {"images": len(part.test_y), "error": error_under(model, part, clean)}
        found["calibration_error"] = calibration_error(torch.cat(kept), part.test_y.to(device))
        found |= {name: error_under(model, part, attack) for name, attack in attacks.items()}
    return {name: round(value, 3) for name, value in found.items()}
