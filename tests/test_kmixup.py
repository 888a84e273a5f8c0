"""k-mixup: matching against brute force, SciPy and POT; who may meet whom; Algorithm 1."""

from itertools import permutations

import numpy as np
import ot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.stats import beta

from mixlab import KMixup, Pairs, one_hot
from mixlab.data.toys import one_ring, swiss_roll
from mixlab.kmixup import _table, expected_min_square, match, matched_alpha, mean_square, perturbation
from mixlab.results import runs

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))]
METRIC = {"squared": "sqeuclidean", "euclidean": "euclidean"}


def points(*shape, seed=0, dtype=torch.float32):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).to(dtype)


def blocks(n, k):
    return [range(start, min(start + k, n)) for start in range(0, n, k)]


def total(x, other, partner, cost):
    """The sum of costs of a matching, in float64."""
    x, other = (v.flatten(1).double().numpy() for v in (x, other))
    return float(np.diag(cdist(x, other[partner], METRIC[cost])).sum())


def costs(x, other, rows, cost):
    x, other = (v.flatten(1).double().numpy()[list(rows)] for v in (x, other))
    return cdist(x, other, METRIC[cost])


@pytest.mark.parametrize("cost", METRIC)
@pytest.mark.parametrize("dimension", [1, 2, 300])
@pytest.mark.parametrize("n, k", [(6, 1), (6, 2), (6, 3), (8, 4), (10, 5), (6, 6), (11, 4), (9, 6)])
def test_matching_equals_brute_force(n, k, dimension, cost):
    x, other = points(n, dimension, seed=1), points(n, dimension, seed=2)
    partner = match(x, other, k, cost)
    for rows in blocks(n, k):
        assert sorted(partner[list(rows)].tolist()) == list(rows), "one to one within the block"
        table = costs(x, other, rows, cost)
        every = [sum(table[i, j] for i, j in enumerate(order)) for order in permutations(range(len(rows)))]
        ours = total(x[list(rows)], other, partner[list(rows)].tolist(), cost)
        assert ours == pytest.approx(min(every), rel=1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("n, k, shape", [(64, 16, (2,)), (70, 32, (3, 8, 8)), (40, 7, (3, 16, 16)), (33, 2, (5,))])
def test_matching_equals_scipy_and_pot(n, k, shape, dtype, device):
    x, other = points(n, *shape, seed=3, dtype=dtype).to(device), points(n, *shape, seed=4, dtype=dtype).to(device)
    partner = match(x, other, k).cpu()
    x, other = x.cpu(), other.cpu()
    for rows in blocks(n, k):
        table, ours = costs(x, other, rows, "squared"), partner[list(rows)].tolist()
        even = np.full(len(rows), 1 / len(rows))
        found = total(x[list(rows)], other, ours, "squared")
        i, j = linear_sum_assignment(table)
        assert found == pytest.approx(table[i, j].sum(), rel=1e-5)
        assert found == pytest.approx(len(rows) * ot.emd2(even, even, table), rel=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 2000.0, 1e6])
def test_no_partner_leaves_its_block_at_any_scale_of_the_data(scale):
    x, other = scale * points(40, 3), scale * points(40, 3, seed=9)
    assert torch.equal(match(x, other, 8) // 8, torch.arange(40) // 8)
    assert torch.equal(match(x, other, 8), match(x / scale, other / scale, 8))


@pytest.mark.parametrize("cost", METRIC)
@pytest.mark.parametrize("dimension, near", [(4, 0.01), (300, 0.001)])
def test_near_duplicates_far_from_the_origin_find_each_other(dimension, near, cost):
    """Two clusters at +-1000: |x|^2 + |z|^2 - 2 x.z in float32 loses such distances, and no common centre helps."""
    x = 0.05 * points(12, dimension) + 1000 * torch.tensor([-1.0, 1.0]).repeat(6)[:, None]
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    other = x.double()[order] + near * points(12, dimension, seed=5, dtype=torch.float64)
    assert torch.equal(order[match(x.double(), other, 12, cost)], torch.arange(12))
    assert torch.equal(order[match(x, other.float(), 12, cost)], torch.arange(12))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("k", [2, 16])
def test_layout_and_autocast_do_not_change_the_matching(k, device):
    x, other = points(32, 3, 16, 16).to(device), points(32, 3, 16, 16, seed=1).to(device)
    expected = match(x, other, k)
    last = torch.channels_last
    assert torch.equal(match(x.to(memory_format=last), other.to(memory_format=last), k), expected)
    with torch.autocast(device, torch.bfloat16):
        assert torch.equal(match(x, other, k), expected)


@pytest.mark.parametrize("cost", METRIC)
def test_a_gpus_table_holds_the_costs_that_the_blocks_are_matched_by(cost):
    x, other = points(9, 40, dtype=torch.float64), 1000 + points(9, 40, seed=1, dtype=torch.float64)
    assert np.allclose(_table(x, other, cost), cdist(x, other, METRIC[cost]), rtol=1e-12)


def test_squared_and_plain_distance_match_differently():
    x, other = torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [1.9, 0.3]])
    assert match(x, other, 2).tolist() == [0, 1]  # two steps of about one
    assert match(x, other, 2, "euclidean").tolist() == [1, 0]  # one point stays, the other goes all the way


