"""Confusion-guided mixup: each step and both samplers against their definitions, what it learns from and when."""

import warnings
from functools import cache

import numpy as np
import pytest
import torch
from examples import GPU, batch, refuses
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mixlab import ConfusionMixup, InfiniteClass, LabelSmoothing, Mixup, Pairs, one_hot
from mixlab.birkhoff import birkhoff, pair_birkhoff, pair_sequential
from mixlab.confusion import increment, pairing_matrix, row_probabilities, sinkhorn

SAMPLERS = pytest.mark.parametrize("sampler", ["birkhoff", "sequential"])
# 0 and 1 are confused with each other, 2 with nothing in particular; doubly stochastic as it stands
M3 = torch.tensor([[0.3, 0.6, 0.1], [0.5, 0.2, 0.3], [0.2, 0.2, 0.6]], dtype=torch.float64)


def positive(classes, spread=1.0, seed=0):
    """Lognormal entries: as uneven as a real confusion matrix, and more with a larger spread."""
    return torch.from_numpy(np.random.default_rng(seed).lognormal(0, spread, (classes, classes)))


def off_balance(matrix):
    """How far from one the sums of columns and of rows are."""
    return (matrix.sum(0) - 1).abs().max(), (matrix.sum(1) - 1).abs().max()


def rebuilt(weights, permutations):
    """sum_k weights[k] times the matrix of permutation k."""
    return torch.einsum("k,kab->ab", weights, nn.functional.one_hot(permutations, permutations.shape[1]).double())


def pairs_counted(labels, partner, classes):
    """(c, c): how many samples of class a have a partner of class b; nobody is taken twice."""
    assert (partner.sort().values == torch.arange(len(labels))).all()
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


@given(st.integers(1, 9), st.integers(1, 6), st.sampled_from([1.0, 0.7, 0.5, 0.0]), st.booleans())
def test_increment_is_the_papers_outer_product_without_the_true_columns(n, classes, lam, half):
    """In float64 at half precision and under autocast too, from soft labels or class indices."""
    rng = np.random.default_rng(n)
    probabilities = torch.from_numpy(rng.dirichlet(np.ones(classes), n)).to(torch.bfloat16 if half else torch.float64)
    labels, partner = torch.from_numpy(rng.integers(classes, size=n)), torch.from_numpy(rng.permutation(n))
    y = Pairs(partner, lam).mix_labels(one_hot(labels, classes))
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        added = increment(probabilities, y)
    assert added.dtype == torch.float64 and (added.diagonal() == 0).all()
    assert torch.allclose(added, slow_increment(probabilities, y), rtol=1e-12)
    assert lam < 1 or torch.equal(added, increment(probabilities, labels))


def test_rows_by_hand_with_a_class_never_seen_and_one_never_confused():
    counts = torch.tensor([[9.0, 3.0, 1.0, 0.0], [0.0] * 4, [0.0, 0.0, 5.0, 0.0], [1.0, 1.0, 1.0, 0.0]])
    previous = torch.tensor([[0.25] * 4, [0.4, 0.25, 0.3, 0.05], [0.25] * 4, [0.25] * 4], dtype=torch.float64)
    rows = row_probabilities(counts, torch.tensor([13.0, 0.0, 5.0, 3.0]), previous)
    expected = [[0.25, 0.5625, 0.1875, 0.0], [0.4, 0.25, 0.3, 0.05], [0.25] * 4, [0.25] * 4]
    assert torch.allclose(rows, torch.tensor(expected, dtype=torch.float64))


# --- Sinkhorn and the power


@pytest.mark.parametrize("classes, spread", [(1, 2.0), (10, 0.1), (100, 2.0)])
def test_sinkhorn_is_doubly_stochastic_and_only_scales_rows_and_columns(classes, spread):
    matrix = positive(classes, spread)
    balanced = sinkhorn(matrix)
    columns, rows = off_balance(balanced)
    assert columns <= 1e-9 and rows <= 1e-14
    scale = (balanced / matrix).log()  # log of u_a v_b: differences of two rows do not depend on the column
    assert (scale - scale[:1] - scale[:, :1] + scale[0, 0]).abs().max() < 1e-8


def test_sinkhorn_keeps_zeros_and_ends_in_the_limit_where_support_is_not_total():
    matrix = torch.eye(5) + torch.eye(5).roll(1, 1) * 3
    matrix[0, 0] = 7.0
    balanced = sinkhorn(matrix)
    assert ((balanced == 0) == (matrix == 0)).all() and off_balance(balanced)[0] <= 1e-9
    assert torch.allclose(sinkhorn(torch.tensor([[1.0, 1.0], [0.0, 1.0]])), torch.eye(2).double(), atol=1e-8)


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
    own = 1 / (1 + 2**gamma)  # balanced, the pair keeps its odds of 1 to 2^gamma
    expected = torch.tensor([[own, 0, 1 - own], [0, 1, 0], [1 - own, 0, own]], dtype=torch.float64)
    assert torch.allclose(matrix, expected, atol=1e-2 if gamma == 2 else 1e-4) and off_balance(matrix)[0] <= 1e-9
    uneven = positive(30, 6.0, seed=30)  # where a Newton step that is not damped lets a column underflow
    matrix = pairing_matrix(row_probabilities(uneven, torch.ones(30), uneven), gamma)
    assert off_balance(matrix)[0] <= 1e-9


