"""Infinite Class Mixup: the loss as written, its gradients, equal classifiers, and every method inside."""

import math

import pytest
import torch
from torch import nn

from mixlab import InfiniteClass, LabelSmoothing, ManifoldMixup, Mixup, RegMixup, Remix, infinite_class_loss, one_hot
from mixlab.method import REASONS


def batch(n=6, c=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(n, c, generator=generator, dtype=dtype)
    y = torch.rand(n, c, generator=generator, dtype=dtype)
    return scores, y / y.sum(1, keepdim=True)


def rows(n=8):
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(0)), torch.arange(n) % 3


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
@pytest.mark.parametrize("n", [1, 2, 6])
def test_loss_is_its_equations(axes, n):
    scores, y = batch(n)
    assert infinite_class_loss(scores, y, axes).item() == pytest.approx(by_hand(scores, y, axes), abs=1e-12)


@pytest.mark.parametrize("axes", ["class", "pair", "both"])
def test_gradients_by_finite_differences(axes):
    scores, y = batch()
    assert torch.autograd.gradcheck(lambda s: infinite_class_loss(s, y, axes), scores.requires_grad_())


INNER = [Mixup, lambda a, rng: Remix(a, [900, 9, 90], rng=rng), lambda a, rng: LabelSmoothing(0.1, Mixup(a, rng=rng))]


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("soft", [False, True])
def test_loss_by_hand_from_the_mix(inner, soft):
    """Class indices and soft labels alike; around Remix classifiers are mixed by lam_y."""
    (x, labels), net, same = rows(9), nn.Linear(5, 3), inner(1.0, rng=2)
    plan = same.draw(x, labels)
    scores, y = net(plan.mix(x)).detach().double(), same.targets(plan, labels, 3).double()
    if isinstance(same, Remix):
        assert not torch.allclose(y, plan.inputs.mix_labels(one_hot(labels, 3)).double())
        soft = False
    loss = InfiniteClass(inner(1.0, rng=2)).loss(net, x, one_hot(labels, 3) if soft else labels)
    assert loss.item() == pytest.approx(by_hand(scores, y), abs=1e-5)


def test_what_nobody_can_tell_apart():
    """Two classifiers among four images cost log 2 on each axis at best; an ignorant network pays log n on each."""
    y = one_hot(torch.tensor([0, 0, 1, 1]), 2)
    assert infinite_class_loss(1000 * y, y).item() == pytest.approx(2 * math.log(2))
    assert infinite_class_loss(torch.zeros(16, 4), batch(16)[1].float()).item() == pytest.approx(2 * math.log(16))
    x, labels = rows(1)
    net = nn.Linear(5, 3)
    loss = InfiniteClass(Mixup(1.0, rng=0)).loss(net, x, labels)
    loss.backward()
    assert loss.item() == 0 and not net.weight.grad.any(), "a batch of one costs nothing"


def test_within_autocast_the_product_stays_in_float32():
    scores, y = batch(64, 10, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = infinite_class_loss(scores, y)
    assert inside.dtype == torch.float32 and torch.equal(inside, infinite_class_loss(scores, y))
    half = infinite_class_loss(scores.bfloat16(), y)
    assert torch.allclose(half, infinite_class_loss(scores.bfloat16().float(), y))


def test_bad_input_is_refused_by_name():
    scores, y = batch()
    for axes in ("rows", None, 0):
        with pytest.raises(ValueError, match=r"^axes "):
            infinite_class_loss(scores, y, axes)
        with pytest.raises(ValueError, match=r"^axes "):
            InfiniteClass(Mixup(1.0), axes=axes)
    with pytest.raises(ValueError, match=r"^scores .* y "):
        infinite_class_loss(scores, y[:, :3])
    for wrong in (2 * y, y - 1, y * float("nan")):
        with pytest.raises(ValueError, match=r"\by\b"):
            infinite_class_loss(scores, wrong)
    for outer, inner, reason in (
        (InfiniteClass, InfiniteClass(Mixup(1.0)), "cross_entropy"),
        (InfiniteClass, RegMixup(Mixup(1.0)), "own_loss"),
        (lambda m: LabelSmoothing(0.1, m), InfiniteClass(Mixup(1.0)), "cross_entropy"),
    ):
        with pytest.raises(ValueError, match=f"^method {type(inner).__name__} {REASONS[reason]}"):
            outer(inner)
    assert InfiniteClass(ManifoldMixup(Mixup(1.0))).mixes_inputs is False
