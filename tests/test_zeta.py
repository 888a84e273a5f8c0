"""zeta-mixup: the p-series, who gets which rank, the threshold, and the same arithmetic by a slow loop."""

import math
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
import torch
from examples import batch, refuses
from hypothesis import given
from hypothesis import strategies as st

from mixlab import ZetaMixup
from mixlab.zeta import gamma_threshold, p_series, weights, weights_from_order


def slow_weights(order, gamma, n_mixed):
    """The definition, one entry at a time."""
    total = sum(rank**-gamma for rank in range(1, n_mixed + 1))
    matrix = torch.zeros(len(order), len(order), dtype=torch.float64)
    for i, row in enumerate(order.tolist()):
        for rank, j in enumerate(row[:n_mixed], start=1):
            matrix[i, j] = rank**-gamma / total
    return matrix


@given(st.integers(1, 33), st.sampled_from([0.0, 1.0, 1.7287, 2.8]), st.integers(0, 2**32), st.data())
def test_weights_are_those_of_a_slow_loop(n, gamma, seed, data):
    n_mixed = data.draw(st.integers(1, n))
    order = torch.from_numpy(np.random.default_rng(seed).random((n, n)).argsort(1))
    assert torch.allclose(weights_from_order(order, p_series(n_mixed, gamma)), slow_weights(order, gamma, n_mixed))


@given(st.integers(1, 65), st.integers(0, 99))
def test_every_row_holds_the_series_once_with_the_own_sample_first(n, seed):
    matrix, series = weights(n, 1.0, np.random.default_rng(seed)), torch.from_numpy(p_series(n, 1.0))
    assert torch.equal(matrix.sort(descending=True).values, series.expand(n, n))
    assert torch.equal(matrix.diagonal(), series[:1].expand(n))


def test_the_p_series_is_its_formula():
    terms = [Fraction(1, rank**3) for rank in range(1, 21)]
    assert np.allclose(p_series(20, 3), [float(term / sum(terms)) for term in terms], rtol=1e-15)
    assert p_series(1, 2.8).tolist() == [1.0] and p_series(5, 0).tolist() == [0.2] * 5


def test_the_other_ranks_are_uniformly_random_and_rows_independent():
    """All 24 orders of four samples equally often in row 0, and row 1's order no likelier to be the same one."""
    count, rng = 9600, np.random.default_rng(0)
    index = {order: place for place, order in enumerate(permutations(range(4)))}
    orders = [(-weights(5, 1.0, rng)[:2]).argsort(1)[:, 1:].tolist() for _ in range(count)]
    first = [index[tuple(j - 1 for j in row)] for row, _ in orders]
    second = [index[tuple(j - (j > 0) for j in row)] for _, row in orders]
    allowance = 4 * (count * (1 / 24) * (23 / 24)) ** 0.5  # four standard errors of a binomial
    assert (np.abs(np.bincount(first, minlength=24) - count / 24) < allowance).all()
    assert abs(sum(a == b for a, b in zip(first, second, strict=True)) - count / 24) < allowance


@given(st.integers(3, 2000))
def test_the_threshold_is_where_one_weight_equals_all_others_and_grows_with_n(n):
    gamma = gamma_threshold(n)
    assert p_series(n, gamma)[0] == pytest.approx(0.5, abs=1e-12)
    assert gamma_threshold(2) == 0 and gamma_threshold(n - 1) < gamma < gamma_threshold(math.inf)
    assert gamma_threshold(math.inf) == pytest.approx(1.7286472389982, abs=1e-12)


def test_gamma_at_its_ends():
    x, labels = batch(7)
    assert torch.equal(ZetaMixup(200.0, rng=0).draw(x, labels).mix(x), x)  # the far weights underflow to zero
    assert torch.allclose(ZetaMixup(0, rng=0).draw(x, labels).mix(x), x.mean(0).expand(7, 4), atol=1e-6)


def test_n_mixed_counts_the_samples_in_a_row():
    for n_mixed in (1, 4, 50):
        matrix, m = ZetaMixup(2.0, n_mixed=n_mixed, rng=0).draw(*batch(6)).matrix(), min(n_mixed, 6)
        assert ((matrix > 0).sum(1) == m).all()
        assert torch.allclose(matrix.sort(descending=True).values[:, :m], torch.from_numpy(p_series(m, 2.0)), rtol=1e-6)


def test_weights_are_as_exact_as_the_batch_and_never_narrower_than_float32():
    """In fp16 the far ranks would lose their weight."""
    x, labels = batch(1024)
    assert ZetaMixup(2.8, rng=0).draw(x.half(), labels).matrix().min() > 0
    assert (ZetaMixup(2.8, rng=0).draw(x.double(), labels).matrix().sum(1) - 1).abs().max() < 1e-14


def test_what_makes_no_sense_is_refused_by_name():
    orders = [[0, 0], [1, 0]], [[0, 1], [1, 1]], [[0, 2], [1, 0]], [[0, -1], [1, 0]], [[0, 1]], [[0], [1]]
    refuses(lambda order: weights_from_order(torch.tensor(order), p_series(1, 1.0)), "order", *orders)
    refuses(lambda gamma: p_series(4, gamma), "gamma", -0.1, math.nan, math.inf)
    for call in (lambda n: p_series(n, 1.0), gamma_threshold, lambda n: weights(n, 1.0, np.random.default_rng(0))):
        refuses(call, "n", 0, -1, 2.5, True, "4")
    refuses(lambda n_mixed: weights(3, 1.0, np.random.default_rng(0), n_mixed), "n_mixed", 4)
