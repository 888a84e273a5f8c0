"""LaMix: equations 6 to 11, who learns from what, alternation, and the soft head on any network."""

import math

import pytest
import torch
from examples import images, refuses
from torch import nn

from mixlab import ConfusionMixup, LaMix, Pairs, PuzzleMix, ZetaMixup, lamix_loss, one_hot
from mixlab.method import draw_lambda
from mixlab.results.runs import build_method, describe
from mixlab.training.models import build


def parts(n=5, width=3, c=4):
    generator = torch.Generator().manual_seed(0)
    r, head, soft_head = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((n, width), (c, width), (c, width))
    )
    return r, head, soft_head, torch.rand(n, c, generator=generator, dtype=torch.float64).softmax(1)


def prepared(net, **parameters):
    method = build_method(describe(LaMix(**parameters)), seed=0)
    method.prepare(net)
    return method


@pytest.mark.parametrize("biased", [False, True])
def test_loss_is_its_equations(biased):
    """One number at a time."""
    r, head, soft_head, local = parts()
    b, b_soft = (torch.linspace(-1, 1, 4).double() * scale if biased else None for scale in (1, 3))
    for beta in (0.0, 0.3, 1.0):
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


def test_batches_are_clean_and_mixed_in_turn_and_the_input_is_the_plain_average():
    x, labels = images()
    net = build("quick_resnet", 3, seed=0)
    method, same, seen = prepared(net), prepared(net), []
    net.stages[0].register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    losses = [method.loss(net, x, labels).item() for _ in range(4)]
    plans = [None, same.mixing.draw(x, labels), None, same.mixing.draw(x, labels)]
    weights = net.head.weight, method.soft_head.weight
    biases = {"bias": net.head.bias, "soft_bias": method.soft_head.bias}
    for given, loss, plan in zip(list(seen), losses, plans, strict=True):
        expected = x if plan is None else 0.5 * (x + x[plan.partner])
        local = one_hot(labels, 3) if plan is None else plan.mix_labels(one_hot(labels, 3))
        assert torch.allclose(given, expected, atol=1e-6)
        assert loss == pytest.approx(lamix_loss(net.embed(given), *weights, local, 0.5, **biases).item(), abs=1e-6)
    assert len(set(plans[1].lam.tolist())) == 6, "a lam for every row"
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


def test_a_detached_target_leaves_the_soft_head_without_a_gradient():
    net = build("quick_resnet", 3, seed=0)
    for detached in (False, True):
        method = prepared(net, detach_target=detached)
        method.loss(net, *images()).backward()
        assert (method.soft_head.weight.grad is None) == detached


def test_the_label_weight_is_that_of_the_pairing_and_the_input_is_averaged_all_the_same():
    x, labels = images()
    for pairing in ("CutMix(1.0)", "Remix(1.0, [9, 3, 1])"):
        plan = LaMix(mixing=build_method(pairing, seed=3)).draw(x, labels)
        same = build_method(pairing, seed=3).draw(x, labels)
        assert torch.allclose(plan.mix(x), 0.5 * (x + x[plan.partner]), atol=1e-6)
        assert torch.equal(plan.mix_labels(one_hot(labels, 3)), same.mix_labels(one_hot(labels, 3)))


def test_around_puzzlemix_the_input_is_the_puzzle_for_one_half_and_lam_is_drawn_for_the_label():
    """Equation 5; two labels, since with three the mask for one half is mostly one half."""
    (x, labels), net = images(), build("quick_resnet", 3, seed=0)
    inner, same = (PuzzleMix(1.0, blocks=(4,), labels=2, transport=False, rng=3) for _ in range(2))
    plan = LaMix(mixing=inner).draw_with_model(net, x, labels)
    puzzle = same.draw_with_model(net, x, labels, lam=0.5)
    assert torch.equal(plan.mix(x), puzzle.mix(x)) and not torch.allclose(plan.mix(x), Pairs(plan.partner, 0.5).mix(x))
    lam = plan.label_plan.lam
    assert torch.equal(lam, draw_lambda(same.rng, 1.0, 6)) and len(set(lam.tolist())) == 6


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
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(768, 16), nn.ReLU())
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


def test_what_it_mixes_by_learns_from_clean_and_mixed_answers():
    (x, labels), net = images(), build("quick_resnet", 3, seed=0)
    method = LaMix(mixing=ConfusionMixup(1.0, 1.0, rng=0), rng=0)
    method.prepare(net)
    for _ in range(2):
        method.loss(net, x, labels)
    assert method.mixing.seen.sum().item() == pytest.approx(12)
    method.end_epoch()
    assert method.mixing.pairing.shape == (3, 3)


def test_what_makes_no_sense_is_refused_by_name():
    (x, labels), net = images(), build("quick_resnet", 3, seed=0)
    unprepared, other = LaMix(), prepared(build("quick_resnet", 4, seed=0))
    refuses(lambda method: method.loss(net, x, labels), "method LaMix", unprepared, other)
    refuses(LaMix().prepare, "model", nn.Sequential(nn.Conv2d(3, 3, 16), nn.Flatten()))  # no linear layer at all
    refuses(lambda student: prepared(student).loss(student, x, labels), "model", Student(softened=True))
    refuses(lambda inner: LaMix(mixing=inner).draw(x, labels), "mixing", ZetaMixup(2.8))
    refuses(lambda inner: LaMix(mixing=inner).draw(x, labels), "PuzzleMix", PuzzleMix(1.0))
    r, head, soft_head, local = parts()
    wrong = local[:, :3], 2 * local, local - 1, local * float("nan")
    refuses(lambda y: lamix_loss(r, head, soft_head, y, 0.5), "local", *wrong)
