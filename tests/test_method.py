"""What every method shares: the generator and its state, workers, the way to a loss, wrappers, and what is refused."""

import copy
import io
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from mixlab import (
    ERM,
    CutMix,
    InfiniteClass,
    LabelSmoothing,
    LaMix,
    ManifoldMixup,
    Method,
    Mixup,
    PuzzleMix,
    RegMixup,
    one_hot,
    soft_cross_entropy,
)
from mixlab.method import Around, check_method


def batch(n=8, classes=3):
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, 4, generator=generator), torch.arange(n) % classes


def draws(method, count=5, n=8):
    x, labels = batch(n)
    return [(plan.partner.tolist(), plan.lam) for plan in (method.draw(x, labels) for _ in range(count))]


def test_same_seed_same_plans_and_another_seed_other_plans():
    assert draws(Mixup(1.0, rng=3)) == draws(Mixup(1.0, rng=np.random.default_rng(3)))
    assert draws(Mixup(1.0, rng=3)) != draws(Mixup(1.0, rng=4))


def test_global_random_state_is_neither_used_nor_changed():
    torch.manual_seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002  (looked at, not drawn from)
    first = draws(Mixup(1.0, rng=1))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    torch.manual_seed(99)
    assert draws(Mixup(1.0, rng=1)) == first


@pytest.mark.parametrize("method", [Mixup(1.0, rng=0), LabelSmoothing(0.1, Mixup(1.0, rng=0))], ids=["mixup", "nested"])
def test_state_dict_continues_the_same_draws(method):
    draws(method)
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    expected = draws(method)
    file.seek(0)
    other = copy.deepcopy(method)
    draws(other, count=2)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert draws(other) == expected


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


@pytest.mark.filterwarnings("ignore:This DataLoader will create", "ignore:.*fork")
@pytest.mark.parametrize("workers", [0, 2, 4])
def test_workers_draw_differently_from_each_other_and_in_every_epoch(workers):
    found = over_three_epochs(workers, seed=0)
    assert len({lam for lam, _ in found}) == len(found) == 18
    assert over_three_epochs(workers, seed=0) == found != over_three_epochs(workers, seed=1)
    if workers == 0:
        method = Mixup(1.0, rng=0)
        assert [Collate(method)([torch.zeros(2)] * 16) for _ in range(18)] == found


def test_loss_is_draw_apply_score():
    x, labels = batch()
    net = nn.Linear(4, 3)
    plan = Mixup(1.0, rng=2).draw(x, labels)
    by_hand = soft_cross_entropy(net(plan.mix(x)), plan.mix_labels(one_hot(labels, 3)))
    assert torch.equal(Mixup(1.0, rng=2).loss(net, x, labels), by_hand)
    assert torch.equal(Mixup(1.0, rng=2).loss(net, x, one_hot(labels, 3)), by_hand), "soft labels may be handed in"


def test_called_like_a_transform_it_returns_mixed_inputs_and_labels():
    x, labels = batch()
    plan = Mixup(1.0, rng=2).draw(x, labels)
    for arguments in ((labels, 3), (one_hot(labels, 3),)):
        mixed, y = Mixup(1.0, rng=2)(x, *arguments)
        assert torch.equal(mixed, plan.mix(x)) and torch.equal(y, plan.mix_labels(one_hot(labels, 3)))
    with pytest.raises(ValueError, match="num_classes"):
        Mixup(1.0)(x, labels)


def test_soft_cross_entropy_is_its_formula():
    logits, y = torch.randn(5, 4, dtype=torch.float64), torch.rand(5, 4, dtype=torch.float64).softmax(1)
    assert torch.allclose(soft_cross_entropy(logits, y), -(y * logits.log_softmax(1)).sum(1).mean())
    assert soft_cross_entropy(logits.bfloat16(), y.float()).dtype == torch.float32
    for wrong, complaint in ((y[:, :3], "logits"), (2 * y, "y must sum to one"), (y - 1, "y must sum to one")):
        with pytest.raises(ValueError, match=complaint):
            soft_cross_entropy(logits, wrong)


