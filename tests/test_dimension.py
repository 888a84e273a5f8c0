"""Both estimators of dimension on sets whose dimension is known."""

import math

import numpy as np
import pytest
import torch
from examples import refuses

from mixlab.data.toys import half_moons, helix
from mixlab.training.dimension import local_pca, maximum_likelihood


def torus(n, d):
    """d angles, each as a point on its own circle: d-dimensional, without an edge, in a space of 2 d."""
    angles = torch.from_numpy(np.random.default_rng(d).uniform(0, 2 * math.pi, (n, d)))
    return torch.cat([angles.cos(), angles.sin()], 1)


def sphere(n, d):
    x = torch.from_numpy(np.random.default_rng(d).normal(size=(n, d + 1)))
    return x / x.norm(dim=1, keepdim=True)


def hidden_plane(n, d, wide):
    """Evenly filled, of dimension d, turned into a space of many dimensions."""
    rng = np.random.default_rng(d)
    turn, _ = np.linalg.qr(rng.normal(size=(wide, d)))
    return torch.from_numpy(rng.uniform(size=(n, d)) @ turn.T)


ESTIMATES = pytest.mark.parametrize("estimate", [local_pca, maximum_likelihood])


@ESTIMATES
def test_known_dimensions_within_ten_percent(estimate):
    known = {"circle": (torus(2000, 1), 1), "helix": (helix(6000).train_x, 1), "moons": (half_moons(4000).train_x, 1)}
    known |= {"torus": (torus(4000, 2), 2), "3-sphere": (sphere(6000, 3), 3)}
    known |= {f"plane in {wide}": (hidden_plane(6000, 2, wide), 2) for wide in (40, 200)}
    for name, (points, dimension) in known.items():
        assert estimate(points) == pytest.approx(dimension, rel=0.1), name


@ESTIMATES
def test_scale_place_and_shape_of_the_points_do_not_matter(estimate):
    points = sphere(1500, 3)
    expected = estimate(points, k=64)
    assert estimate(1000 * points + 7, k=64) == pytest.approx(expected, rel=1e-6)
    assert estimate(points.view(1500, 2, 2), k=64) == pytest.approx(expected, rel=1e-12)


@ESTIMATES
def test_they_see_what_is_as_large_as_a_ball(estimate):
    """A circle with noise: one dimension for balls much wider than the noise, two for balls inside it."""
    points = torus(8000, 1) + 0.01 * torch.from_numpy(np.random.default_rng(0).normal(size=(8000, 2)))
    assert estimate(points, k=1000) < 1.1 and estimate(points, k=20) > 1.6


def test_maximum_likelihood_is_its_formula():
    points = torch.tensor([[0.0], [1.0], [3.0], [7.0]], dtype=torch.float64)
    distances = torch.tensor([[1, 3, 7], [1, 2, 6], [2, 3, 4], [4, 6, 7]], dtype=torch.float64)
    expected = 1 / (distances[:, -1:] / distances[:, :2]).log().mean()
    assert maximum_likelihood(points, k=3) == pytest.approx(float(expected), rel=1e-12)


def test_local_pca_counts_variances_from_the_share_up():
    """Each point of a cross has the four others around it; the second variance, as a share of the first, is 2/12
    around the two far tips (16 - 16/4 across, 2 up), 0.75/32 around the two near ones, 2/32 around the middle."""
    points = torch.tensor([[4.0, 0], [-4, 0], [0, 1], [0, -1], [0, 0]])
    found = [local_pca(points, k=4, centres=5, share=share) for share in (0.01, 0.06, 0.1, 0.5)]
    assert found == [pytest.approx(count / 5) for count in (10, 8, 7, 5)]


def test_centres_are_a_fixed_sample():
    points = torus(400, 3)
    assert local_pca(points, k=20, centres=30) == local_pca(points, k=20, centres=30, rng=np.random.default_rng(0))
    assert local_pca(points, k=20, centres=30) != local_pca(points, k=20, centres=30, rng=1)
    assert maximum_likelihood(points, k=20, centres=400) == maximum_likelihood(points, k=20, centres=9999)


def test_what_makes_no_sense_is_refused_by_name():
    points = torus(20, 1)
    for estimate in (local_pca, maximum_likelihood):
        refuses(lambda k, estimate=estimate: estimate(points, k=k), "k", 2, 20)
        refuses(lambda centres, estimate=estimate: estimate(points, k=5, centres=centres), "centres", 0)
    refuses(lambda share: local_pca(points, k=5, share=share), "share", 0, 1)
    refuses(lambda points: maximum_likelihood(points, k=5), "points", torch.cat([points, points]))
