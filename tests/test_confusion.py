"""Confusion-guided mixup: each step against its definition, both samplers against exact probabilities, state."""

import io
import itertools
from dataclasses import replace
from functools import cache
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mixlab import ConfusionMixup, Mixup, Pairs, one_hot, soft_cross_entropy
from mixlab.birkhoff import birkhoff, pair_birkhoff, pair_layers, pair_sequential
from mixlab.confusion import increment, pairing_matrix, row_probabilities, sinkhorn
from mixlab.data.sets import load
from mixlab.data.toys import one_ring
from mixlab.results import papers, records, runs
from mixlab.training.loop import Diverged, Training, fit
from mixlab.training.models import build
from mixlab.training.recipes import Recipe
from mixlab.training.sweeps import fit_many

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))]
# 0 and 1 are confused with each other, 2 with nothing in particular; doubly stochastic as it stands
M3 = torch.tensor([[0.3, 0.6, 0.1], [0.5, 0.2, 0.3], [0.2, 0.2, 0.6]], dtype=torch.float64)


def positive(classes, seed=0, spread=1.0):
    """Lognormal entries: as uneven as a real confusion matrix, and more with a larger spread."""
    return torch.from_numpy(np.random.default_rng(seed).lognormal(0, spread, (classes, classes)))


def rebuilt(weights, permutations):
    """sum_k weights[k] times the matrix of permutation k."""
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


def test_increment_refuses_by_name():
    with pytest.raises(ValueError, match="probabilities must be floating point"):
        increment(torch.zeros(2, 3, dtype=torch.int64), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="y has 1 rows, probabilities 2"):
        increment(torch.rand(2, 3), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2"):
        increment(torch.rand(2, 3), torch.tensor([0, 3]))


def test_rows_by_hand_with_a_class_never_seen_and_one_never_confused():
    counts = torch.tensor([[9.0, 3.0, 1.0, 0.0], [0.0] * 4, [0.0, 0.0, 5.0, 0.0], [1.0, 1.0, 1.0, 0.0]])
    previous = torch.tensor([[0.25] * 4, [0.4, 0.25, 0.3, 0.05], [0.25] * 4, [0.25] * 4], dtype=torch.float64)
    rows = row_probabilities(counts, torch.tensor([13.0, 0.0, 5.0, 3.0]), previous)
    expected = [[0.25, 0.5625, 0.1875, 0.0], [0.4, 0.25, 0.3, 0.05], [0.25] * 4, [0.25] * 4]
    assert torch.allclose(rows, torch.tensor(expected, dtype=torch.float64))


def test_rows_of_one_class_and_of_a_diverged_network():
    one = row_probabilities(torch.zeros(1, 1), torch.ones(1), torch.ones(1, 1))
    assert torch.equal(one, torch.ones(1, 1, dtype=torch.float64))
    for bad in (float("nan"), float("inf"), -1.0):
        with pytest.raises(ValueError, match="counts must be finite"):
            row_probabilities(torch.full((2, 2), bad), torch.ones(2), torch.ones(2, 2))
    with pytest.raises(ValueError, match="counts, seen and previous must have shapes"):
        row_probabilities(torch.ones(2, 2), torch.ones(3), torch.ones(2, 2))


# --- Sinkhorn, the power, Birkhoff


@pytest.mark.parametrize("classes", [1, 2, 3, 10, 100])
@pytest.mark.parametrize("spread", [0.1, 2.0])
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


@pytest.mark.parametrize(
    "matrix, problem",
    [
        ([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]], r"cannot be made .*, after 1,000 sweeps"),  # no support
        ([[0.0, 0.0], [1.0, 1.0]], "a row or a column of zeros"),
        ([[1.0, -1.0], [1.0, 1.0]], "finite numbers >= 0"),
        ([[1.0, float("nan")], [1.0, 1.0]], "finite numbers >= 0"),
        ([[1.0, 1.0]], r"\(c, c\) with c >= 1, not \(1, 2\)"),
    ],
)
def test_sinkhorn_says_what_it_cannot_balance(matrix, problem):
    with pytest.raises(ValueError, match=problem):
        sinkhorn(torch.tensor(matrix))


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


