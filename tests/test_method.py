"""What every method shares: draws and their state, workers, the way to a loss, wrappers, and what is refused."""

import inspect
import io

import numpy as np
import pytest
import torch
from examples import GPU, batch, images, refuses
from torch import nn
from torch.utils.data import DataLoader

import mixlab
from mixlab import (
    CutMix,
    InfiniteClass,
    KMixup,
    LabelSmoothing,
    LaMix,
    ManifoldMixup,
    Method,
    Mixup,
    PuzzleMix,
    RegMixup,
    Remix,
    one_hot,
    soft_cross_entropy,
)
from mixlab.method import REASONS, Around
from mixlab.results.expressions import build_method, describe, methods
from mixlab.training.models import build

ALL, NAN = methods(), float("nan")


# --- who with whom, and how much: one generator


def test_draws_follow_the_seed_and_neither_use_nor_change_the_global_state():
    def draws(rng):
        method = Mixup(1.0, rng=rng)
        return [(plan.partner.tolist(), plan.lam) for plan in (method.draw(*batch()) for _ in range(5))]

    torch.manual_seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002  (looked at, not drawn from)
    first = draws(3)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    torch.manual_seed(99)
    assert first == draws(np.random.default_rng(3)) != draws(4)


class Collate:
    """A batch as a DataLoader's worker makes it: lam and the first partner tell draws apart."""

    def __init__(self, method):
        self.method = method

    def __call__(self, rows):
        plan = self.method.draw(torch.stack(rows), torch.zeros(len(rows)))
        return plan.lam, int(plan.partner[0])


def over_three_epochs(workers, seed):
    torch.manual_seed(7)  # a DataLoader seeds its workers from here
    loader = DataLoader(torch.zeros(96, 2), 16, num_workers=workers, collate_fn=Collate(Mixup(1.0, rng=seed)))
    return [drawn for _ in range(3) for drawn in loader]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create", "ignore:.*fork")
@pytest.mark.parametrize("workers", [0, 3])
def test_workers_draw_differently_from_each_other_and_in_every_epoch(workers):
    found = over_three_epochs(workers, seed=0)
    assert len({lam for lam, _ in found}) == len(found) == 18
    assert over_three_epochs(workers, seed=0) == found != over_three_epochs(workers, seed=1)


PAIRINGS = ["Mixup(1.0, per_sample=True)", "ZetaMixup(2.8)", "CutMix(1.0, True)", "Remix(1.0, [9, 3, 1])"]


@pytest.mark.parametrize("device", ["meta", GPU])
def test_draws_do_not_depend_on_device_or_dtype(device):
    """The generator lives on the CPU; on the meta device, which has no values, its state shows that it went as far."""
    x, labels = images()
    for expression in [*PAIRINGS, "ConfusionMixup(1.0, 1.0)"]:
        here, there = build_method(expression, seed=5), build_method(expression, seed=5)
        plan, moved = here.draw(x, labels), there.draw(x.to(device, torch.bfloat16), labels.to(device))
        assert moved.mix(x.to(device)).device.type == device and here.get_extra_state() == there.get_extra_state()
        assert device == "meta" or torch.equal(plan.matrix(), moved.matrix())


def test_alpha_zero_mixes_nothing():
    kinds = [Mixup, CutMix, lambda a, **how: Remix(a, [9, 3, 1]), lambda a, **how: KMixup(a, 2, **how)]
    alike = [kind(0.0, per_sample=per_sample) for kind in kinds for per_sample in (False, True)]
    for method in [*alike, PuzzleMix(0.0), mixlab.ConfusionMixup(0.0, 1.0)]:
        for n in (5, 1):
            x, labels = images(n)
            plan = method.draw_with_model(nn.Sequential(nn.Flatten(), nn.Linear(768, 3)), x, labels)
            assert torch.equal(plan.mix(x), x), method
            assert torch.equal(plan.mix_labels(one_hot(labels, 3)), one_hot(labels, 3)), method


# --- what it comes to: the loss


def test_loss_is_draw_apply_score_and_a_call_gives_what_it_scores():
    (x, labels), net = batch(), nn.Linear(4, 3)
    plan = Mixup(1.0, rng=2).draw(x, labels)
    y = plan.mix_labels(one_hot(labels, 3))
    for given in (labels, one_hot(labels, 3)):
        assert torch.equal(Mixup(1.0, rng=2).loss(net, x, given), soft_cross_entropy(net(plan.mix(x)), y))
        mixed, targets = Mixup(1.0, rng=2)(x, given, 3 if given.dim() == 1 else None)
        assert torch.equal(mixed, plan.mix(x)) and torch.equal(targets, y)
    refuses(lambda count: Mixup(1.0)(x, labels, count), "num_classes", None)


