"""What the tests of the methods share: a batch, a spelling out of refusals, and the devices there are."""

import pytest
import torch

GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))


def batch(n=8, *shape, classes=3):
    """x (n, 4), or (n, *shape), the same at every call, and the labels 0, 1, 2, 0, …"""
    x = torch.randn(n, *(shape or (4,)), generator=torch.Generator().manual_seed(n))
    return x, torch.arange(n) % classes


def images(n=6, size=16, classes=3):
    return batch(n, 3, size, size, classes=classes)


def refuses(call, name, *values):
    """call(value) names the argument that is wrong, for every value."""
    for value in values:
        with pytest.raises((ValueError, TypeError), match=rf"^(every row of )?{name}\b"):
            call(value)
            pytest.fail(f"{name} = {value} was taken")