# --- partners by class: Birkhoff's theorem, and one class after the other


@given(st.integers(1, 8), st.sampled_from([0.1, 1.0, 3.0]))
def test_birkhoff_is_a_mean_of_permutations(classes, spread):
    matrix = sinkhorn(positive(classes, spread))
    weights, permutations = birkhoff(matrix)
    assert (weights > 0).all() and abs(float(weights.sum()) - 1) < 1e-12
    assert (permutations.sort(1).values == torch.arange(classes)).all()
    assert torch.allclose(rebuilt(weights, permutations), matrix, atol=1e-8)


def test_few_permutations_are_enough_for_a_hundred_classes():
    """A few times c in place of the (c - 1)^2 + 1 that are always enough; what is left is below the tolerance."""
    matrix = pairing_matrix(positive(100), 0.25)
    for tolerance, most in ((1e-9, 1200), (1e-3, 400)):
        weights, permutations = birkhoff(matrix, tolerance)
        lost = (rebuilt(weights, permutations) - matrix).abs().sum(1).max() / 2  # total variation of a row
        assert lost <= 2 * tolerance and len(weights) <= most


@pytest.mark.parametrize("classes, per_class, rounds", [(3, 4, 2000), (10, 25, 120)])
def test_pairs_follow_m_in_stratified_batches(classes, per_class, rounds):
    """Four standard errors: pairs of different layers are independent draws with probability M_ab. Inside a class every
    sample is as likely a partner, and it may be itself."""
    matrix = M3 if classes == 3 else pairing_matrix(positive(classes), 1.0)
    labels = torch.from_numpy(np.random.default_rng(1).permutation(classes * per_class) % classes)
    parts, rng, n = birkhoff(matrix), np.random.default_rng(2), classes * per_class
    times = torch.zeros(n, n, dtype=torch.float64)
    for _ in range(rounds):
        times[torch.arange(n), pair_birkhoff(labels, *parts, rng)] += 1 / rounds
    y = one_hot(labels, classes).double()
    met, error = y.T @ times @ y / per_class, (matrix * (1 - matrix) / rounds / per_class).sqrt()
    assert ((met - matrix).abs() < 4 * error + 1e-9).all()
    each = matrix[labels][:, labels] / per_class
    assert classes > 3 or ((times - each).abs() < 4.5 * (each / rounds).sqrt()).all()  # 144 entries: 4.5 in place of 4


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(0, 5))
def test_uneven_batches_are_permuted_and_serve_all_the_wishes_they_can(classes_of, seed):
    """In layer r, the r-th of each class by its key wishes for the class that the layer's permutation says."""
    labels, rng = torch.tensor(classes_of), np.random.default_rng(seed)
    every = torch.from_numpy(np.stack([rng.permutation(5) for _ in range(8)]))
    partner = pair_birkhoff(labels, torch.full((8,), 1 / 8).double(), every, np.random.default_rng(seed))
    chance, keys = torch.from_numpy(np.random.default_rng(seed).random((4, len(labels))))[:2]
    wish = torch.empty_like(labels)
    for a in range(5):
        members = (labels == a).nonzero()[:, 0]
        for layer, i in enumerate(members[keys[members].argsort()]):
            wish[i] = every[int(8 * chance[layer]), a]
    granted = torch.minimum(torch.bincount(wish, minlength=5), torch.bincount(labels, minlength=5))
    assert sorted(partner.tolist()) == list(range(len(labels)))
    assert int((labels[partner] == wish).sum()) == int(granted.sum())


def test_who_is_left_over_meets_who_is_left_over_by_chance():
    """0 wishes for 1 and 2 for 3, which are half as many: two samples of 0 and two of 2 share four of the same."""
    labels, rng = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3]), np.random.default_rng(0)
    wishes = torch.ones(1).double(), torch.tensor([[1, 0, 3, 2]])
    met = torch.stack([labels[pair_birkhoff(labels, *wishes, rng)[:4]] for _ in range(999)])
    shares = met.eq(0).double().sum(1) / 2
    assert abs(shares.mean() - 0.5) < 4 * shares.std() / 999**0.5