@pytest.mark.parametrize("classes", [3, 10, 100])
def test_gamma_eight_and_a_hundred_classes_are_right(classes):
    average = row_probabilities(positive(classes), torch.ones(classes), torch.ones(classes, classes))
    matrix = pairing_matrix(average, 8.0)
    assert (matrix.sum(0) - 1).abs().max() <= 1e-9 and matrix.max() > 0.75
    weights, permutations = birkhoff(matrix)
    assert torch.allclose(rebuilt(weights, permutations), matrix, atol=1e-7)


@pytest.mark.parametrize("gamma", [2.0, 4.0, 8.0, 16.0])
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


def test_too_large_a_gamma_is_refused_and_never_nan():
    average = row_probabilities(positive(4, spread=3.0), torch.ones(4), torch.ones(4, 4))
    with pytest.raises(ValueError, match="a row or a column of zeros"):
        pairing_matrix(average, 4000.0)
    with pytest.raises(ValueError, match="gamma must be a finite number >= 0"):
        pairing_matrix(average, -1.0)


@given(st.integers(1, 8), st.sampled_from([0.1, 1.0, 3.0]))
def test_birkhoff_is_a_mean_of_permutations(classes, spread):
    matrix = sinkhorn(positive(classes, spread=spread))
    weights, permutations = birkhoff(matrix)
    assert (weights > 0).all() and abs(float(weights.sum()) - 1) < 1e-12
    assert (permutations.sort(1).values == torch.arange(classes)).all()
    assert len(weights) <= (classes - 1) ** 2 + 1 + 1  # one more for what balancing leaves open
    assert torch.allclose(rebuilt(weights, permutations), matrix, atol=1e-8)


def test_birkhoff_by_hand_and_what_it_refuses():
    weights, permutations = birkhoff(torch.tensor([[0.75, 0.25], [0.25, 0.75]]))
    assert weights.tolist() == [0.75, 0.25] and permutations.tolist() == [[0, 1], [1, 0]]
    sparse = torch.eye(4).roll(1, 1) * 0.5 + torch.eye(4) * 0.5  # two permutations and nothing between
    assert torch.equal(rebuilt(*birkhoff(sparse)), sparse.double())
    with pytest.raises(ValueError, match="matrix must be doubly stochastic"):
        birkhoff(torch.tensor([[0.9, 0.1], [0.9, 0.1]]))


# --- the samplers


def test_layers_by_hand():
    """Two layers of three classes; keys name who is first of its class, and in which order wishes are heard."""
    labels = torch.tensor([2, 0, 1, 1, 0, 2])
    permutations = torch.tensor([[1, 2, 0], [0, 1, 2]])
    chosen = torch.tensor([0, 1, 1, 1, 1, 1])  # layer 0: 0->1->2->0, the others: own class
    keys = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]] * 3, dtype=torch.float64)
    partner = pair_layers(labels, permutations, chosen, keys)
    assert labels[partner].tolist() == [0, 1, 2, 1, 0, 2]  # samples 0, 1, 2 are layer 0, the others layer 1
    assert sorted(partner.tolist()) == list(range(6))


@pytest.mark.parametrize("classes, per_class", [(3, 2), (3, 8), (10, 25)])
def test_birkhoff_pairing_is_m_in_stratified_batches(classes, per_class):
    """Four standard errors: pairs of different layers are independent draws with probability M_ab."""
    matrix = M3 if classes == 3 else pairing_matrix(positive(classes), 1.0)
    labels = torch.from_numpy(np.random.default_rng(1).permutation(classes * per_class) % classes)
    parts, rng, batches = birkhoff(matrix), np.random.default_rng(2), 6000 // per_class
    total = torch.zeros(classes, classes, dtype=torch.float64)
    for _ in range(batches):
        partner = pair_birkhoff(labels, *parts, rng)
        assert (partner.sort().values == torch.arange(len(labels))).all()  # without replacement
        total += pairs_counted(labels, partner, classes)
    draws = batches * per_class
    error = (matrix * (1 - matrix) / draws).sqrt()
    assert ((total / draws - matrix).abs() < 4 * error + 1e-9).all()


