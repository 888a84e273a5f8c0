"""Confusion-guided mixup: each step against its definition, what it learns from and when, state."""

import io
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mixlab import ConfusionMixup, InfiniteClass, LabelSmoothing, Mixup, Pairs, one_hot, soft_cross_entropy
from mixlab.birkhoff import birkhoff
from mixlab.confusion import increment, pairing_matrix, row_probabilities, sinkhorn

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))]


def positive(classes, seed=0, spread=1.0):
    """Lognormal entries: as uneven as a real confusion matrix, and more with a larger spread."""
    return torch.from_numpy(np.random.default_rng(seed).lognormal(0, spread, (classes, classes)))


def rebuilt(weights, permutations):
    """The matrix that a decomposition comes from."""
    return torch.einsum("k,kab->ab", weights, nn.functional.one_hot(permutations, permutations.shape[1]).double())


def pairs_counted(labels, partner, classes):
    """(c, c): how many samples of class a have a partner of class b."""
    return one_hot(labels, classes).double().T @ one_hot(labels[partner], classes).double()


# --- increment and rows


def slow_increment(probabilities, y):
    total = torch.zeros(y.shape[1], y.shape[1], dtype=torch.float64)
    for p, label in zip(probabilities.double(), y.double(), strict=True):
        delta = torch.outer(label, p)
        for true in label.nonzero()[:, 0]:
            delta[:, true] = 0
        total += delta
    return total


@given(st.integers(1, 9), st.integers(1, 6), st.sampled_from([1.0, 0.7, 0.5, 0.0]))
def test_increment_is_the_papers_outer_product_without_the_true_columns(n, classes, lam):
    rng = np.random.default_rng(n)
    probabilities = torch.from_numpy(rng.dirichlet(np.ones(classes), n))
    labels, partner = torch.from_numpy(rng.integers(classes, size=n)), torch.from_numpy(rng.permutation(n))
    y = Pairs(partner, lam).mix_labels(one_hot(labels, classes))
    added = increment(probabilities, y)
    assert torch.allclose(added, slow_increment(probabilities, y)) and (added.diagonal() == 0).all()


def test_increment_by_hand_for_a_pair_an_index_and_any_soft_label():
    p = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    pair = increment(p, torch.tensor([[0.75, 0.0, 0.25, 0.0]]))
    assert torch.allclose(pair[[0, 2]], torch.tensor([[0, 0.15, 0, 0.3], [0, 0.05, 0, 0.1]]).double())
    assert (pair[[1, 3]] == 0).all()
    assert torch.equal(increment(p, torch.tensor([1])), increment(p, torch.tensor([[0.0, 1.0, 0.0, 0.0]])))
    assert torch.allclose(increment(p, torch.tensor([1]))[1], torch.tensor([0.1, 0, 0.3, 0.4]).double())
    three = increment(p, torch.tensor([[0.5, 0.25, 0.25, 0.0]]))
    assert (three[:, :3] == 0).all() and torch.allclose(three[:, 3], torch.tensor([0.2, 0.1, 0.1, 0.0]).double())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_increment_keeps_its_digits_under_half_precision(dtype):
    probabilities = torch.rand(512, 10, generator=torch.Generator().manual_seed(0)).softmax(1).to(dtype)
    y = one_hot(torch.arange(512) % 10, 10)
    with torch.autocast("cpu", torch.bfloat16):
        added = increment(probabilities, y)
    assert added.dtype == torch.float64 and torch.allclose(added, slow_increment(probabilities, y), rtol=1e-12)


def test_rows_by_hand_with_a_class_never_seen_and_one_never_confused():
    counts = torch.tensor([[9.0, 3.0, 1.0, 0.0], [0.0] * 4, [0.0, 0.0, 5.0, 0.0], [1.0, 1.0, 1.0, 0.0]])
    previous = torch.tensor([[0.25] * 4, [0.4, 0.25, 0.3, 0.05], [0.25] * 4, [0.25] * 4], dtype=torch.float64)
    rows = row_probabilities(counts, torch.tensor([13.0, 0.0, 5.0, 3.0]), previous)
    expected = [[0.25, 0.5625, 0.1875, 0.0], [0.4, 0.25, 0.3, 0.05], [0.25] * 4, [0.25] * 4]
    assert torch.allclose(rows, torch.tensor(expected, dtype=torch.float64))


# --- Sinkhorn, the power, Birkhoff


