"""k-mixup: matching against brute force, SciPy and POT; who may meet whom; Algorithm 1."""

from itertools import permutations

import numpy as np
import ot
import pytest
import torch
from examples import GPU, refuses
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.stats import beta

from mixlab import KMixup, Pairs, one_hot
from mixlab.data.toys import swiss_roll
from mixlab.kmixup import METRICS, _table, expected_min_square, match, matched_alpha, mean_square, perturbation

SIZES = st.integers(1, 11), st.integers(1, 5), st.sampled_from([1, 2, 300]), st.sampled_from(list(METRICS))


def points(*shape, seed=0, dtype=torch.float32):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).to(dtype)


def blocks(n, k):
    return [list(range(start, min(start + k, n))) for start in range(0, n, k)]


def costs(x, other, cost="squared"):
    return cdist(x.flatten(1).double().numpy(), other.flatten(1).double().numpy(), METRICS[cost])


@given(*SIZES)
def test_matching_equals_brute_force(n, k, dimension, cost):
    x, other = points(n, dimension, seed=1), points(n, dimension, seed=2)
    partner = match(x, other, k, cost)
    for rows in blocks(n, k):
        assert sorted(partner[rows].tolist()) == rows, "one to one within the block"
        table, own = costs(x[rows], other[rows], cost), np.arange(len(rows))
        every = [table[own, list(order)].sum() for order in permutations(own)]
        assert table[own, partner[rows].numpy() - rows[0]].sum() == pytest.approx(min(every), rel=1e-5)


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_matching_equals_pot_and_no_partner_leaves_its_block(dtype, device):
    x, other = points(70, 3, 8, 8, seed=3, dtype=dtype).to(device), points(70, 3, 8, 8, seed=4, dtype=dtype).to(device)
    partner, x, other = match(x, other, 32).cpu(), x.cpu(), other.cpu()
    for rows in blocks(70, 32):
        table, even = costs(x[rows], other[rows]), np.full(len(rows), 1 / len(rows))
        assert sorted(partner[rows].tolist()) == rows
        found = np.diag(table[:, partner[rows].numpy() - rows[0]]).sum()
        assert found == pytest.approx(len(rows) * ot.emd2(even, even, table), rel=1e-5)


@pytest.mark.parametrize("cost", METRICS)
def test_near_duplicates_far_from_the_origin_find_each_other(cost):
    """Two clusters at +-1000: |x|^2 + |z|^2 - 2 x.z in float32 loses such distances, and no common centre helps."""
    for dimension, near in ((4, 0.01), (300, 0.001)):
        x = 0.05 * points(12, dimension) + 1000 * torch.tensor([-1.0, 1.0]).repeat(6)[:, None]
        order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
        other = x.double()[order] + near * points(12, dimension, seed=5, dtype=torch.float64)
        assert torch.equal(order[match(x.double(), other, 12, cost)], torch.arange(12))
        assert torch.equal(order[match(x, other.float(), 12, cost)], torch.arange(12))


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_scale_place_layout_and_autocast_do_not_change_the_matching(device):
    x, other = points(32, 3, 16, 16).to(device), points(32, 3, 16, 16, seed=1).to(device)
    expected, last = match(x, other, 16), torch.channels_last
    assert torch.equal(match(x.to(memory_format=last), other.to(memory_format=last), 16), expected)
    for scale in (1e-6, 1e6):
        assert torch.equal(match(scale * x, scale * other, 16), expected)
    far, near = (1000 + 1e-6 * rows.double() for rows in (x, other))  # float32 would make them all one point
    assert torch.equal(match(far, near, 16), expected)
    with torch.autocast(device, torch.bfloat16):
        assert torch.equal(match(x, other, 16), expected)


def test_a_gpus_table_holds_the_costs_that_the_blocks_are_matched_by():
    x, other = points(9, 40, dtype=torch.float64), 1000 + points(9, 40, seed=1, dtype=torch.float64)
    for cost in METRICS:
        assert np.allclose(_table(x, other, cost), costs(x, other, cost), rtol=1e-12)


@given(st.integers(1, 20), st.integers(0, 20), st.integers(0, 5))
def test_in_one_batch_partners_are_a_permutation_and_nobody_meets_itself(k, more, seed):
    n = 2 * k + more
    partner = KMixup(1.0, k, rng=seed).draw(points(n, 2, seed=seed), torch.zeros(n)).partner
    assert sorted(partner.tolist()) == list(range(n)) and (partner != torch.arange(n)).all()