def test_inside_a_class_every_sample_is_as_likely_a_partner_and_it_may_be_itself():
    labels, parts, rng = torch.arange(12) % 3, birkhoff(M3), np.random.default_rng(3)
    times = torch.zeros(12, 12)
    for _ in range(5000):
        times[torch.arange(12), pair_birkhoff(labels, *parts, rng)] += 1
    expected = M3[labels][:, labels] / 4
    error = (expected * (1 - expected) / 5000).sqrt()
    assert ((times / 5000 - expected).abs() < 4.5 * error).all()  # 144 entries: 4.5 in place of 4


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(0, 5))
def test_uneven_batches_are_permuted_and_serve_all_the_wishes_they_can(classes_of, seed):
    labels, rng = torch.tensor(classes_of), np.random.default_rng(seed)
    n = len(labels)
    layers = torch.from_numpy(np.stack([rng.permutation(5) for _ in range(n)]))
    keys = torch.from_numpy(rng.random((3, n)))
    partner = pair_layers(labels, layers, torch.arange(n), keys)
    assert sorted(partner.tolist()) == list(range(n))
    wish = torch.empty_like(labels)
    for a in range(5):
        members = (labels == a).nonzero()[:, 0]
        for layer, i in enumerate(members[keys[0][members].argsort()]):
            wish[i] = layers[layer, a]
    granted = torch.minimum(torch.bincount(wish, minlength=5), torch.bincount(labels, minlength=5))
    assert [int(((labels[partner] == b) & (wish == b)).sum()) for b in range(5)] >= granted.tolist()
    assert int((labels[partner] == wish).sum()) == int(granted.sum())


@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 5))
def test_the_short_way_for_even_batches_gives_what_the_long_one_gives(classes, per_class, seed):
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(rng.permutation(classes * per_class) % classes)
    parts = birkhoff(sinkhorn(torch.from_numpy(rng.lognormal(size=(classes, classes)))))
    short = pair_birkhoff(labels, *parts, np.random.default_rng(seed))
    with mock.patch("mixlab.birkhoff._is_even", return_value=False) as asked:
        assert torch.equal(pair_birkhoff(labels, *parts, np.random.default_rng(seed)), short) and asked.called


def test_who_is_left_over_meets_who_is_left_over_by_chance():
    """0 wishes for 1 and 2 for 3, which are half as many: two samples of 0 and two of 2 share four of the same."""
    labels, rng = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3]), np.random.default_rng(0)
    wishes, chosen = torch.tensor([[1, 0, 3, 2]]), torch.zeros(12, dtype=torch.int64)
    met = [labels[pair_layers(labels, wishes, chosen, torch.from_numpy(rng.random((3, 12))))[:4]] for _ in range(2000)]
    shares = torch.stack(met).eq(0).double().sum(1) / 2
    assert abs(shares.mean() - 0.5) < 4 * shares.std() / 2000**0.5