@pytest.mark.parametrize("device", ["meta", GPU])
def test_pairing_reads_no_value_from_the_device(device):
    """On the meta device there are no values; the generator goes as far as on the CPU."""
    labels, parts = torch.arange(30) % 3, birkhoff(M3)
    here, there = np.random.default_rng(0), np.random.default_rng(0)
    partner, moved = pair_birkhoff(labels, *parts, here), pair_birkhoff(labels.to(device), *parts, there)
    assert moved.device.type == device and here.bit_generator.state == there.bit_generator.state
    assert device == "meta" or torch.equal(partner, moved.cpu())


@cache
def expected_pairs(turns, left):
    """Pairs of classes (3, 3) if the classes in turns draw one sample each, left[b] of class b being left."""
    mass, total = M3[turns[0]].numpy() * left if turns else [], np.zeros((3, 3))
    for b in np.flatnonzero(mass):
        rest = expected_pairs(turns[1:], tuple(k - (i == b) for i, k in enumerate(left))).copy()
        rest[turns[0], b] += 1
        total += mass[b] / mass.sum() * rest
    return total


def test_sequential_pairing_agrees_with_enumeration():
    labels, rng = torch.arange(12) % 3, np.random.default_rng(0)
    met = torch.stack([pairs_counted(labels, pair_sequential(labels, M3, rng), 3) for _ in range(1500)])
    error = (met.mean(0) - torch.from_numpy(expected_pairs((0,) * 4 + (1,) * 4 + (2,) * 4, (4, 4, 4)))).abs()
    assert (error < 4 * met.std(0) / 1500**0.5).all()


def test_sequential_pairing_falls_back_to_what_is_left():
    """Three of class 0 want class 1 alone, which has one sample: one gets its wish, who gets the rest is chance."""
    uneven, rng = torch.tensor([0, 0, 0, 1]), np.random.default_rng(0)
    drawn = [pair_sequential(uneven, torch.eye(2).flip(0), rng) for _ in range(99)]
    assert all((uneven[partner[:3]] == 1).sum() == 1 and len(set(partner.tolist())) == 4 for partner in drawn)
    assert {int(partner[3]) for partner in drawn} == {0, 1, 2}


# --- the method


def taught(gamma=1.0, sampler="birkhoff", epochs=2, rng=0):
    """A method that has seen a network confuse 0 with 1."""
    method = ConfusionMixup(1.0, gamma, sampler=sampler, rng=rng)
    logits = torch.tensor([[3.0, 2.0, 0.0], [2.0, 3.0, 0.0], [0.0, 0.0, 3.0]])[torch.arange(30) % 3]
    for _ in range(epochs):
        method.observe(logits, None, torch.arange(30) % 3)
        method.end_epoch()
    return method


def test_the_average_is_raw_and_m_is_made_of_it_and_a_class_not_seen_keeps_its_row():
    method, average = ConfusionMixup(1.0, 2.0, momentum=0.25, rng=0), torch.full((3, 3), 1 / 3, dtype=torch.float64)
    for classes in (3, 3, 2):
        before, logits, y = average, torch.randn(30, 3), one_hot(torch.arange(30) % classes, 3)
        for part in (slice(0, 20), slice(20, 30)):  # two batches
            method.observe(logits[part], None, y[part])
        counts = slow_increment(logits.double().softmax(1), y)
        average = 0.25 * average + 0.75 * row_probabilities(counts, y.sum(0), average)
        method.end_epoch()
        assert torch.allclose(method.average, average) and torch.allclose(method.pairing, sinkhorn(average**2))
    assert torch.allclose(method.average[2], before[2]) and not torch.allclose(method.average[0], before[0])


@SAMPLERS
def test_confused_classes_meet_more_often(sampler):
    """Chance is 1/3; M_01 is measured 0.47 at gamma 1."""
    labels, method = torch.arange(300) % 3, taught(sampler=sampler)
    counted = pairs_counted(labels, method.draw(torch.zeros(300, 1), labels).partner, 3) / 100
    assert method.pairing[0, 1] > 0.45 and method.pairing[1, 0] > 0.45 > 0.3 > method.pairing[0, 2]
    assert (counted - method.pairing).abs().max() < 4 * (0.25 / 100) ** 0.5 or sampler == "sequential"
    assert counted[0, 1] > 0.35


@SAMPLERS
def test_gamma_zero_and_the_first_epoch_are_mixup_bit_for_bit(sampler):
    x, labels = batch(30)
    for method in (taught(0.0, sampler), ConfusionMixup(1.0, 2.0, sampler=sampler, rng=0)):
        mixup = Mixup(1.0, rng=0)
        for _ in range(3):
            plan, expected = method.draw(x, labels), mixup.draw(x, labels)
            assert torch.equal(plan.partner, expected.partner) and plan.lam == expected.lam