@pytest.mark.parametrize("n, k, block", [(21, 5, 5), (9, 8, 4), (1, 8, 1)])
def test_a_block_is_matched_with_the_block_after_it(n, k, block):
    """The plan, redone by SciPy from the same random order; a short last batch gets the largest blocks it can hold."""
    x, rng, method = points(n, 2), np.random.default_rng(8), KMixup(1.0, k, rng=8)
    method.draw(points(32, 2), torch.zeros(32))
    rng.permutation(32), rng.beta(1.0, 1.0)
    partner, order = method.draw(x, torch.zeros(n)).partner, rng.permutation(n)
    for rows in blocks(n, block):
        own, facing = order[rows], order[[(row + block) % n for row in rows]]
        table, found = costs(x[own], x[facing]), costs(x[own], x[partner[own]])
        assert sorted(partner[own].tolist()) == sorted(facing)
        assert np.diag(found).sum() == pytest.approx(table[linear_sum_assignment(table)].sum())


def test_the_mean_square_of_random_pairs_is_twice_the_variance_and_a_larger_k_brings_partners_nearer():
    x = swiss_roll(n_train=512).train_x
    squared = [mean_square(x, k, rng=0, pairs=2000) for k in (1, 4, 32)]
    assert squared[0] == pytest.approx(2 * float(x.double().var(0).sum()), rel=0.08)
    assert squared[0] > 1.5 * squared[1] > 3 * squared[2]


def test_two_batches_are_mixed_with_each_other():
    x, z, labels = points(6, 3), points(6, 3, seed=1), torch.tensor([0, 1, 2, 0, 1, 2])
    plan = KMixup(1.0, 3, rng=0).draw(x, labels, other=z)
    assert torch.equal(plan.partner, match(x, z, 3))
    assert torch.allclose(plan.mix(x, z), plan.lam * x + (1 - plan.lam) * z[plan.partner])
    y, z_y = one_hot(labels, 3), one_hot(labels.flip(0), 3)
    assert torch.allclose(plan.mix_labels(y, z_y), plan.lam * y + (1 - plan.lam) * z_y[plan.partner])


def test_closed_form_of_the_mean_square_of_the_smaller_share():
    for alpha in (0.05, 1.0, 64.0):
        integral = 2 * quad(lambda v, alpha=alpha: v**2 * beta.pdf(v, alpha, alpha), 0, 0.5)[0]
        assert expected_min_square(alpha) == pytest.approx(integral, rel=1e-6)
    assert expected_min_square(0) == 0 and 0.249 < expected_min_square(1e6) < 0.25


def test_matched_alpha_keeps_the_perturbation_or_says_that_it_cannot():
    for alpha, ratio in ((0.25, 1.0), (0.25, 1.5), (1.0, 2.0), (4.0, 1.1), (0.0, 3.0)):
        found = matched_alpha(alpha, ratio)
        assert found >= alpha and expected_min_square(found) == pytest.approx(ratio * expected_min_square(alpha))
    with pytest.warns(UserWarning, match="82%"):
        assert matched_alpha(1.0, 4.0) == 100.0


def test_perturbation_by_hand():
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    assert perturbation(x, Pairs([1, 0], 0.8)) == pytest.approx(1.0)
    assert perturbation(x, Pairs([1, 0], [0.2, 1.0])) == pytest.approx(np.sqrt(0.5))


def test_what_makes_no_sense_is_refused_by_name():
    def spoiled(value):
        x = points(16, 2, dtype=torch.float64)
        x[3, 1] = value
        return KMixup(1.0, 2, rng=0).draw(x, torch.zeros(16))

    refuses(spoiled, "x", float("nan"), 1e200)
    refuses(lambda n: KMixup(1.0, 8, rng=0).draw(points(n, 2), torch.zeros(n)), "k", 15, 2)
    refuses(lambda kind: KMixup(1.0, 2).draw(torch.zeros(8, 3, dtype=kind), torch.zeros(8)), "x", torch.uint8)
    refuses(lambda n: match(points(4, 2), points(n, 2), 2), "x and other", 5)
    refuses(lambda k: match(points(4, 2), points(4, 2), k), "k", 2.0, 0)
    refuses(lambda k: mean_square(points(4, 2), k, 0), "k", 3)
    refuses(expected_min_square, "alpha", "1", -1.0)
    refuses(lambda ratio: matched_alpha(1.0, ratio), "ratio", 0.5, float("nan"))