@pytest.mark.parametrize("n, allowed", [(128, 0.06), (32, 0.11)])
def test_shuffled_batches_come_near_m(n, allowed):
    """Total variation between a row of M and what is drawn, mean over rows, beside that of drawing evenly."""
    matrix, rng = pairing_matrix(positive(10), 1.0), np.random.default_rng(0)
    parts, total = birkhoff(matrix), torch.zeros(10, 10, dtype=torch.float64)
    for _ in range(60_000 // n):
        labels = torch.from_numpy(rng.integers(10, size=n))
        total += pairs_counted(labels, pair_birkhoff(labels, *parts, rng), 10)
    distance = (total / total.sum(1, keepdim=True) - matrix).abs().sum(1).mean() / 2
    even = (0.1 - matrix).abs().sum(1).mean() / 2
    assert distance < allowed < 0.5 * even


@pytest.mark.parametrize("device", [*DEVICES, "meta"])
def test_pairing_reads_no_value_from_the_device(device):
    """On the meta device there are no values; the generator goes as far as on the CPU."""
    labels, parts = torch.arange(30) % 3, birkhoff(M3)
    here, there = np.random.default_rng(0), np.random.default_rng(0)
    partner, moved = pair_birkhoff(labels, *parts, here), pair_birkhoff(labels.to(device), *parts, there)
    assert moved.device.type == device and here.bit_generator.state == there.bit_generator.state
    assert device == "meta" or torch.equal(partner, moved.cpu())


def exact_sequential(matrix, per_class, order):
    """E[pairs of classes a, b] / per_class when classes draw in turn: every course of the draws, by its probability."""
    classes = len(matrix)

    @cache
    def expected(turn, drawn, left):
        if turn == classes:
            return np.zeros((classes, classes))
        if drawn == per_class:
            return expected(turn + 1, 0, left)
        a = order[turn]
        mass = np.array([matrix[a][b] * left[b] for b in range(classes)])
        mass = np.array(left, float) if mass.sum() == 0 else mass
        result = np.zeros((classes, classes))
        for b in np.flatnonzero(mass):
            rest = tuple(k - (i == b) for i, k in enumerate(left))
            part = expected(turn, drawn + 1, rest).copy()
            part[a, b] += 1 / per_class
            result += mass[b] / mass.sum() * part
        return result

    return torch.from_numpy(expected(0, 0, (per_class,) * classes))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_sequential_pairing_agrees_with_enumeration_and_not_with_m(order):
    exact = exact_sequential(M3.tolist(), 4, order)
    labels, rng, batches = torch.arange(12) % 3, np.random.default_rng(0), 1500
    total = torch.zeros(batches, 3, 3, dtype=torch.float64)
    for k in range(batches):
        partner = pair_sequential(labels, M3, rng, order)
        assert (partner.sort().values == torch.arange(12)).all()
        total[k] = pairs_counted(labels, partner, 3) / 4
    error = total.std(0) / batches**0.5
    assert ((total.mean(0) - exact).abs() < 4 * error).all()
    assert (exact - M3).abs().max() > 0.04, "the order of drawing shows"


def test_sequential_pairing_falls_back_to_what_is_left():
    """Class 2 wants class 0 alone, which class 0 has taken: it gets the rest. Nothing fails, nobody is left out."""
    greedy = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    labels, rng = torch.arange(9) % 3, np.random.default_rng(0)
    partner = pair_sequential(labels, greedy, rng)
    assert (labels[partner[labels == 0]] == 0).all() and sorted(partner.tolist()) == list(range(9))
    uneven = torch.tensor([0, 0, 0, 1])
    drawn = [pair_sequential(uneven, torch.eye(2).flip(0), rng) for _ in range(99)]
    assert all((uneven[partner[:3]] == 1).sum() == 1 for partner in drawn)  # one gets its wish, two share the rest
    assert {int(partner[3]) for partner in drawn} == {0, 1, 2}, "who is left over is chance"


def test_samplers_refuse_by_name():
    parts, rng = birkhoff(M3), np.random.default_rng(0)
    for pair in (lambda labels: pair_birkhoff(labels, *parts, rng), lambda labels: pair_sequential(labels, M3, rng)):
        with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2, found 0 to 3"):
            pair(torch.tensor([0, 3]))
        with pytest.raises(ValueError, match="labels must be whole numbers"):
            pair(torch.tensor([0.0, 1.0]))
    with pytest.raises(ValueError, match="order must name every class from 0 to 2 once"):
        pair_sequential(torch.tensor([0, 1]), M3, rng, order=[0, 1, 1])


# --- the method


def batch(n=30, classes=3):
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, 4, generator=generator), torch.arange(n) % classes


def taught(gamma=1.0, sampler="birkhoff", epochs=2, rng=0):
    """A method that has seen a network confuse 0 with 1."""
    method = ConfusionMixup(1.0, gamma, sampler=sampler, rng=rng)
    logits = torch.tensor([[3.0, 2.0, 0.0], [2.0, 3.0, 0.0], [0.0, 0.0, 3.0]])[torch.arange(30) % 3]
    for _ in range(epochs):
        method.observe(logits, one_hot(torch.arange(30) % 3, 3))
        method.end_epoch()
    return method