def test_it_counts_for_indices_and_soft_labels_of_any_type_in_float64():
    labels, plan, logits = torch.arange(30) % 3, Pairs(torch.randperm(30), 0.3), (3 * torch.randn(30, 3)).half()
    expected = slow_increment(logits.double().softmax(1), plan.mix_labels(one_hot(labels, 3)))
    for given_labels in (labels.byte(), one_hot(labels, 3)):
        method = ConfusionMixup(1.0, 1.0)
        method.observe(logits, plan, given_labels)
        assert torch.allclose(method.counts, expected, rtol=1e-10)


def test_it_counts_the_predictions_whoever_scores_them():
    (x, labels), net = batch(30), nn.Linear(4, 3)
    plan = taught().draw(x, labels)
    logits, y = net(plan.mix(x)).detach(), plan.mix_labels(one_hot(labels, 3))
    for around in (lambda m: m, lambda m: LabelSmoothing(0.1, m), InfiniteClass):
        method = taught()
        around(method).loss(net, x, labels)
        assert torch.allclose(method.counts, slow_increment(logits.softmax(1), y), atol=1e-6)
        assert torch.allclose(method.seen, y.sum(0)) and not method.counts.requires_grad


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_any_batch_and_dtype(device):
    for dtype, n in ((torch.bfloat16, 1), (torch.float64, 2), (torch.bfloat16, 7)):
        net, method, (x, labels) = nn.Linear(4, 3).to(device, dtype), taught().to(device), batch(n)
        for y in (labels, one_hot(labels, 3)):
            assert method.loss(net, x.to(device, dtype), y.to(device)).isfinite()
            assert method.counts.device.type == device
            method.end_epoch()
            assert torch.allclose(method.average.sum(1), torch.ones(3).double())


def test_a_forgotten_end_of_epoch_is_noticed():
    """A second pass over the training set without it brings a warning; with it there is none."""
    (x, labels), net = batch(30), nn.Linear(4, 3)
    prepared, unprepared = (ConfusionMixup(1.0, 1.0, rng=0) for _ in range(2))
    prepared.prepare(net, labels.repeat(4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for batches in (4, 4, 4, 6):
            if prepared.counts is not None:
                prepared.end_epoch()
            for _ in range(batches):
                prepared.loss(net, x, labels)
    for method, batches in ((prepared, 1), (unprepared, 100)):  # not prepared, it still cannot be mixup in silence
        with pytest.warns(UserWarning, match="end_epoch"):
            for _ in range(batches):
                method.loss(net, x, labels)
    refuses(lambda method: method.end_epoch(), "ConfusionMixup", ConfusionMixup(1.0, 1.0))  # nothing was seen


NAN, NO_ROOM = float("nan"), [[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]


def test_what_makes_no_sense_is_refused_by_name():
    refuses(lambda m: sinkhorn(torch.tensor(m)), "matrix", NO_ROOM, [[0.0, 0.0], [1.0, 1.0]], [[NAN]], [[1.0, 1.0]])
    uneven = row_probabilities(positive(4, 3.0), torch.ones(4), torch.ones(4, 4))
    refuses(lambda gamma: pairing_matrix(uneven, gamma), "matrix", 4000.0)  # it underflows: refused, and never NaN
    wrong = [[0.9, 0.1], [0.9, 0.1]], [[1.0, 0.0]], [[NAN]], [[-1.0, 2.0], [2.0, -1.0]]
    refuses(lambda m: birkhoff(torch.tensor(m)), "matrix", *wrong)
    refuses(lambda sweeps: sinkhorn(torch.ones(2, 2), sweeps=sweeps), "sweeps", 0, -1, 1.5, None)
    two = torch.ones(2, 2)
    refuses(lambda v: row_probabilities(v * two, torch.ones(2), two), "counts", NAN, float("inf"), -1.0)
    refuses(lambda n: row_probabilities(two, torch.ones(n), two), "counts, seen and previous", 3)
    refuses(lambda p: increment(p, torch.tensor([0, 1])), "probabilities", torch.zeros(2, 3).long())
    refuses(lambda y: increment(torch.rand(2, 3), torch.tensor(y)), "y", [0])
    refuses(lambda c: taught().observe(torch.zeros(2, c), None, torch.tensor([0, 1])), "logits", 4)
    refuses(lambda y: taught().observe(torch.zeros(2, 3), None, torch.tensor(y)), "labels", [0, 3], [0.0, 1.0])
    for pair, how in ((pair_birkhoff, birkhoff(M3)), (pair_sequential, (M3,))):
        draw = lambda y, pair=pair, how=how: pair(torch.tensor(y), *how, np.random.default_rng(0))  # noqa: E731
        refuses(draw, "labels", [0, 3], [-1, 0], [0.0, 1.0], [True, False], [[0, 1]], [])
