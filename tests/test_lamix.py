"""LaMix: equations 6 to 11, who learns from what, alternation, state, and the soft head in training."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mixlab import (
    ConfusionMixup,
    CutMix,
    InfiniteClass,
    KMixup,
    LabelSmoothing,
    LaMix,
    ManifoldMixup,
    Mixup,
    Pairs,
    PuzzleMix,
    RegMixup,
    Remix,
    ZetaMixup,
    lamix_loss,
    one_hot,
)
from mixlab.method import REASONS, draw_lambda
from mixlab.results.runs import build_method, describe
from mixlab.training.models import build


def parts(n=5, width=3, c=4):
    generator = torch.Generator().manual_seed(0)
    r, head, soft_head = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((n, width), (c, width), (c, width))
    )
    local = torch.rand(n, c, generator=generator, dtype=torch.float64)
    return r, head, soft_head, local / local.sum(1, keepdim=True)


def images(n=6, size=8):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0)), torch.arange(n) % 3


def prepared(net, **parameters):
    method = build_method(describe(LaMix(**parameters)), seed=0)
    method.prepare(net)
    return method


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("biased", [False, True])
def test_loss_is_its_equations(beta, biased):
    """One number at a time."""
    r, head, soft_head, local = parts()
    b, b_soft = (torch.linspace(-1, 1, 4).double() * scale if biased else None for scale in (1, 3))
    total = 0.0
    for i in range(5):
        z = [float(head[k] @ r[i]) + (float(b[k]) if biased else 0) for k in range(4)]
        t = [float(soft_head[k] @ r[i]) + (float(b_soft[k]) if biased else 0) for k in range(4)]
        answer = [math.exp(v) / sum(map(math.exp, z)) for v in z]
        sigmoid = [1 / (1 + math.exp(-v)) for v in t]
        p = [math.exp(v) / sum(map(math.exp, sigmoid)) for v in sigmoid]
        target = [beta * float(local[i, k]) + (1 - beta) * p[k] for k in range(4)]
        total -= sum(y * math.log(a) for y, a in zip(target, answer, strict=True)) / 5
    loss = lamix_loss(r, head, soft_head, local, beta, bias=b, soft_bias=b_soft)
    assert loss.item() == pytest.approx(total, abs=1e-12)


def test_gradients_by_finite_differences():
    r, head, soft_head, local = parts()
    variables = tuple(part.requires_grad_() for part in (r, head, soft_head))
    assert torch.autograd.gradcheck(lambda *v: lamix_loss(*v, local, 0.5), variables)


def test_all_of_the_local_label_is_cross_entropy_and_the_soft_head_learns_nothing():
    r, head, soft_head, local = parts()
    loss = lamix_loss(r, head, soft_head.requires_grad_(), local, 1.0)
    assert torch.allclose(loss, F.cross_entropy(r @ head.T, local))
    loss.backward()
    assert not soft_head.grad.any()


def test_batches_are_clean_and_mixed_in_turn_and_the_input_is_the_plain_average():
    x, labels = images()
    net = build("quick_resnet", 3, seed=0)
    method, same, seen = prepared(net), prepared(net), []
    net.stages[0].register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    losses = [method.loss(net, x, labels).item() for _ in range(4)]
    plans = [same.mixing.draw(x, labels) for _ in range(2)]
    assert torch.equal(seen[0], x) and torch.equal(seen[2], x)
    for step, plan in zip((1, 3), plans, strict=True):
        assert torch.allclose(seen[step], 0.5 * (x + x[plan.partner]), atol=1e-6)
        local = plan.mix_labels(one_hot(labels, 3))
        weights = net.head.weight, method.soft_head.weight
        biases = {"bias": net.head.bias, "soft_bias": method.soft_head.bias}
        by_hand = lamix_loss(net.embed(seen[step]), *weights, local, 0.5, **biases)
        assert losses[step] == pytest.approx(by_hand.item(), abs=1e-6)
        assert len(set(plan.lam.tolist())) == 6, "a lam for every row"
    by_hand = lamix_loss(net.embed(x), *weights, one_hot(labels, 3), 0.5, **biases)
    assert losses[0] == pytest.approx(by_hand.item(), abs=1e-6)
    seen.clear()
    prepared(net, originals=False).loss(net, x, labels)
    assert torch.equal(seen[0], prepared(net).draw(x, labels).mix(x)), "without originals the first batch is mixed too"


@pytest.mark.parametrize("name", ["lenet", "densenet_121"])
def test_the_soft_head_fits_every_network_and_number_of_classes(name):
    net = build(name, 7, seed=0)
    method = prepared(net)
    assert method.soft_head.weight.shape == net.head.weight.shape and method.soft_head.bias.shape == (7,)
    bound = net.head.in_features**-0.5
    assert 0.9 * bound < method.soft_head.weight.abs().max() <= bound
    kept = method.soft_head
    method.prepare(net)
    assert method.soft_head is kept
    assert torch.equal(prepared(net).soft_head.weight, kept.weight), "drawn from the method's own generator"


@pytest.mark.parametrize("detached", [False, True])
def test_a_detached_target_leaves_the_soft_head_without_a_gradient(detached):
    net = build("quick_resnet", 3, seed=0)
    method = prepared(net, detach_target=detached)
    method.loss(net, *images()).backward()
    assert (method.soft_head.weight.grad is None) == detached


def test_the_label_weight_is_that_of_the_pairing_and_the_input_is_averaged_all_the_same():
    x, labels = images()
    for inner in (CutMix(1.0, rng=3), Remix(1.0, [9, 3, 1], rng=3)):
        plan = LaMix(mixing=inner).draw(x, labels)
        assert torch.allclose(plan.mix(x), 0.5 * (x + x[plan.partner]), atol=1e-6)
        inner = type(inner)(1.0, **({"counts": [9, 3, 1]} if isinstance(inner, Remix) else {}), rng=3)
        assert torch.equal(plan.mix_labels(one_hot(labels, 3)), inner.draw(x, labels).mix_labels(one_hot(labels, 3)))


def test_around_puzzlemix_the_input_is_the_puzzle_for_one_half_and_lam_is_drawn_for_the_label():
    """Equation 5; two labels, since with three the mask for one half is mostly one half."""
    x, labels = images()
    net = build("quick_resnet", 3, seed=0)
    inner, same = (PuzzleMix(1.0, blocks=(4,), labels=2, transport=False, rng=3) for _ in range(2))
    plan = LaMix(mixing=inner).draw_with_model(net, x, labels)
    puzzle = same.draw_with_model(net, x, labels, lam=0.5)
    assert torch.equal(plan.mix(x), puzzle.mix(x)) and not torch.allclose(plan.mix(x), Pairs(plan.partner, 0.5).mix(x))
    lam = plan.label_plan.lam
    assert torch.equal(lam, draw_lambda(same.rng, 1.0, 6)) and len(set(lam.tolist())) == 6
    with pytest.raises(ValueError, match="PuzzleMix"):
        LaMix(mixing=inner).draw(x, labels)


def test_bfloat16_features_are_scored_in_float32():
    r, head, soft_head, local = (part.float() for part in parts())
    half = r.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss = lamix_loss(half, head, soft_head, local, 0.5)
    assert loss.dtype == torch.float32 and torch.equal(loss, lamix_loss(half.float(), head, soft_head, local, 0.5))


class Student(nn.Module):
    """A network of one's own: no `embed`, no part called `head`, a classifier in the middle of the list."""

    def __init__(self, softened=False):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU())
        self.classifier = nn.Linear(16, 3)
        self.softened = softened

    def forward(self, x):
        scores = self.classifier(self.body(x))
        return scores[:, :2] if self.softened else scores