def test_the_average_is_raw_and_m_is_made_of_it():
    method = ConfusionMixup(1.0, 2.0, momentum=0.25, rng=0)
    average = torch.full((3, 3), 1 / 3, dtype=torch.float64)
    for epoch in range(3):
        logits, y = torch.randn(30, 3), one_hot(torch.arange(30) % 3, 3)
        for part in (slice(0, 20), slice(20, 30)):  # two batches
            method.observe(logits[part], y[part])
        counts = slow_increment(logits.double().softmax(1), y)
        average = 0.25 * average + 0.75 * row_probabilities(counts, y.sum(0), average)
        method.end_epoch()
        assert torch.allclose(method.average, average), epoch
        assert torch.allclose(method.pairing, sinkhorn(average**2)) and (method.counts == 0).all()


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
    assert torch.allclose(method.seen, y.sum(0).double()) and not method.counts.requires_grad


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_any_batch_and_dtype(device, dtype, n):
    x, labels = batch(n)
    net = nn.Linear(4, 3).to(device, dtype)
    method = taught().to(device)
    for _ in range(2):
        loss = method.loss(net, x.to(device, dtype), labels.to(device))
        method.end_epoch()
        assert loss.isfinite() and method.average.isfinite().all() and method.average.device.type == device
        assert torch.allclose(method.average.sum(1), torch.ones(3, device=device, dtype=torch.float64))
    soft = method.loss(net, x.to(device, dtype), one_hot(labels, 3).to(device))
    assert soft.isfinite()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_counted_in_full_precision(dtype):
    logits, y = torch.randn(64, 3).to(dtype), one_hot(torch.arange(64) % 3, 3)
    method = ConfusionMixup(1.0, 1.0)
    method.observe(logits, y)
    assert torch.allclose(method.counts, slow_increment(logits.double().softmax(1), y), rtol=1e-10)


@given(st.integers(1, 33))
def test_alpha_zero_mixes_nothing(n):
    x, labels = batch(n)
    method = taught()
    method.alpha = 0.0
    assert torch.equal(method.draw(x, labels).mix(x), x)
    net = nn.Linear(4, 3)
    assert torch.allclose(method.loss(net, x, labels), nn.functional.cross_entropy(net(x), labels))


def test_a_class_missing_from_an_epoch_keeps_its_row():
    method = taught()
    before = method.average.clone()
    method.observe(torch.tensor([[2.0, 0.0, 1.0], [0.0, 2.0, 1.0]]), one_hot(torch.tensor([0, 1]), 3))
    method.end_epoch()
    assert torch.equal(method.average[2], before[2]) and not torch.equal(method.average[0], before[0])


def test_a_diverged_network_is_refused_and_a_method_that_saw_nothing_too():
    method = taught()
    method.observe(torch.full((3, 3), float("nan")), one_hot(torch.arange(3), 3))
    with pytest.raises(ValueError, match="did the network diverge"):
        method.end_epoch()
    with pytest.raises(ValueError, match="has seen no predictions"):
        ConfusionMixup(1.0, 1.0).end_epoch()
    with pytest.raises(ValueError, match="logits have 4 columns, the matrix in memory is of 3 classes"):
        taught().observe(torch.zeros(2, 4), one_hot(torch.arange(2), 4))


@pytest.mark.parametrize(
    "change, problem",
    [
        ({"alpha": -1.0}, "alpha must be a finite number"),
        ({"gamma": -0.5}, "gamma must be a finite number >= 0"),
        ({"gamma": float("nan")}, "gamma must be a finite number >= 0"),
        ({"momentum": 1.5}, r"momentum must lie in \[0, 1\]"),
        ({"sampler": "random"}, "sampler must be one of birkhoff, sequential, not 'random'"),
    ],
)
def test_bad_parameters_are_refused_by_name(change, problem):
    with pytest.raises(ValueError, match=problem):
        ConfusionMixup(**{"alpha": 1.0, "gamma": 1.0, **change})


@pytest.mark.parametrize("sampler", ["birkhoff", "sequential"])
def test_state_dict_continues_the_same_draws(sampler):
    (x, labels), method = batch(), taught(sampler=sampler)
    method.observe(torch.randn(30, 3), one_hot(labels, 3))  # in the middle of an epoch
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    for other in (ConfusionMixup(1.0, 1.0, sampler=sampler, rng=9), taught(sampler=sampler, epochs=1, rng=9)):
        other.load_state_dict(torch.load(file, weights_only=True))
        file.seek(0)
        assert torch.equal(other.pairing, method.pairing) and torch.equal(other.counts, method.counts)
        assert other.draw(x, labels).partner.tolist() == taught_copy(method).draw(x, labels).partner.tolist()


def taught_copy(method):
    """Another object in the same state."""
    copy = ConfusionMixup(method.alpha, method.gamma, method.momentum, method.sampler)
    copy.load_state_dict(method.state_dict())
    return copy