class Recording(ERM):
    """Writes down what it is asked."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def __getattribute__(self, name):
        hooks = ("prepare", "draw", "draw_with_model", "run", "targets", "observe", "end_epoch")
        if name in hooks:
            self.asked.append(name)
        return super().__getattribute__(name)


def test_a_wrapper_hands_everything_on():
    inner, (x, labels) = Recording(), batch()
    method, net = Around(inner), nn.Linear(4, 3)
    method.prepare(net, labels)
    method.draw(x, labels)
    method.loss(net, x, labels)
    method.end_epoch()
    asked = ["prepare", "draw", "run", "draw_with_model", "draw", "observe", "targets", "end_epoch"]
    assert inner.asked == asked


def test_a_method_learns_from_the_answers_to_its_mix():
    class Learning(Mixup):
        def observe(self, logits, plan, labels):
            self.seen = logits, plan.lam, labels

    x, labels = batch()
    net, inner = nn.Linear(4, 3), Learning(1.0, rng=0)
    LabelSmoothing(0.1, inner).loss(net, x, labels)
    plan = Mixup(1.0, rng=0).draw(x, labels)
    assert torch.equal(inner.seen[0], net(plan.mix(x))) and inner.seen[1] == plan.lam and inner.seen[2] is labels


def test_a_wrapper_is_what_its_method_is():
    inner = ERM()
    for name in ("mixes_inputs", "asks_model", "own_loss", "cross_entropy"):
        setattr(inner, name, not getattr(Method, name))
        assert getattr(Around(inner), name) == getattr(inner, name) != getattr(Method, name)


class WithSuper(Mixup):
    """A student's method that only looks at the loss."""

    def loss(self, model, x, labels):
        return super().loss(model, x, labels)


@pytest.mark.parametrize("name", ["mixes_inputs", "asks_model", "own_loss", "cross_entropy"])
def test_a_method_is_refused_for_what_it_says_of_itself_and_for_nothing_else(name):
    method, usual = WithSuper(1.0), getattr(Method, name)
    assert check_method("mixing", method, **{name: usual}) is method
    setattr(method, name, not usual)
    with pytest.raises(ValueError, match=r"mixing WithSuper .*: put it outside"):
        check_method("mixing", method, "put it outside", **{name: usual})


def test_label_smoothing_goes_around_what_is_scored_by_cross_entropy():
    x, labels = batch()
    net = nn.Linear(4, 3)
    same = [LabelSmoothing(0.1, kind(1.0, rng=0)).loss(net, x, labels) for kind in (WithSuper, Mixup)]
    assert torch.equal(*same)
    for name in ("own_loss", "cross_entropy"):
        inner = Mixup(1.0)
        setattr(inner, name, not getattr(inner, name))
        with pytest.raises(ValueError, match="method Mixup"):
            LabelSmoothing(0.1, inner)


@pytest.mark.parametrize("wrong", [-0.1, math.nan, math.inf, "1", None, True, [1.0], torch.ones(2)])
def test_a_bad_number_is_named(wrong):
    for call, name in ((Mixup, "alpha"), (LabelSmoothing, "eps")):
        with pytest.raises(ValueError, match=f"^{name} must be"):
            call(wrong)


@pytest.mark.parametrize("wrong", ["Mixup(1.0)", Mixup, 0.5, nn.Linear(1, 1)])
def test_what_is_no_method_is_named(wrong):
    with pytest.raises(ValueError, match=r"^method must be"):
        LabelSmoothing(0.1, wrong)


def test_numbers_of_numpy_and_torch_are_taken():
    for alpha in (np.float32(0.5), np.int64(1), torch.tensor(0.5), 1):
        assert type(Mixup(alpha).alpha) is float and Mixup(alpha).alpha == float(alpha)


@pytest.mark.parametrize("method", [ERM(), Mixup(1.0), LabelSmoothing(0.1)], ids=["erm", "mixup", "smoothing"])
def test_bad_batches_are_refused_by_name(method):
    net = nn.Linear(4, 3)
    for x, labels, name in [
        (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), "x"),
        (torch.zeros(3, 4), torch.zeros(2, dtype=torch.int64), "labels"),
        (torch.zeros(2, 4), torch.tensor([0, 3]), "labels"),
        (torch.zeros(2, 4), torch.ones(2, 3), "y"),
    ]:
        with pytest.raises(ValueError, match=rf"\b{name}\b"):
            method.loss(net, x, labels)


def test_a_method_that_draws_nothing_says_so():
    with pytest.raises(NotImplementedError, match="Method"):
        Method().draw(*batch())


def test_a_method_that_needs_the_model_does_not_stand_in_a_plain_loop_as_plain_mixup():
    """Called on a batch alone, it could only do what its inner method does, in silence."""
    x, labels = torch.rand(6, 3, 8, 8), torch.arange(6) % 3
    for method in (RegMixup(Mixup(1.0)), ManifoldMixup(Mixup(1.0)), InfiniteClass(Mixup(1.0)), LaMix(), PuzzleMix(1.0)):
        with pytest.raises(ValueError, match=type(method).__name__):
            method(x, labels, num_classes=3)
    mixed, y = CutMix(1.0, rng=0)(x, labels, num_classes=3)
    assert mixed.shape == x.shape and torch.allclose(y.sum(1), torch.ones(6))