def test_a_batch_of_one_stays_and_a_k_of_more_than_half_the_first_batch_is_refused():
    assert KMixup(1.0, 8, rng=0).draw(points(1, 2), torch.zeros(1)).partner.tolist() == [0]
    with pytest.raises(ValueError, match="k must be"):
        KMixup(1.0, 8, rng=0).draw(points(15, 2), torch.zeros(15))


@given(st.integers(1, 20), st.integers(0, 20), st.integers(0, 5))
def test_in_one_batch_partners_are_a_permutation_and_nobody_meets_itself(k, more, seed):
    method, n = KMixup(1.0, k, rng=seed), 2 * k + more
    x = points(n, 2, seed=seed)
    partner = method.draw(x, torch.zeros(n)).partner
    assert sorted(partner.tolist()) == list(range(n))
    assert (partner != torch.arange(n)).all()


@pytest.mark.parametrize("n, k, block", [(21, 5, 5), (32, 8, 8), (9, 8, 4), (3, 8, 1)])
def test_a_block_is_matched_with_the_block_after_it(n, k, block):
    """The plan, redone by SciPy from the same random order; a short last batch gets the largest blocks it can hold."""
    x, rng, method = points(n, 2), np.random.default_rng(8), KMixup(1.0, k, rng=8)
    method.draw(points(32, 2), torch.zeros(32))
    rng.permutation(32), rng.beta(1.0, 1.0)
    partner, order = method.draw(x, torch.zeros(n)).partner, rng.permutation(n)
    for rows in blocks(n, block):
        own, facing = order[list(rows)], order[[(row + block) % n for row in rows]]
        table = cdist(x[own], x[facing], "sqeuclidean")
        assert sorted(partner[own].tolist()) == sorted(facing)
        assert total(x[own], x[partner[own]], range(len(own)), "squared") == pytest.approx(
            table[linear_sum_assignment(table)].sum()
        )


def test_k_1_is_mixup_with_every_other_sample_as_likely():
    counts, method, x = np.zeros((4, 4)), KMixup(1.0, 1, rng=0), points(4, 2)
    for _ in range(3000):
        counts[range(4), method.draw(x, torch.zeros(4)).partner] += 1
    assert (np.diag(counts) == 0).all()
    off = counts[~np.eye(4, dtype=bool)] / 3000
    assert np.abs(off - 1 / 3).max() < 4 * np.sqrt(2 / 9 / 3000)


def test_larger_k_brings_partners_nearer():
    x = swiss_roll(n_train=512).train_x
    squared = [mean_square(x, k, rng=0) for k in (1, 2, 4, 16, 64)]
    assert squared == sorted(squared, reverse=True) and squared[-1] < 0.1 * squared[0]
    assert squared[0] == pytest.approx(2 * float(x.double().var(0).sum()), rel=0.03)


@pytest.mark.parametrize("k", [1, 2, 16])
def test_one_batch_moves_points_as_far_as_two_independent_ones(k):
    """Blocks of a random order are random sets of k, disjoint ones: the only difference, and a small one."""
    x, rng, method = one_ring(n_train=512).train_x, np.random.default_rng(0), KMixup(1.0, k, rng=0)
    moved = []
    for _ in range(300):
        first, second = (x[torch.from_numpy(rng.permutation(512)[:64])] for _ in range(2))
        one, two = (method.draw(first, torch.zeros(64), other).partner for other in (None, second))
        moved.append([(first - v).square().sum(1).mean().item() for v in (first[one], second[two])])
    (one, two), (one_var, two_var) = np.mean(moved, 0), np.var(moved, 0)
    assert abs(one - two) < 4 * np.sqrt((one_var + two_var) / 300) + 0.02 * two