DATA = load("shapes", n_train=120, n_test=60)
SMALL = Recipe(epochs=4, lr=0.05, batch_size=32, augment=False)


def training(sampler, stratified, rng):
    recipe = replace(SMALL, stratified=stratified, batch_size=30 if stratified else 32)
    return Training(DATA, build("lenet", 10, seed=0), ConfusionMixup(1.0, 1.0, sampler=sampler, rng=rng), recipe)


@pytest.mark.parametrize("sampler", ["birkhoff", "sequential"])
@pytest.mark.parametrize("stratified", [True, False])
def test_resumed_training_equals_uninterrupted(tmp_path, sampler, stratified):
    whole, first, second = (training(sampler, stratified, rng) for rng in (0, 0, 9))
    for _ in range(4):
        whole.epoch()
    first.epoch()
    first.epoch()
    first.save(tmp_path / "a.pt")
    assert second.resume(tmp_path / "a.pt")
    second.epoch()
    second.epoch()
    assert torch.equal(whole.model.head.weight, second.model.head.weight)
    assert torch.equal(whole.method.average, second.method.average)
    other = training(sampler, stratified, 9)
    for _ in range(4):
        other.epoch()
    assert not torch.equal(whole.model.head.weight, other.model.head.weight)


def test_a_stratified_epoch_is_paired_by_m_and_another_seed_pairs_otherwise():
    one, other = training("birkhoff", True, 0), training("birkhoff", True, 1)
    one.epoch(), other.epoch()
    labels = next(iter(one.batches))[1]
    assert (torch.bincount(labels, minlength=10) == 3).all()
    draws = [t.method.draw(torch.zeros(30, 1), labels).partner.tolist() for t in (one, other)]
    assert draws[0] != draws[1]


def test_it_is_named_run_and_found_beside_the_published_table(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "CHECKPOINTS", tmp_path / "checkpoints")
    text = runs.describe(runs.build_method("ConfusionMixup(1, 0.25)", seed=0))
    assert text == "ConfusionMixup(alpha=1.0, gamma=0.25)" and text in runs.usual_methods()
    full = "ConfusionMixup(alpha=0.5, gamma=2.0, momentum=0.9, sampler='sequential')"
    assert runs.describe(runs.build_method(full, seed=0)) == full
    run = runs.make_run("shapes(n_train=96, n_test=48)", "lenet", text, "quick", 0)
    assert runs.do([run], tmp_path / "runs", "cpu", progress=False) == 0
    published = [{**row, "model": "lenet"} for row in papers.rows("confusion", "table1")]
    lines = records.compare(published, records.read(tmp_path / "runs")[0], {"CIFAR-10": "shapes"})
    assert [line["params"]["gamma"] for line in lines if line["n"]] == [0.25]


@pytest.mark.parametrize("around", ["LabelSmoothing(0.1, {})", "InfiniteClass({})"])
def test_it_counts_the_predictions_whoever_scores_them(around):
    inside = "ConfusionMixup(1.0, 1.0)"
    counted = []
    for expression in (inside, around.format(inside)):
        method, net = runs.build_method(expression, seed=0), build("lenet", 10, seed=0)
        part = method if expression == inside else method.method
        part.rng = np.random.default_rng(0)
        method.loss(net, DATA.train_x[:20].float() / 255, DATA.train_y[:20]).backward()
        assert float(part.seen.sum()) == pytest.approx(20)
        counted.append(part.counts)
        method.end_epoch()
        assert part.seen.sum() == 0 and part.pairing is not None
    assert torch.equal(*counted)


def test_a_sweep_of_small_networks_refuses_it():
    with pytest.raises(ValueError, match="ConfusionMixup has a loss of its own"):
        fit_many(one_ring(n_train=32, n_test=8), [ConfusionMixup(1.0, 1.0)], [0], epochs=1, progress=False)


def test_a_network_that_explodes_says_so():
    recipe = replace(SMALL, lr=1e20)
    with pytest.raises((Diverged, ValueError), match="smaller learning rate"):
        fit(DATA, build("lenet", 10, seed=0), ConfusionMixup(1.0, 1.0, rng=0), recipe, progress=False)
