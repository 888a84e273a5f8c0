"""Partners by class: the decomposition rebuilt, and both samplers against exact probabilities."""

import itertools
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mixlab import one_hot
from mixlab.birkhoff import birkhoff, pair_birkhoff, pair_layers, pair_sequential
from mixlab.confusion import pairing_matrix, sinkhorn

GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))
# 0 and 1 are confused with each other, 2 with nothing in particular; doubly stochastic as it stands
M3 = torch.tensor([[0.3, 0.6, 0.1], [0.5, 0.2, 0.3], [0.2, 0.2, 0.6]], dtype=torch.float64)


def positive(classes, spread=1.0):
    """Lognormal entries: as uneven as a real confusion matrix, and more with a larger spread."""
    return torch.from_numpy(np.random.default_rng(0).lognormal(0, spread, (classes, classes)))


def rebuilt(weights, permutations):
    """sum_k weights[k] times the matrix of permutation k."""
    return torch.einsum("k,kab->ab", weights, nn.functional.one_hot(permutations, permutations.shape[1]).double())


def pairs_counted(labels, partner, classes):
    """(c, c): how many samples of class a have a partner of class b."""
    return one_hot(labels, classes).double().T @ one_hot(labels[partner], classes).double()


@given(st.integers(1, 8), st.sampled_from([0.1, 1.0, 3.0]))
def test_birkhoff_is_a_mean_of_permutations(classes, spread):
    matrix = sinkhorn(positive(classes, spread))
    weights, permutations = birkhoff(matrix)
    assert (weights > 0).all() and abs(float(weights.sum()) - 1) < 1e-12
    assert (permutations.sort(1).values == torch.arange(classes)).all()
    assert torch.allclose(rebuilt(weights, permutations), matrix, atol=1e-8)


@pytest.mark.parametrize("gamma", [0.25, 4.0])
def test_a_hundred_classes_need_few_permutations_and_lose_nothing(gamma):
    """A few times c in place of the (c - 1)^2 + 1 that are always enough; what is left is below the tolerance."""
    matrix = pairing_matrix(positive(100), gamma)
    for tolerance, most in ((1e-9, 1200), (1e-3, 400)):
        weights, permutations = birkhoff(matrix, tolerance)
        lost = (rebuilt(weights, permutations) - matrix).abs().sum(1).max() / 2  # total variation of a row
        assert lost <= 2 * tolerance and len(weights) <= most


def test_birkhoff_by_hand_and_what_it_refuses():
    weights, permutations = birkhoff(torch.tensor([[0.75, 0.25], [0.25, 0.75]]))
    assert weights.tolist() == [0.75, 0.25] and permutations.tolist() == [[0, 1], [1, 0]]
    sparse = torch.eye(4).roll(1, 1) * 0.5 + torch.eye(4) * 0.5  # two permutations and nothing between
    assert torch.equal(rebuilt(*birkhoff(sparse)), sparse.double())
    for wrong in ([[0.9, 0.1], [0.9, 0.1]], [[1.0, 0.0]], [[float("nan")]], [[-1.0, 2.0], [2.0, -1.0]]):
        with pytest.raises(ValueError, match=r"^matrix "):
            birkhoff(torch.tensor(wrong))


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
def test_pairs_follow_m_in_stratified_batches(classes, per_class):
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
    assert int((labels[partner] == wish).sum()) == int(granted.sum())


def test_who_is_left_over_meets_who_is_left_over_by_chance():
    """0 wishes for 1 and 2 for 3, which are half as many: two samples of 0 and two of 2 share four of the same."""
    labels, rng = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3]), np.random.default_rng(0)
    wishes, chosen = torch.tensor([[1, 0, 3, 2]]), torch.zeros(12, dtype=torch.int64)
    met = [labels[pair_layers(labels, wishes, chosen, torch.from_numpy(rng.random((3, 12))))[:4]] for _ in range(2000)]
    shares = torch.stack(met).eq(0).double().sum(1) / 2
    assert abs(shares.mean() - 0.5) < 4 * shares.std() / 2000**0.5


@pytest.mark.parametrize("device", ["cpu", "meta", GPU])
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
            part = expected(turn, drawn + 1, tuple(k - (i == b) for i, k in enumerate(left))).copy()
            part[a, b] += 1 / per_class
            result += mass[b] / mass.sum() * part
        return result

    return torch.from_numpy(expected(0, 0, (per_class,) * classes))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3)))[::2], ids=str)
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
        for labels in ([0, 3], [-1, 0], [0.0, 1.0], [True, False], [[0, 1]], []):
            with pytest.raises(ValueError, match=r"^labels "):
                pair(torch.tensor(labels))
    with pytest.raises(ValueError, match=r"^order "):
        pair_sequential(torch.tensor([0, 1]), M3, rng, order=[0, 1, 1])