@pytest.mark.parametrize("classes, spread", [(1, 2.0), (2, 2.0), (10, 0.1), (10, 2.0), (100, 2.0)])
def test_sinkhorn_is_doubly_stochastic_and_only_scales_rows_and_columns(classes, spread):
    matrix = positive(classes, spread=spread)
    balanced = sinkhorn(matrix)
    assert (balanced.sum(0) - 1).abs().max() <= 1e-9 and (balanced.sum(1) - 1).abs().max() <= 1e-14
    scale = (balanced / matrix).log()  # log of u_a v_b: differences of two rows do not depend on the column
    assert (scale - scale[:1] - scale[:, :1] + scale[0, 0]).abs().max() < 1e-8


def test_sinkhorn_keeps_the_zeros_of_a_matrix_with_total_support():
    matrix = torch.eye(5) + torch.eye(5).roll(1, 1) * 3
    matrix[0, 0] = 7.0
    balanced = sinkhorn(matrix)
    assert ((balanced == 0) == (matrix == 0)).all() and (balanced.sum(0) - 1).abs().max() <= 1e-9


def test_every_entry_gets_the_power_the_diagonal_too():
    average = row_probabilities(positive(6), torch.ones(6), torch.ones(6, 6))
    for gamma in (0.25, 2.0):
        matrix = pairing_matrix(average, gamma)
        cross = matrix[0, 0] * matrix[1, 2] / (matrix[0, 2] * matrix[1, 0])  # what scaling leaves as it is
        expected = (average[0, 0] * average[1, 2] / (average[0, 2] * average[1, 0])) ** gamma
        assert torch.isclose(cross, expected)


def test_gamma_zero_is_even_and_small_gamma_comes_near_it_even_with_zeros():
    average = torch.eye(4, dtype=torch.float64) / 4 + torch.eye(4).roll(1, 1) * 0.75
    assert torch.allclose(pairing_matrix(average, 0.0), torch.full((4, 4), 0.25, dtype=torch.float64), atol=1e-15)
    gaps = [float((pairing_matrix(average, gamma) - 0.25).abs().max()) for gamma in (1e-2, 1e-3, 1e-4)]
    assert gaps[0] < 0.05 and gaps[2] < 5e-4 < gaps[1]  # in proportion to gamma; without the floor it stays at 0.25


@pytest.mark.parametrize("gamma", [2.0, 16.0])
def test_classes_that_hardly_meet_are_balanced_too(gamma):
    """0 and 2 have eyes for each other alone: plain sweeps come near at the rate 1/sweeps and would take for ever."""
    average = torch.tensor([[1 / 3, 0.0, 2 / 3], [1 / 3, 1 / 3, 1 / 3], [2 / 3, 0.0, 1 / 3]])
    matrix = pairing_matrix(average, gamma)
    assert (matrix.sum(0) - 1).abs().max() <= 1e-9 and (matrix.sum(1) - 1).abs().max() <= 1e-14
    own = 1 / (1 + 2**gamma)  # balanced, the pair keeps its odds of 1 to 2^gamma
    expected = torch.tensor([[own, 0, 1 - own], [0, 1, 0], [1 - own, 0, own]], dtype=torch.float64)
    assert torch.allclose(matrix, expected, atol=1e-2 if gamma == 2 else 1e-4)
    assert torch.allclose(rebuilt(*birkhoff(matrix)), matrix, atol=1e-7)


def test_a_newton_step_does_not_overshoot():
    uneven = positive(30, seed=30, spread=6.0)
    matrix = pairing_matrix(row_probabilities(uneven, torch.ones(30), uneven), 16.0)  # undamped, a column underflows
    assert (matrix.sum(0) - 1).abs().max() <= 1e-9


def test_support_that_is_not_total_ends_in_the_limit():
    assert torch.allclose(sinkhorn(torch.tensor([[1.0, 1.0], [0.0, 1.0]])), torch.eye(2).double(), atol=1e-8)