def test_a_students_own_network_is_given_a_soft_head_for_its_last_linear_layer():
    (x, labels), net = images(), Student()
    method, same = prepared(net, beta=0.3, originals=False), prepared(net, beta=0.3, originals=False)
    assert method.soft_head.weight.shape == (3, 16)
    plan = same.draw(x, labels)
    weights = net.classifier.weight, method.soft_head.weight
    biases = {"bias": net.classifier.bias, "soft_bias": method.soft_head.bias}
    local = plan.mix_labels(one_hot(labels, 3))
    by_hand = lamix_loss(net.body(plan.mix(x)), *weights, local, 0.3, **biases)
    loss = method.loss(net, x, labels)
    loss.backward()
    assert torch.allclose(loss, by_hand) and not net.classifier._forward_pre_hooks
    assert all(parameter.grad.any() for parameter in [*net.parameters(), *method.parameters()])


def test_a_network_without_a_linear_head_is_told_the_contract():
    x, labels = images()
    convolutional, other = nn.Sequential(nn.Conv2d(3, 3, 8), nn.Flatten()), Student(softened=True)
    with pytest.raises(ValueError, match=r"^model (.|\n)*nn\.Linear") as told:
        LaMix().prepare(convolutional)
    assert len(str(told.value).splitlines()) == 3
    with pytest.raises(ValueError, match=r"^model (.|\n)*nn\.Linear"):
        prepared(other).loss(other, x, labels)


