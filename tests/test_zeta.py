"""zeta-mixup: the p-series, who gets which rank, the threshold, and the same arithmetic by a slow loop."""

import math
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import zeta

from mixlab import Pairs, ZetaMixup
from mixlab.results import runs
from mixlab.zeta import gamma_threshold, p_series, weights, weights_from_order

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))]


def batch(n=8, classes=3):
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, 4, generator=generator), torch.arange(n) % classes


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
    assert ((matrix.sum(1) - 1).abs() < 1e-14).all()


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


@pytest.mark.parametrize(
    ("n", "expected"),
    [(2, 0.0), (8, 1.436), (64, 1.685), (math.inf, 1.7286472389982)],
)
def test_the_threshold_is_where_one_weight_equals_all_others(n, expected):
    gamma = gamma_threshold(n)
    assert gamma == pytest.approx(expected, abs=1e-3 if math.isfinite(n) else 1e-12)
    if n == math.inf:
        assert zeta(gamma) == pytest.approx(2, abs=1e-12)
    else:
        assert p_series(n, gamma)[0] == pytest.approx(0.5, abs=1e-12)


@given(st.integers(3, 2000))
def test_the_threshold_grows_with_n_and_separates(n):
    gamma = gamma_threshold(n)
    assert gamma_threshold(n - 1) < gamma < gamma_threshold(math.inf)
    assert p_series(n, gamma - 1e-6)[0] < 0.5 < p_series(n, gamma + 1e-6)[0]


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.8])
def test_two_samples_are_mixup_at_a_fixed_lam(gamma):
    x, labels = batch(2)
    plan, pair = ZetaMixup(gamma, rng=0).draw(x, labels), Pairs([1, 0], 1 / (1 + 2**-gamma))
    assert torch.allclose(plan.mix(x), pair.mix(x), rtol=1e-6)
    assert torch.allclose(plan.matrix(), pair.matrix())
    assert torch.allclose(ZetaMixup(gamma, n_mixed=2, rng=0).draw(*batch(9)).matrix().diagonal(), plan.matrix()[0, 0])


def test_gamma_at_its_ends():
    x, labels = batch(7)
    assert torch.equal(ZetaMixup(200.0, rng=0).draw(x, labels).mix(x), x)  # the far weights underflow to zero
    assert torch.allclose(ZetaMixup(0, rng=0).draw(x, labels).mix(x), x.mean(0).expand(7, 4), atol=1e-6)
    assert torch.equal(ZetaMixup(1.0, n_mixed=1, rng=0).draw(x, labels).matrix(), torch.eye(7).double())


@pytest.mark.parametrize("n_mixed", [2, 4, 6, 50])
def test_n_mixed_counts_the_samples_in_a_row(n_mixed):
    matrix = ZetaMixup(2.0, n_mixed=n_mixed, rng=0).draw(*batch(6)).matrix()
    m = min(n_mixed, 6)
    assert ((matrix > 0).sum(1) == m).all()
    assert torch.allclose(matrix.sort(descending=True).values[:, :m], torch.from_numpy(p_series(m, 2.0)), rtol=1e-6)


def test_far_ranks_keep_their_weight_where_fp16_would_lose_it():
    x = torch.zeros(1024, 1, dtype=torch.float16)
    matrix = ZetaMixup(2.8, rng=0).draw(x, torch.zeros(1024)).matrix()
    assert matrix.min() > 0 and (matrix.half() == 0).sum(1).min() > 100


@pytest.mark.parametrize("device", [*DEVICES, "meta"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_draws_do_not_depend_on_device_or_dtype(device, dtype):
    x, labels = batch()
    here, there = ZetaMixup(2.8, rng=5), ZetaMixup(2.8, rng=5)
    plan, moved = here.draw(x, labels), there.draw(x.to(device, dtype), labels.to(device))
    assert moved.mix(x.to(device)).device.type == device and here.get_extra_state() == there.get_extra_state()
    if device != "meta":
        assert torch.allclose(plan.matrix(), moved.matrix(), rtol=1e-6)
        row_sums = moved.matrix().sum(1)
        assert torch.allclose(row_sums, torch.ones(8).double(), rtol=0, atol=1e-14 if dtype == torch.float64 else 1e-6)


@pytest.mark.parametrize("expression", ["ZetaMixup(gamma=2.8)", "ZetaMixup(gamma=1.0, n_mixed=4)"])
def test_the_command_line_understands_it(expression):
    method = runs.build_method(expression, seed=0)
    assert runs.describe(method) == expression == repr(method)
    plans = [made.draw(*batch()) for made in (method, runs.build_method(expression, seed=0))]
    assert torch.equal(plans[0].matrix(), plans[1].matrix()) and not torch.equal(
        plans[0].matrix(), method.draw(*batch()).matrix()
    )


@pytest.mark.parametrize(
    "order",
    [[[0, 0], [1, 0]], [[0, 1], [1, 1]], [[0, 2], [1, 0]], [[0, -1], [1, 0]], [[0, 1]], [[0], [1]]],
    ids=["repeated", "repeated below", "too large", "negative", "a row short", "a column short"],
)
def test_an_order_that_is_none_is_refused(order):
    with pytest.raises(ValueError, match="order must"):
        weights_from_order(torch.tensor(order), p_series(1, 1.0))


@pytest.mark.parametrize("gamma", [-0.1, math.nan, math.inf, "1", None])
def test_bad_gamma_is_refused_by_name(gamma):
    for call in (lambda: ZetaMixup(gamma), lambda: p_series(4, gamma)):
        with pytest.raises(ValueError, match="gamma must be"):
            call()


@pytest.mark.parametrize("count", [0, -1, 2.5, True, "4"])
def test_bad_counts_are_refused_by_name(count):
    with pytest.raises(ValueError, match="n_mixed must be"):
        ZetaMixup(1.0, n_mixed=count)
    for call in (p_series, lambda n, gamma: gamma_threshold(n), lambda n, g: weights(n, g, np.random.default_rng(0))):
        with pytest.raises(ValueError, match="n must be"):
            call(count, 1.0)
    with pytest.raises(ValueError, match="n_mixed must be"):
        weights(3, 1.0, np.random.default_rng(0), n_mixed=4)
