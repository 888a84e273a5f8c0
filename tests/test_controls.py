import numpy as np
import pytest
import torch

from mixlab import ConfusionMixup, CutMix, KMixup, Mixup, ZetaMixup
from mixlab.controls import EvenTail, InTurn, Nearest, OneLabel, PriorScores, ShuffledConfusion, WithinClass
from mixlab.plans import one_hot
from mixlab.results.expressions import build_method, describe

EXPRESSIONS = [
    "InTurn(method=Mixup(alpha=1.0))",
    "LabelSmoothing(eps=0.5, method=InTurn(method=Averaged(method=Mixup(alpha=1.0, per_sample=True))))",
    "WithinClass(alpha=1.0, part=0.5)",
    "Nearest(alpha=1.0, k=4)",
    "EvenTail(gamma=2.8)",
    "OnTop(method=CutMix(alpha=1.0), first=ZetaMixup(gamma=2.8))",
    "OneLabel(method=Mixup(alpha=1.0))",
    "GreyBoxes(alpha=1.0)",
    "ShuffledConfusion(alpha=1.0, gamma=2.0)",
    "PriorScores(method=Mixup(alpha=0.2))",
]
LABELS = torch.arange(5).repeat_interleave(4)
X = torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_control_has_a_word_trains_and_goes_on_where_it_was_stopped(expression):
    method, again = build_method(expression, 0), build_method(expression, 0)
    assert describe(method) == expression
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5))
    for one in (method, again):
        one.prepare(model, LABELS)
    for _ in range(3):
        assert torch.isfinite(method.loss(model, X, LABELS))
        method.end_epoch()
    again.load_state_dict(method.state_dict())
    assert torch.equal(method.loss(model, X, LABELS), again.loss(model, X, LABELS))


def test_in_turn_is_clean_first_and_then_every_other_time():
    method = InTurn(Mixup(1.0, rng=0))
    clean = [torch.equal(method.draw(X, LABELS).mix(X), X) for _ in range(4)]
    assert clean == [True, False, True, False]


@pytest.mark.parametrize(("part", "least", "most"), [(0.0, 0.05, 0.3), (0.5, 0.5, 0.75), (1.0, 1.0, 1.0)])
def test_so_large_a_part_meets_its_own_class_and_partners_are_a_permutation(part, least, most):
    method, x, labels = WithinClass(1.0, part, rng=0), torch.randn(400, 2), torch.arange(400) % 10
    partner = method.draw(x, labels).partner
    assert least <= (labels[partner] == labels).float().mean() <= most
    assert torch.equal(partner.sort().values, torch.arange(400))
    assert part < 1 or (partner != torch.arange(400)).all()


def test_nearest_partners_are_the_nearest_of_those_that_k_mixup_faces():
    nearest, matched = Nearest(1.0, 4, rng=3), KMixup(1.0, 4, rng=3)
    own, other = nearest.draw(X, LABELS), matched.draw(X, LABELS)
    k, order, _ = KMixup(1.0, 4, rng=3).deal(20)
    facing = order.roll(-k)
    for i in range(20):
        row = int((order == i).nonzero())
        block = facing[row // k * k : row // k * k + k]
        assert own.partner[i] == block[(X[block] - X[i]).flatten(1).norm(dim=1).argmin()]
    assert own.lam == other.lam


def test_an_even_tail_keeps_the_own_weight_and_the_pictures():
    zeta, even = ZetaMixup(2.0, rng=1), EvenTail(2.0, rng=1)
    plan, same = zeta.draw(X, LABELS), even.draw(X, LABELS)
    y = even.targets(same, LABELS, 5)
    own = plan.matrix().diagonal()
    assert torch.equal(plan.mix(X), same.mix(X))
    assert torch.allclose(y.sum(1), torch.ones(20))
    assert torch.allclose(y[:, 4].double()[LABELS != 4], ((1 - own) / 5)[LABELS != 4])


def test_cutmix_on_top_pastes_what_the_first_has_mixed():
    both = build_method("OnTop(CutMix(1.0), ZetaMixup(2.8))", 0)
    plan = both.draw(X, LABELS)
    assert torch.allclose(plan.mix(X), plan.second.mix(plan.first.mix(X)))
    y = one_hot(LABELS, 5)
    assert torch.allclose(plan.mix_labels(y).double(), plan.matrix() @ y.double(), atol=1e-6)
    assert isinstance(both.method, CutMix)


def test_one_label_is_the_heavier_one():
    method = OneLabel(Mixup(1.0, per_sample=True, rng=0))
    plan = method.draw(X, LABELS)
    heavier = torch.where(plan.lam > 0.5, LABELS, LABELS[plan.partner])
    assert torch.equal(method.targets(plan, LABELS, 5).argmax(1), heavier)


def test_grey_boxes_hide_what_cutmix_pastes_over_and_keep_the_label():
    x = X + 10
    grey, pasted = (build_method(f"{name}(1.0)", 1).draw(x, LABELS) for name in ("GreyBoxes", "CutMix"))
    hidden = grey.mix(x) == 0
    assert hidden.any() and torch.equal(hidden, torch.broadcast_to(pasted.inside(x), x.shape))
    assert torch.equal(grey.mix_labels(one_hot(LABELS, 5)), one_hot(LABELS, 5))


def test_shuffled_confusion_is_the_same_matrix_with_its_classes_exchanged():
    real, shuffled = ConfusionMixup(1.0, 2.0, rng=0), ShuffledConfusion(1.0, 2.0, rng=0)
    scores = torch.randn(20, 5, generator=torch.Generator().manual_seed(1)) * 3
    for method in (real, shuffled):
        method.prepare(None, LABELS)
        method.observe(scores, None, LABELS)
        method.end_epoch()
    e = shuffled.exchanged
    assert not torch.equal(e, torch.arange(5))
    assert torch.allclose(real.pairing[e][:, e], shuffled.pairing, atol=1e-6)
    assert torch.equal(real.average, shuffled.average)


def test_prior_scores_shift_the_loss_by_the_classes_shares():
    labels = torch.tensor([0, 0, 0, 1])
    method = PriorScores(Mixup(0.0))
    method.prepare(None, labels)
    even = torch.zeros(4, 2)
    expected = -np.log([0.75, 0.75, 0.75, 0.25]).mean()
    plan = method.draw(torch.zeros(4, 3), labels)
    assert float(method.score(even, plan, labels)) == pytest.approx(expected)
