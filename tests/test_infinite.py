"""Infinite Class Mixup: the loss as written, its gradients, equal classifiers, and every method inside."""

import math

import numpy as np
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


def test_gradient_of_the_scores_in_closed_form():
    scores, y = batch()
    infinite_class_loss(scores.requires_grad_(), y).backward()
    s, eye = (scores @ y.T).detach(), torch.eye(6, dtype=torch.float64)
    assert torch.allclose(scores.grad, ((s.softmax(1) - eye) + (s.softmax(0) - eye)) @ y / 6)


def test_gradients_of_the_classifier_that_the_paper_prints():
    """Equations 6 and 8, with the signs of a loss to be made small, for W (width, classes) and mixed features r."""
    r = torch.randn(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = torch.randn(3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True)
    _, y = batch()
    s = (r @ weights @ y.T).detach()
    of_class = -sum(torch.outer(r[i], y[i] - s.softmax(1)[i] @ y) for i in range(6)) / 6
    of_pair = -sum(torch.outer(r[i] - s.softmax(0)[:, i] @ r, y[i]) for i in range(6)) / 6
    for axes, printed in (("class", of_class), ("pair", of_pair)):
        (here,) = torch.autograd.grad(infinite_class_loss(r @ weights, y, axes), weights)
        assert torch.allclose(here, printed)


def test_a_bias_learns_from_the_class_axis_only():
    scores, y = batch()
    bias = torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(3), requires_grad=True)
    (of_pair,) = torch.autograd.grad(infinite_class_loss(scores + bias, y, "pair"), bias)
    (of_class,) = torch.autograd.grad(infinite_class_loss(scores + bias, y, "class"), bias)
    assert of_pair.abs().max() < 1e-15 and of_class.abs().max() > 1e-2


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


def same_classifier(y):
    """(n, n) ones where two rows of y agree up to rounding."""
    return (torch.cdist(y, y, p=torch.inf) <= 1e-6).to(y.dtype)


def test_sharing_the_target_among_equal_classifiers_would_change_nothing():
    """They have the same scores, so the floor they leave under the loss has no gradient: no option is needed."""
    scores, y = batch(9)
    y[4:7], y[8] = y[0], y[7]
    shared = same_classifier(y) / same_classifier(y).sum(1, keepdim=True)
    assert sorted(shared.amax(1).tolist()) == pytest.approx([0.25] * 4 + [0.5] * 2 + [1.0] * 3)
    s = scores.requires_grad_() @ y.T
    spread = -(shared * s.log_softmax(1)).sum() / 9 - (shared * s.T.log_softmax(1)).sum() / 9
    plain = infinite_class_loss(scores, y)
    assert torch.allclose(spread, plain)
    assert torch.allclose(*(torch.autograd.grad(loss, scores)[0] for loss in (spread, plain)))


def test_one_lam_for_the_batch_leaves_few_distinct_classifiers_and_one_per_row_many():
    """n = 128, ten classes: 128 pairs fall into 100 cells, so 100 (1 - 0.99^128) = 72 differ, if lam is one for all.

    50 batches of random labels, four standard errors; with a lam for every row only pairs within a class coincide.
    """
    shares, rng = {}, np.random.default_rng(0)
    for per_sample in (False, True):
        method, found = Mixup(1.0, per_sample=per_sample, rng=0), []
        for _ in range(50):
            labels = torch.from_numpy(rng.integers(10, size=128))
            y = method.targets(method.draw(labels, labels), labels, 10)
            found.append((1 / same_classifier(y).sum(1)).sum() / 128)
        shares[per_sample] = torch.stack(found)
    expected = 100 * (1 - 0.99**128) / 128
    assert abs(shares[False].mean() - expected) < 4 * shares[False].std() / 50**0.5
    assert shares[True].mean() > 0.9


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