def test_around_k_mixup_a_mixed_batch_draws_once_and_a_clean_one_not_at_all():
    x, labels = images()
    net, same = build("quick_resnet", 3, seed=0), KMixup(1.0, 2, rng=3)
    method = LaMix(mixing=KMixup(1.0, 2, rng=3), rng=0)
    method.prepare(net)
    for step in range(4):
        method.loss(net, x, labels)
        if step % 2:
            same.draw(x, labels)
        assert method.mixing.rng.bit_generator.state == same.rng.bit_generator.state


def test_what_it_mixes_by_learns_from_clean_and_mixed_answers():
    x, labels = images()
    net, method = build("quick_resnet", 3, seed=0), LaMix(mixing=ConfusionMixup(1.0, 1.0, rng=0), rng=0)
    method.prepare(net)
    for _ in range(2):
        method.loss(net, x, labels)
    assert method.mixing.seen.sum().item() == pytest.approx(12)
    method.end_epoch()
    assert method.mixing.pairing.shape == (3, 3)


def test_what_makes_no_sense_is_refused_by_name():
    x, labels = images()
    net = build("quick_resnet", 3, seed=0)
    for beta in (1.5, -0.1, float("nan"), "1", None):
        with pytest.raises(ValueError, match=r"^beta "):
            LaMix(beta=beta)
    for method in (LaMix(), prepared(build("quick_resnet", 4, seed=0))):
        with pytest.raises(ValueError, match=r"^method LaMix .*prepare"):
            method.loss(net, x, labels)
    reasons = {"own_loss": [RegMixup(Mixup(1.0)), LaMix()], "mixes_inputs": [ManifoldMixup(Mixup(1.0))]}
    reasons |= {"asks_model": [LabelSmoothing(0.1, PuzzleMix(1.0))], "cross_entropy": [InfiniteClass(Mixup(1.0))]}
    for reason, methods in reasons.items():
        for inner in methods:
            with pytest.raises(ValueError, match=f"^mixing {type(inner).__name__} {REASONS[reason]}"):
                LaMix(mixing=inner)
    for inner in ("Mixup(1.0)", ZetaMixup(2.8)):
        with pytest.raises(ValueError, match=r"^mixing "):
            LaMix(mixing=inner).draw(x, labels)
    r, head, soft_head, local = parts()
    for wrong in (local[:, :3], 2 * local, local - 1, local * float("nan")):
        with pytest.raises(ValueError, match=r"\b(local|y)\b"):
            lamix_loss(r, head, soft_head, wrong, 0.5)
