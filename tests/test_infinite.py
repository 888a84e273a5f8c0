"""Infinite Class Mixup: the loss as written, its gradients, equal classifiers, and every method inside."""

import math

import pytest
import torch
from examples import batch, refuses
from torch import nn

from mixlab import InfiniteClass, ManifoldMixup, Mixup, infinite_class_loss, one_hot
from mixlab.results.runs import build_method


def scored(n=6, c=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    scores, y = torch.randn(2, n, c, generator=generator, dtype=dtype)
    return scores, y.softmax(1)


def by_hand(scores, y, axes="both"):
    """One logarithm of one fraction at a time, as the equations print them."""
    n, total = len(scores), 0.0
    for i in range(n):
        own = math.exp(scores[i] @ y[i])
        over_classifiers = sum(math.exp(scores[i] @ y[j]) for j in range(n))
        over_images = sum(math.exp(scores[j] @ y[i]) for j in range(n))
        total -= (axes != "pair") * math.log(own / over_classifiers) / n
        total -= (axes != "class") * math.log(own / over_images) / n
    return total


@pytest.mark.parametrize("axes", ["class", "pair", "both"])
def test_loss_is_its_equations_and_its_gradients_are_finite_differences(axes):
    for n in (1, 2, 6):
        scores, y = scored(n)
        assert infinite_class_loss(scores, y, axes).item() == pytest.approx(by_hand(scores, y, axes), abs=1e-12)
    assert torch.autograd.gradcheck(lambda s: infinite_class_loss(s, y, axes), scores.requires_grad_())


@pytest.mark.parametrize("inner", ["Mixup(1.0)", "Remix(1.0, [900, 9, 90])", "LabelSmoothing(0.1, Mixup(1.0))"])
def test_loss_by_hand_from_the_mix(inner):
    """Class indices and soft labels alike; the classifiers are mixed by the labels of the method inside."""
    (x, labels), net, same = batch(9), nn.Linear(4, 3), build_method(inner, seed=2)
    plan = same.draw(x, labels)
    scores, y = net(plan.mix(x)).detach().double(), same.targets(plan, labels, 3).double()
    for given in (labels, one_hot(labels, 3)) if "Remix" not in inner else (labels,):
        loss = InfiniteClass(build_method(inner, seed=2)).loss(net, x, given)
        assert loss.item() == pytest.approx(by_hand(scores, y), abs=1e-5)


def test_what_nobody_can_tell_apart():
    """Two classifiers among four images cost log 2 on each axis at best; an ignorant network pays log n on each."""
    y = one_hot(torch.tensor([0, 0, 1, 1]), 2)
    assert infinite_class_loss(1000 * y, y).item() == pytest.approx(2 * math.log(2))
    assert infinite_class_loss(torch.zeros(16, 4), scored(16)[1].float()).item() == pytest.approx(2 * math.log(16))
    (x, labels), net = batch(1), nn.Linear(4, 3)
    loss = InfiniteClass(Mixup(1.0, rng=0)).loss(net, x, labels)
    loss.backward()
    assert loss.item() == 0 and not net.weight.grad.any(), "a batch of one costs nothing"


def test_within_autocast_the_product_stays_in_float32():
    scores, y = scored(64, 10, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = infinite_class_loss(scores, y)
    assert inside.dtype == torch.float32 and torch.equal(inside, infinite_class_loss(scores, y))
    half = scores.bfloat16()
    assert torch.allclose(infinite_class_loss(half, y), infinite_class_loss(half.float(), y))


def test_what_makes_no_sense_is_refused_by_name():
    scores, y = scored()
    refuses(lambda axes: infinite_class_loss(scores, y, axes), "axes", "rows", None, 0)
    refuses(lambda y: infinite_class_loss(scores, y), "(scores|y)", y[:, :3], 2 * y, y - 1, y * float("nan"))
    assert InfiniteClass(ManifoldMixup(Mixup(1.0))).mixes_inputs is False