def test_soft_cross_entropy_is_its_formula():
    logits, y = torch.randn(5, 4, dtype=torch.float64), torch.rand(5, 4, dtype=torch.float64).softmax(1)
    assert torch.allclose(soft_cross_entropy(logits, y), -(y * logits.log_softmax(1)).sum(1).mean())
    assert soft_cross_entropy(logits.bfloat16(), y.float()).dtype == torch.float32
    refuses(lambda wrong: soft_cross_entropy(logits, wrong), "(logits|y)", y[:, :3], 2 * y, y - 1)


def test_a_method_that_needs_the_model_does_not_stand_in_a_plain_loop_as_plain_mixup():
    """Called on a batch alone, it could only do what its inner method does, in silence."""
    x, labels = images()
    for method in (RegMixup(Mixup(1.0)), ManifoldMixup(Mixup(1.0)), InfiniteClass(Mixup(1.0)), LaMix(), PuzzleMix(1.0)):
        refuses(lambda given, method=method: method(given, labels, num_classes=3), f"method {type(method).__name__}", x)


# --- one around the other


def test_a_wrapper_hands_everything_on_and_is_what_its_method_is():
    inner, asked = Mixup(1.0), []
    outer = Around(inner)
    calls = {"prepare": 2, "draw": 2, "draw_with_model": 3, "run": 3, "targets": 3, "observe": 3, "end_epoch": 0}
    for name, count in calls.items():
        setattr(inner, name, lambda *given, name=name: asked.append((name, len(given))))
        getattr(outer, name)(*range(count))
    assert asked == list(calls.items())
    for name in REASONS:
        setattr(inner, name, not getattr(Method, name))
        assert getattr(Around(inner), name) != getattr(Method, name)


def test_a_method_learns_from_the_answers_to_its_mix():
    class Learning(Mixup):
        def observe(self, logits, plan, labels):
            self.seen = logits, plan.lam, labels

    (x, labels), net, inner = batch(), nn.Linear(4, 3), Learning(1.0, rng=0)
    LabelSmoothing(0.1, inner).loss(net, x, labels)
    plan = Mixup(1.0, rng=0).draw(x, labels)
    assert torch.equal(inner.seen[0], net(plan.mix(x))) and inner.seen[1] == plan.lam and inner.seen[2] is labels


def test_a_method_that_calls_super_in_its_loss_is_taken_as_any_other():
    class WithSuper(Mixup):
        def loss(self, model, x, labels):
            return super().loss(model, x, labels)

    (x, labels), net = batch(), nn.Linear(4, 3)
    for outer in (RegMixup, InfiniteClass, lambda m: ManifoldMixup(m, (0,)), lambda m: LabelSmoothing(0.1, m)):
        same = [outer(kind(1.0, rng=0)).loss(net, x, labels) for kind in (WithSuper, Mixup)]
        assert torch.equal(*same)


INNER = {  # and what is special about each
    "Mixup(1.0)": None,
    "PuzzleMix(1.0)": "asks_model",
    "LabelSmoothing(0.1, PuzzleMix(1.0))": "asks_model",
    "ManifoldMixup(Mixup(1.0))": "mixes_inputs",
    "LabelSmoothing(0.1, ManifoldMixup(Mixup(1.0)))": "mixes_inputs",
    "InfiniteClass(Mixup(1.0))": "cross_entropy",
    "RegMixup(Mixup(1.0))": "own_loss",
    "LaMix()": "own_loss",
}
TAKES = {  # which special ones
    "LabelSmoothing(0.1, {})": ("asks_model", "mixes_inputs"),
    "InfiniteClass({})": ("asks_model", "mixes_inputs"),
    "RegMixup({})": ("asks_model", "cross_entropy"),
    "ManifoldMixup({})": (),
    "LaMix(0.5, {})": (),
}


@pytest.mark.parametrize("outer", TAKES)
def test_what_goes_inside_what_and_why_not(outer):
    for inner, special in INNER.items():
        expression = outer.format(inner)
        if special in (None, *TAKES[outer]) or expression == "LaMix(0.5, PuzzleMix(1.0))":
            assert describe(build_method(expression, seed=0))
        else:
            reason = f"(method|mixing) {inner.split('(')[0]} {REASONS[special]}"
            refuses(lambda text: build_method(text, seed=0), reason, expression)


# --- every method


TOGETHER = ["ERM()", "Mixup(1.0)", "CutMix(1.0, per_sample=True)", "Remix(1.0, [40, 20, 10, 5])", "KMixup(1.0, 3)"]
TOGETHER += ["ZetaMixup(2.8)", "ConfusionMixup(1.0, 1.0)", "PuzzleMix(1.0, blocks=(2, 4))"]
TOGETHER += ["ManifoldMixup(CutMix(1.0), (1, 3))", "ManifoldMixup(ZetaMixup(2.8))"]
TOGETHER += ["InfiniteClass(ManifoldMixup(KMixup(1.0, 2)))", "InfiniteClass(ConfusionMixup(1.0, 1.0))"]
TOGETHER += ["RegMixup(LabelSmoothing(0.1, CutMix(1.0)), eta=0.5)", "RegMixup(InfiniteClass(KMixup(1.0, 3)))"]
TOGETHER += ["LaMix(0.5, ConfusionMixup(1.0, 1.0))", "LaMix(0.5, PuzzleMix(1.0, blocks=(2, 4)))"]