def test_what_makes_no_sense_is_refused_by_name():
    no_room = [[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    for matrix in (no_room, [[0.0, 0.0], [1.0, 1.0]], [[1.0, -1.0], [1.0, 1.0]], [[float("nan")]], [[1.0, 1.0]]):
        with pytest.raises(ValueError, match=r"^matrix "):
            sinkhorn(torch.tensor(matrix))
    with pytest.raises(ValueError, match=r"^matrix "):  # too large a gamma underflows: refused, and never NaN
        pairing_matrix(row_probabilities(positive(4, spread=3.0), torch.ones(4), torch.ones(4, 4)), 4000.0)
    for sweeps in (0, -1, 1.5, None):
        with pytest.raises(ValueError, match=r"^sweeps "):
            sinkhorn(torch.ones(2, 2), sweeps=sweeps)
    wrong = {name: (-1.0, float("nan"), "1", None, [1.0]) for name in ("alpha", "gamma", "momentum")}
    for name, values in {**wrong, "sampler": ("random", None)}.items():
        for value in values:
            with pytest.raises(ValueError, match=f"^{name} "):
                ConfusionMixup(**{"alpha": 1.0, "gamma": 1.0, name: value})
    for value in (float("nan"), float("inf"), -1.0):
        with pytest.raises(ValueError, match=r"^counts .*diverge"):
            row_probabilities(torch.full((2, 2), value), torch.ones(2), torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"^counts, seen and previous "):
        row_probabilities(torch.ones(2, 2), torch.ones(3), torch.ones(2, 2))
    for probabilities, y, name in ((torch.zeros(2, 3).long(), [0, 1], "probabilities"), (torch.rand(2, 3), [0], "y")):
        with pytest.raises(ValueError, match=f"^{name} "):
            increment(probabilities, torch.tensor(y))
    for logits, labels in ((torch.zeros(2, 4), [0, 1]), (torch.zeros(2, 3), [0, 3]), (torch.zeros(2, 3), [0.0, 1.0])):
        with pytest.raises(ValueError, match=r"^(logits|labels) "):
            taught().observe(logits, None, torch.tensor(labels))


# --- the method


def batch(n=30, classes=3):
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, 4, generator=generator), torch.arange(n) % classes


def taught(gamma=1.0, sampler="birkhoff", epochs=2, rng=0):
    """A method that has seen a network confuse 0 with 1."""
    method = ConfusionMixup(1.0, gamma, sampler=sampler, rng=rng)
    logits = torch.tensor([[3.0, 2.0, 0.0], [2.0, 3.0, 0.0], [0.0, 0.0, 3.0]])[torch.arange(30) % 3]
    for _ in range(epochs):
        method.observe(logits, None, torch.arange(30) % 3)
        method.end_epoch()
    return method


def test_the_average_is_raw_and_m_is_made_of_it():
    method = ConfusionMixup(1.0, 2.0, momentum=0.25, rng=0)
    average = torch.full((3, 3), 1 / 3, dtype=torch.float64)
    for epoch in range(3):
        logits, y = torch.randn(30, 3), one_hot(torch.arange(30) % 3, 3)
        for part in (slice(0, 20), slice(20, 30)):  # two batches
            method.observe(logits[part], None, y[part])
        counts = slow_increment(logits.double().softmax(1), y)
        average = 0.25 * average + 0.75 * row_probabilities(counts, y.sum(0), average)
        method.end_epoch()
        assert torch.allclose(method.average, average), epoch
        assert torch.allclose(method.pairing, sinkhorn(average**2)) and method.counts is None


def test_confused_classes_meet_more_often():
    """Chance is 1/3; M_01 is measured 0.47 at gamma 1."""
    labels, method = torch.arange(300) % 3, taught()
    counted = pairs_counted(labels, method.draw(torch.zeros(300, 1), labels).partner, 3) / 100
    assert method.pairing[0, 1] > 0.45 and method.pairing[1, 0] > 0.45 > 0.3 > method.pairing[0, 2]
    assert (counted - method.pairing).abs().max() < 4 * (0.25 / 100) ** 0.5


@pytest.mark.parametrize("sampler", ["birkhoff", "sequential"])
def test_gamma_zero_and_the_first_epoch_are_mixup_bit_for_bit(sampler):
    x, labels = batch()
    even, first, mixup = taught(0.0, sampler), ConfusionMixup(1.0, 2.0, sampler=sampler, rng=0), Mixup(1.0, rng=0)
    for _ in range(3):
        plan, expected = even.draw(x, labels), mixup.draw(x, labels)
        assert torch.equal(plan.partner, expected.partner) and plan.lam == expected.lam
    net = nn.Linear(4, 3)
    again = Mixup(1.0, rng=0)
    for _ in range(3):
        assert torch.equal(first.loss(net, x, labels), again.loss(net, x, labels))


def test_loss_is_draw_apply_score_and_counts_what_was_predicted():
    x, labels = batch()
    net, method, same = nn.Linear(4, 3), taught(), taught()
    loss = method.loss(net, x, labels)
    plan = same.draw(x, labels)
    logits, y = net(plan.mix(x)), plan.mix_labels(one_hot(labels, 3))
    assert torch.equal(loss, soft_cross_entropy(logits, y)) and loss.requires_grad
    assert torch.allclose(method.counts, slow_increment(logits.detach().softmax(1), y), atol=1e-6)
    assert torch.allclose(method.seen, y.sum(0)) and not method.counts.requires_grad


def test_a_class_missing_from_an_epoch_keeps_its_row():
    method = taught()
    before = method.average.clone()
    method.observe(torch.tensor([[2.0, 0.0, 1.0], [0.0, 2.0, 1.0]]), None, torch.tensor([0, 1]))
    method.end_epoch()
    assert torch.equal(method.average[2], before[2]) and not torch.equal(method.average[0], before[0])


@pytest.mark.parametrize("kind", ["int64", "uint8", "soft", "half"])
def test_it_counts_for_indices_and_soft_labels_mixed_by_the_plan(kind):
    """In float64 whatever the logits' type; with no plan the labels are those of the mix already."""
    labels, plan, logits = torch.arange(30) % 3, Pairs(torch.randperm(30), 0.3), 3 * torch.randn(30, 3)
    logits = logits.half() if kind == "half" else logits
    sort = {"uint8": labels.byte(), "soft": one_hot(labels, 3)}.get(kind, labels)
    y = plan.mix_labels(one_hot(labels, 3))
    method, mixed = ConfusionMixup(1.0, 1.0), ConfusionMixup(1.0, 1.0)
    method.observe(logits, plan, sort)
    mixed.observe(logits, None, y)
    expected = slow_increment(logits.double().softmax(1), y)
    assert torch.allclose(method.counts, expected, rtol=1e-10) and torch.equal(method.counts, mixed.counts)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_any_batch_and_dtype(device, dtype, n):
    (x, labels), net = batch(n), nn.Linear(4, 3).to(device, dtype)
    method = taught().to(device)
    for y in (labels, one_hot(labels, 3)):
        loss = method.loss(net, x.to(device, dtype), y.to(device))
        assert loss.isfinite() and method.counts.device.type == device
        method.end_epoch()
        assert method.average.isfinite().all() and torch.allclose(method.average.sum(1), torch.ones(3).double())


def test_a_forgotten_end_of_epoch_is_noticed():
    """A second pass over the training set without it brings a warning; with it there is none."""
    x, labels = batch(30)
    right, wrong = ConfusionMixup(1.0, 1.0, rng=0), ConfusionMixup(1.0, 1.0, rng=0)
    net = nn.Linear(4, 3)
    right.prepare(net, labels.repeat(4)), wrong.prepare(net, labels.repeat(4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            for _ in range(4):
                right.loss(net, x, labels)
            right.end_epoch()
        for _ in range(6):
            wrong.loss(net, x, labels)
    with pytest.warns(UserWarning, match="end_epoch"):
        wrong.loss(net, x, labels)
    unprepared = ConfusionMixup(1.0, 1.0, rng=0)  # knows no training set, and still cannot be mixup in silence
    with pytest.warns(UserWarning, match="end_epoch"):
        for _ in range(100):
            unprepared.loss(net, x, labels)
    with pytest.raises(ValueError, match="ConfusionMixup"):
        ConfusionMixup(1.0, 1.0).end_epoch()  # nothing was seen


@pytest.mark.parametrize("around", [lambda m: LabelSmoothing(0.1, m), InfiniteClass])
def test_it_counts_the_predictions_whoever_scores_them(around):
    (x, labels), net = batch(), nn.Linear(4, 3)
    inside, outside = taught(), taught()
    inside.loss(net, x, labels)
    around(outside).loss(net, x, labels)
    assert torch.equal(inside.counts, outside.counts) and outside.seen.sum().item() == pytest.approx(30)


@pytest.mark.parametrize("sampler", ["birkhoff", "sequential"])
def test_state_dict_continues_the_same_draws(sampler):
    (x, labels), method = batch(), taught(sampler=sampler)
    method.observe(torch.randn(30, 3), None, labels)  # in the middle of an epoch
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    expected = method.draw(x, labels).partner.tolist()
    file.seek(0)
    for other in (ConfusionMixup(1.0, 1.0, sampler=sampler, rng=9), taught(sampler=sampler, epochs=1, rng=9)):
        other.load_state_dict(torch.load(file, weights_only=True))
        file.seek(0)
        assert torch.equal(other.pairing, method.pairing) and torch.equal(other.counts, method.counts)
        assert other.draw(x, labels).partner.tolist() == expected
