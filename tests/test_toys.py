"""The toy sets: their formulas, their split, and the sizes that the k-mixup paper's table 9 asks for."""

import pytest
import torch
from scipy.special import betainc

from mixlab.data.toys import TOYS, digits, four_bars, one_ring, swiss_roll
from mixlab.results import papers


def test_split_sizes_types_balance_and_determinism():
    for toy in TOYS.values():
        data, again, other = toy(101, 60, rng=1), toy(101, 60, rng=1), toy(101, 60, rng=2)
        assert data.train_x.dtype == torch.float32 and data.train_y.dtype == torch.int64
        assert data.train_y.bincount().tolist() == [51, 50] and data.test_y.bincount().tolist() == [30, 30]
        assert torch.equal(data.train_x, again.train_x) and torch.equal(data.test_y, again.test_y)
        assert not torch.equal(data.train_x, other.train_x)
        assert not torch.equal(data.train_x[:60], data.test_x), "the test points are the training points"


def test_points_lie_where_the_formulas_say():
    ring, bars, roll, moons, strands = (
        TOYS[name](4000, 1, rng=0) for name in ("one_ring", "four_bars", "swiss_roll", "half_moons", "helix")
    )
    radius = ring.train_x.norm(dim=1)
    assert radius[ring.train_y == 0].max() <= 0.3 + 1e-6
    assert 0.45 - 1e-6 <= radius[ring.train_y == 1].min() and radius[ring.train_y == 1].max() <= 0.55 + 1e-6
    nearest = ((bars.train_x[:, 0] / 1.5) + 1.5).round()
    assert torch.equal(nearest.long() % 2, bars.train_y) and bars.train_x[:, 1].abs().max() <= 1.6
    angle = torch.atan2(roll.train_x[:, 1], roll.train_x[:, 0])
    turned = 3 * torch.pi * (roll.train_x.norm(dim=1) - 1) / 6.55 + torch.pi * roll.train_y
    assert torch.allclose((angle - turned).cos(), torch.ones(4000), atol=1e-5)
    centre = torch.stack([moons.train_y - 0.5, 0.5 * moons.train_y - 0.25], dim=1)
    assert torch.allclose((moons.train_x - centre).norm(dim=1), torch.ones(4000), atol=1e-5)
    assert torch.allclose(strands.train_x[:, :2].norm(dim=1), torch.ones(4000), atol=1e-5)


def window(table, cut_off):
    """The values of E|x - x'|^2 that all columns of a table allow, their printed digits cut off or rounded."""
    lows, highs = [], []
    for row in papers.rows("kmixup", table):
        if row["params"]["k"] == 1:
            xi, alpha = row["params"]["xi"], row["params"]["alpha"]
            m = betainc(alpha + 2, alpha, 0.5) * (alpha + 1) / (2 * alpha + 1)  # E[min(lam, 1 - lam)^2]
            unit = 10.0 ** -len(f"{xi}".split(".")[1])
            low, high = (xi, xi + unit) if cut_off else (xi - unit / 2, xi + unit / 2)
            lows.append(low**2 / m)
            highs.append(high**2 / m)
    return max(lows), min(highs)


@pytest.mark.parametrize("toy, table", [(one_ring, "table9a"), (four_bars, "table9b"), (swiss_roll, "table9c")])
def test_published_xi_agree_if_cut_off_and_our_sizes_fit_them(toy, table):
    low, high = window(table, cut_off=True)
    x = toy(4000, 1, rng=0).train_x.double()
    assert low < 2 * x.var(0, correction=0).sum() < high  # E|x - x'|^2 of two independent points
    low, high = window(table, cut_off=False)
    assert (low < high) == (toy is not four_bars)  # whose columns do not agree if they were rounded


def test_digits_keep_their_images_whatever_share_of_the_labels_is_random():
    clean, noisy, again, other = digits(1000), digits(1000, 0.4), digits(1000, 0.4), digits(1000, 0.4, rng=1)
    assert clean.train_x.shape == (1000, 64) and clean.test_x.shape == (797, 64) and len(clean.classes) == 10
    assert clean.train_x.dtype == torch.float32 and (clean.train_x.min(), clean.train_x.max()) == (0, 1)
    assert torch.equal(clean.train_x, noisy.train_x) and torch.equal(clean.test_y, noisy.test_y)
    assert torch.equal(noisy.train_y, again.train_y) and not torch.equal(noisy.train_x, other.train_x)
    assert 320 <= (clean.train_y != noisy.train_y).sum() <= 400, "0.4 drawn from ten labels leaves 0.36 wrong"
    together = torch.cat([clean.train_x, clean.test_x])
    assert together.unique(dim=0).shape == (1797, 64), "an image is in training and in test, or in neither"


def test_bad_arguments_are_named():
    bad = [
        (one_ring, "n_train", 0),
        (one_ring, "n_test", -1),
        (digits, "n_train", 1797),
        (digits, "random_labels", 1.1),
    ]
    for toy, argument, value in bad:
        with pytest.raises(ValueError, match=argument):
            toy(**{argument: value})