@pytest.mark.parametrize("expression", TOGETHER)
def test_it_trains_every_weight_and_goes_on_after_a_restart_with_the_same_losses(expression):
    x, labels = images(7, 8, classes=4)

    def begin(seed):
        net, method = build("quick_resnet", 4, seed=seed), build_method(expression, seed=seed)
        method.prepare(net, labels.repeat(9))
        return net, method, torch.optim.SGD([*net.parameters(), *method.parameters()], lr=0.01)

    def step(net, method, optimiser):
        optimiser.zero_grad()
        loss = method.loss(net, x, labels)
        loss.backward()
        optimiser.step()
        return loss.item()

    def two_epochs(net, method, optimiser):
        losses = [step(net, method, optimiser)]
        method.end_epoch()  # with what it has seen before the file was written, too
        return [*losses, step(net, method, optimiser)]

    net, method, _ = first = begin(seed=0)
    assert np.isfinite(step(*first)) and np.isfinite(step(*first))
    for name, parameter in [*net.named_parameters(), *method.named_parameters()]:
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name
    method.end_epoch()
    step(*first)
    file = io.BytesIO()
    torch.save([part.state_dict() for part in first], file)
    expected = two_epochs(*first)
    file.seek(0)
    again = begin(seed=9)
    for part, state in zip(again, torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    assert two_epochs(*again) == expected


@pytest.mark.parametrize("name", ALL)
def test_every_method_takes_a_batch_of_one_and_refuses_none_and_a_parameter_that_makes_no_sense(name):
    kind, net, (x, labels) = ALL[name], build("quick_resnet", 10, seed=0), images(1)
    method = kind(**kind.defaults)
    method.prepare(net, labels)
    assert method.loss(net, x, labels).isfinite() and name in repr(method)
    refuses(lambda none: method.loss(net, none, labels[:0]), "x", x[:0])
    refuses(lambda short: method.loss(net, images(2)[0], short), "labels", labels)
    for parameter, standard in inspect.signature(kind).parameters.items():
        assert hasattr(method, parameter), "a record of a run asks for it by its name"
        if parameter != "rng" and not isinstance(standard.default, bool):
            wrong = [-1.0, NAN, "x", (), True, *([] if standard.default is None else [None])]
            refuses(lambda value, p=parameter: kind(**{**kind.defaults, p: value}), parameter, *wrong)


def test_parameters_have_ends():
    for name, wrong in {
        "LabelSmoothing": {"eps": 1.5},
        "LaMix": {"beta": 1.5},
        "ConfusionMixup": {"momentum": 1.5, "gamma": float("inf")},
        "Remix": {"kappa": 1.0, "tau": 1.5},
        "KMixup": {"k": 2.0},
        "ZetaMixup": {"n_mixed": 0},
        "PuzzleMix": {"labels": 1, "blocks": (2, 0)},
        "ManifoldMixup": {"stages": (0, 0.5)},
    }.items():
        for parameter, value in wrong.items():
            refuses(lambda v, k=ALL[name], p=parameter: k(**{**k.defaults, p: v}), parameter, value)


def test_numbers_of_numpy_and_torch_are_taken():
    for alpha in (np.float32(0.5), np.int64(1), torch.tensor(0.5), 1):
        assert type(Mixup(alpha).alpha) is float and Mixup(alpha).alpha == float(alpha)
    assert type(KMixup(1.0, np.int64(4)).k) is int and ManifoldMixup(Mixup(1.0), np.array([0, 3])).stages == (0, 3)


SPELLED = ["KMixup(alpha=0.5, k=4, cost='euclidean', per_sample=True)", "ZetaMixup(gamma=1.0, n_mixed=4)"]


def test_every_method_has_one_spelling():
    for expression in [*SPELLED, *(describe(kind(**kind.defaults)) for kind in ALL.values())]:
        assert describe(build_method(expression, seed=0)) == expression
    assert SPELLED == [repr(build_method(expression, seed=0)) for expression in SPELLED]


def test_a_split_plan_moves_whole():
    (x, labels), net = images(7, 8, classes=4), build("quick_resnet", 4, seed=0)
    for method in (Remix(1.0, [4, 3, 2, 1], rng=0), CutMix(1.0, True, rng=0), PuzzleMix(1.0, (2, 4), rng=0)):
        plan = method.draw_with_model(net, x, labels)
        moved = plan.to("cpu")
        assert torch.equal(moved.mix(x), plan.mix(x)) and torch.equal(moved.matrix(), plan.matrix())
        assert plan.to("meta").partner.device.type == plan.to("meta").mix(x.to("meta")).device.type == "meta"