def test_two_batches_are_mixed_with_each_other():
    x, z, labels = points(6, 3), points(6, 3, seed=1), torch.tensor([0, 1, 2, 0, 1, 2])
    plan = KMixup(1.0, 3, rng=0).draw(x, labels, other=z)
    assert torch.equal(plan.partner, match(x, z, 3))
    assert torch.allclose(plan.mix(x, z), plan.lam * x + (1 - plan.lam) * z[plan.partner])
    y, z_y = one_hot(labels, 3), one_hot(labels.flip(0), 3)
    assert torch.allclose(plan.mix_labels(y, z_y), plan.lam * y + (1 - plan.lam) * z_y[plan.partner])


@pytest.mark.parametrize("alpha", [0.05, 1.0, 64.0])
def test_closed_form_of_the_mean_square_of_the_smaller_share(alpha):
    integral = 2 * quad(lambda v: v**2 * beta.pdf(v, alpha, alpha), 0, 0.5)[0]
    assert expected_min_square(alpha) == pytest.approx(integral, rel=1e-6)
    assert expected_min_square(0) == 0 and 0.249 < expected_min_square(1e6) < 0.25


@pytest.mark.parametrize("alpha, ratio", [(0.25, 1.0), (0.25, 1.5), (1.0, 2.0), (4.0, 1.1)])
def test_matched_alpha_keeps_the_perturbation(alpha, ratio):
    found = matched_alpha(alpha, ratio)
    assert expected_min_square(found) == pytest.approx(ratio * expected_min_square(alpha), rel=1e-9)
    assert found >= alpha


def test_matched_alpha_says_when_the_perturbation_cannot_be_reached():
    with pytest.warns(UserWarning, match="82%"):
        assert matched_alpha(1.0, 4.0) == 100.0
    assert matched_alpha(0.0, 3.0) == 0.0


def test_perturbation_by_hand():
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    assert perturbation(x, Pairs([1, 0], 0.8)) == pytest.approx(1.0)
    assert perturbation(x, Pairs([1, 0], [0.2, 1.0])) == pytest.approx(np.sqrt(0.5))


def test_the_expression_round_trips():
    for expression in ("KMixup(alpha=1.0, k=16)", "KMixup(alpha=0.5, k=4, cost='euclidean', per_sample=True)"):
        assert runs.describe(runs.build_method(expression, seed=0)) == expression


def test_k_may_be_numpys():
    assert KMixup(1.0, np.int64(4)).k == 4 and type(KMixup(1.0, np.int64(4)).k) is int


@pytest.mark.parametrize("k", [2, 8])
@pytest.mark.parametrize("value", [float("nan"), 1e200])
def test_what_is_not_finite_is_refused(k, value):
    x = points(16, 2, dtype=torch.float64)
    x[3, 1] = value
    with pytest.raises(ValueError, match="x must be finite"):
        KMixup(1.0, k, rng=0).draw(x, torch.zeros(16))


@pytest.mark.parametrize(
    "call, name",
    [
        (lambda: KMixup(1.0, 0), "k"),
        (lambda: KMixup(1.0, 2.0), "k"),
        (lambda: KMixup(1.0, True), "k"),
        (lambda: KMixup(-1.0, 2), "alpha"),
        (lambda: KMixup(1.0, 2, cost="cosine"), "cost"),
        (lambda: KMixup(1.0, 2, cost=["squared"]), "cost"),
        (lambda: match(points(4, 2), points(5, 2), 2), "x and other"),
        (lambda: match(points(4, 2), points(4, 2), 2.0), "k"),
        (lambda: mean_square(points(4, 2), 3, 0), "k"),
        (lambda: expected_min_square("1"), "alpha"),
        (lambda: matched_alpha(1.0, 0.5), "ratio"),
    ],
)
def test_bad_arguments_are_named(call, name):
    with pytest.raises(ValueError, match=rf"^{name} must "):
        call()


def test_integer_images_are_refused():
    with pytest.raises(TypeError, match="convert to float first"):
        KMixup(1.0, 2).draw(torch.zeros(8, 3, 4, 4, dtype=torch.uint8), torch.zeros(8))
