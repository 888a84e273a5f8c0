"""Error under noise and under attack, in pixels: images in [0, 1], the normalisation inside the model.

A perturbation of 8/255 means the same for every network then, however its inputs are normalised.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixlab.metrics import error


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
    _check(x, eps)
    return x + eps * torch.from_numpy(rng.standard_normal(x.shape, dtype=np.float32)).to(x)


def fgsm(model: nn.Module, x: Tensor, labels: Tensor, eps: float) -> Tensor:
    """The fast gradient sign attack: clip(x + eps * sign(gradient of the loss with respect to x), 0, 1)."""
    _check(x, eps)
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), labels, reduction="sum"), x)
    return (x + eps * gradient.sign()).clamp(0, 1).detach()


def error_under(model: nn.Module, data, attack, batch_size: int = 500) -> float:
    """Percent wrong on the test set after attack(pixel_model, x, labels) has changed the images x in [0, 1]."""
    device = next(model.parameters()).device
    pixels = PixelModel(model, data).to(device).eval()
    logits = []
    for x, labels in zip(data.test_x.split(batch_size), data.test_y.split(batch_size), strict=True):
        changed = attack(pixels, x.to(device).float() / 255, labels.to(device))
        with torch.no_grad():
            logits.append(pixels(changed))
    return error(torch.cat(logits), data.test_y.to(device))


def _check(x: Tensor, eps: float) -> None:
    if not x.is_floating_point():
        raise TypeError(f"x is {x.dtype}: convert to float first, x.float() / 255")
    if not eps >= 0:
        raise ValueError(f"eps must be a number >= 0, on the scale where pixels are in [0, 1], not {eps}")
