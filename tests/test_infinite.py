"""Infinite Class Mixup: the loss as written, its gradients, the fast path, duplicates, and every method inside."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from mixlab import (
    ERM,
    CutMix,
    InfiniteClass,
    LabelSmoothing,
    ManifoldMixup,
    Mixup,
    Pairs,
    RegMixup,
    Remix,
    Split,
    infinite_class_loss,
    one_hot,
)
from mixlab.infinite import pair_scores
from mixlab.results.runs import build_method, describe
from mixlab.training.models import build


def batch(n=6, c=4, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(n, c, generator=generator, dtype=dtype)
    y = torch.rand(n, c, generator=generator, dtype=dtype)
    return scores, y / y.sum(1, keepdim=True)


def by_hand(scores, y, axes):
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


def test_the_axes_differ_and_both_is_their_sum():
    scores, y = batch()
    one, other, both = (infinite_class_loss(scores, y, axes) for axes in ("class", "pair", "both"))
    assert torch.allclose(one + other, both) and not torch.allclose(one, other)


@pytest.mark.parametrize("axes", ["class", "pair", "both"])
def test_gradients_by_finite_differences(axes):
    scores, y = batch()
    assert torch.autograd.gradcheck(lambda s: infinite_class_loss(s, y, axes), scores.requires_grad_())


def test_gradient_of_the_scores_in_closed_form():
    scores, y = batch()
    infinite_class_loss(scores.requires_grad_(), y).backward()
    s, eye = (scores @ y.T).detach(), torch.eye(6, dtype=torch.float64)
    closed = ((s.softmax(1) - eye) + (s.softmax(0) - eye)) @ y / 6
    assert torch.allclose(scores.grad, closed)


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


def test_a_network_that_knows_nothing_pays_the_logarithm_of_the_batch_on_each_axis():
    _, y = batch(16)
    assert infinite_class_loss(torch.zeros(16, 4), y.float()).item() == pytest.approx(2 * math.log(16))


@pytest.mark.parametrize("lam", [0.3, torch.tensor([0.1, 0.9, 0.5, 0.0, 1.0, 0.7])], ids=["one lam", "per sample"])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 1e-6)])
def test_two_columns_and_a_lerp_are_the_product(lam, dtype, tolerance):
    scores, _ = batch(dtype=dtype)
    labels, pairs = torch.tensor([3, 0, 1, 1, 2, 3]), Pairs([5, 3, 1, 0, 4, 2], lam)
    y = pairs.mix_labels(one_hot(labels, 4).to(torch.float64 if dtype == torch.float64 else torch.float32))
    fast = pair_scores(scores, labels, pairs)
    assert fast.dtype == y.dtype and torch.allclose(fast, scores.to(y.dtype) @ y.T, atol=tolerance)


@pytest.mark.parametrize("axes", ["class", "pair", "both"])
@pytest.mark.parametrize("inner", [Mixup, CutMix, lambda a, rng: Mixup(a, per_sample=True, rng=rng)])
def test_fast_path_and_plain_product_agree_in_value_and_gradient(inner, axes):
    """Soft labels take the plain product, class indices the fast path."""
    x, labels = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    results = []
    for given in (labels, one_hot(labels, 3)):
        loss = InfiniteClass(inner(1.0, rng=0), axes=axes).loss(net, x, given)
        results.append((loss, *torch.autograd.grad(loss, list(net.parameters()))))
    for fast, plain in zip(*results, strict=True):
        assert torch.allclose(fast, plain, atol=1e-6)


def test_the_fast_path_is_taken_where_it_is_right_and_nowhere_else(monkeypatch):
    from mixlab import infinite

    calls = []
    real = infinite.pair_scores
    monkeypatch.setattr(infinite, "pair_scores", lambda *arguments: calls.append(1) or real(*arguments))
    x, labels = torch.randn(6, 3, 8, 8), torch.arange(6) % 3
    net = build("quick_resnet", 3, seed=0)
    fast = ["InfiniteClass(Mixup(1.0))", "InfiniteClass(ManifoldMixup(CutMix(1.0)))", "InfiniteClass(ERM())"]
    fast += ["InfiniteClass(Remix(1.0, [4, 2, 1]))"]
    plain = ["InfiniteClass(LabelSmoothing(0.1, Mixup(1.0)))"]
    for expressions, expected in ((fast, 1), (plain, 0)):
        for expression in expressions:
            calls.clear()
            build_method(expression, seed=0).loss(net, x, labels)
            assert len(calls) == expected, expression


def test_the_fast_path_goes_by_the_weights_of_the_labels():
    class Two(Mixup):
        """Inputs mixed with one weight, labels with another."""

        def draw(self, x, labels):
            plan = super().draw(x, labels)
            return Split(plan, Pairs(plan.partner, plan.lam**2))

    x, labels = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3
    net = nn.Linear(5, 3)
    fast, plain = (InfiniteClass(Two(1.0, rng=0)).loss(net, x, given) for given in (labels, one_hot(labels, 3)))
    assert torch.allclose(fast, plain, atol=1e-6)


def test_infinite_class_loss_by_hand_from_the_mix():
    x, labels = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3
    net = nn.Linear(5, 3)
    plan = Mixup(1.0, rng=2).draw(x, labels)
    scores, y = net(plan.mix(x)).detach().double(), plan.mix_labels(one_hot(labels, 3)).double()
    loss = InfiniteClass(Mixup(1.0, rng=2)).loss(net, x, labels)
    assert loss.item() == pytest.approx(by_hand(scores, y, "both"), abs=1e-5)


def test_classifiers_of_remix_are_mixed_by_lambda_y():
    x, labels = torch.randn(9, 5, generator=torch.Generator().manual_seed(0)), torch.arange(9) % 3
    net = nn.Linear(5, 3)
    counts = [900, 9, 90]
    plan = Remix(1.0, counts, rng=2).draw(x, labels)
    scores = net(plan.inputs.mix(x)).detach().double()
    y = plan.label_plan.mix_labels(one_hot(labels, 3)).double()
    assert not torch.allclose(y, plan.inputs.mix_labels(one_hot(labels, 3)).double())
    loss = InfiniteClass(Remix(1.0, counts, rng=2)).loss(net, x, labels)
    assert loss.item() == pytest.approx(by_hand(scores, y, "both"), abs=1e-5)


def test_regmixup_around_infinite_class_is_clean_cross_entropy_plus_it():
    x, labels = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3
    net = nn.Linear(5, 3)
    mixed = InfiniteClass(Mixup(20, rng=2)).loss(net, x, labels)
    clean = nn.functional.cross_entropy(net(x), labels)
    assert torch.allclose(RegMixup(InfiniteClass(Mixup(20, rng=2))).loss(net, x, labels), clean + mixed)


def same_classifier(y):
    """(n, n) ones where two rows of y agree up to rounding."""
    return (torch.cdist(y, y, p=torch.inf) <= 1e-6).to(y.dtype)


def test_equal_classifiers_cannot_be_told_apart():
    """Four images, two different classifiers: the best possible answer still pays log 2 on each axis."""
    y = one_hot(torch.tensor([0, 0, 1, 1]), 2)
    assert infinite_class_loss(1000 * y, y).item() == pytest.approx(2 * math.log(2))


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


def test_a_batch_of_one_costs_nothing():
    x, labels = torch.randn(1, 5), torch.tensor([1])
    net = nn.Linear(5, 3)
    loss = InfiniteClass(Mixup(1.0, rng=0)).loss(net, x, labels)
    loss.backward()
    assert loss.item() == 0 and not net.weight.grad.any()


def test_within_autocast_the_product_stays_in_float32():
    scores, y = batch(64, 10, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = infinite_class_loss(scores, y)
    assert inside.dtype == torch.float32 and torch.equal(inside, infinite_class_loss(scores, y))
    half = infinite_class_loss(scores.bfloat16(), y)
    assert torch.allclose(half, infinite_class_loss(scores.bfloat16().float(), y))


INNER = ["ERM()", "Mixup(1.0)", "CutMix(1.0)", "Remix(1.0, [4, 3, 2, 1])", "ManifoldMixup(Mixup(1.0))"]
INNER += ["LabelSmoothing(0.1, Mixup(1.0))"]
OUTER = ["InfiniteClass({})", "InfiniteClass({}, axes='pair')", "RegMixup(InfiniteClass({}))"]


@pytest.mark.parametrize("outer", OUTER)
@pytest.mark.parametrize("inner", INNER)
def test_around_every_method_it_trains_every_weight(inner, outer):
    expression = outer.format(inner)
    if "RegMixup" in outer and "Manifold" in inner:
        with pytest.raises(ValueError, match="runs the network in its own way"):
            build_method(expression, seed=0)
        return
    method, net = build_method(expression, seed=0), build("quick_resnet", 4, seed=0)
    assert describe(build_method(describe(method), seed=0)) == describe(method)
    x, labels = torch.randn(7, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(7) % 4
    state = method.state_dict()
    loss = method.loss(net, x, labels)
    loss.backward()
    assert loss.isfinite()
    for name, parameter in net.named_parameters():
        if name != "head.bias":  # constant over images: the pair axis alone has no gradient for it
            assert parameter.grad.isfinite().all() and parameter.grad.any(), name
    method.load_state_dict(state)
    net = build("quick_resnet", 4, seed=0)
    assert method.loss(net, x, labels).item() == loss.item()


def test_bad_input_is_refused_by_name():
    scores, y = batch()
    with pytest.raises(ValueError, match="axes must be one of class, pair, both, not 'rows'"):
        infinite_class_loss(scores, y, "rows")
    with pytest.raises(ValueError, match="axes must be one of"):
        InfiniteClass(Mixup(1.0), axes="s")
    with pytest.raises(ValueError, match="must have the same shape"):
        infinite_class_loss(scores, y[:, :3])
    for inner in (InfiniteClass(Mixup(1.0)), RegMixup(Mixup(1.0))):
        with pytest.raises(ValueError, match="has a loss of its own: put it outside"):
            InfiniteClass(inner)
    with pytest.raises(ValueError, match="method InfiniteClass has a loss of its own"):
        LabelSmoothing(0.1, InfiniteClass(Mixup(1.0)))
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2, found 0 to 3"):
        InfiniteClass(ERM()).loss(nn.Linear(4, 3), torch.zeros(2, 4), torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="mixing InfiniteClass has a loss of its own"):
        ManifoldMixup(InfiniteClass(Mixup(1.0)))
