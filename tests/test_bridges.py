"""The controls of lesson 02: partners by another rule, bridges counted, answers on the way over a gap."""

import numpy as np
import pytest
import torch
from examples import refuses

from mixlab import KMixup
from mixlab.course.bridges import OtherPartners, across_the_gaps, count_bridges
from mixlab.data.toys import four_bars


def test_the_assignment_as_a_rule_is_k_mixup_and_another_rule_keeps_order_and_lam():
    x, labels = torch.randn(24, 2, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 2
    plan = KMixup(1.0, 4, rng=3).draw(x, labels)
    same = OtherPartners(lambda matched, bridge, far, differ: matched, 4, rng=3).draw(x, labels)
    assert same.partner.equal(plan.partner) and same.lam == plan.lam
    near = OtherPartners(lambda matched, bridge, far, differ: far.argmin(2), 4, rng=3).draw(x, labels)
    order = torch.from_numpy(np.random.default_rng(3).permutation(24))
    for block, facing in zip(order.split(4), order.roll(-4).split(4), strict=True):
        assert near.partner[block].tolist() == facing[torch.cdist(x[block], x[facing]).argmin(1)].tolist()
    assert near.lam == plan.lam


def test_a_rule_hears_which_partners_are_bridges():
    def rule(matched, bridge, far, differ):
        assert bridge.equal(torch.take_along_dim(differ, matched[..., None], 2)[..., 0])
        seen.append(int(bridge.sum()))
        return matched

    seen, x, labels = [], torch.randn(16, 2), torch.arange(16) % 2
    plan = OtherPartners(rule, 4, rng=0).draw(x, labels)
    assert seen == [int((labels != labels[plan.partner]).sum())]
    refuses(lambda n: OtherPartners(rule, 4, rng=0).draw(x[:n], labels[:n]), "x", 15)


def test_bridges_of_two_far_clusters_are_those_that_must_be():
    labels = torch.arange(200) % 2
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(1)) + 100.0 * labels[:, None]
    must, matched, nearest = count_bridges(x, labels, 8, lambda a, b: abs(int(a.sum()) - int(b.sum())), draws=50)
    assert must == pytest.approx(matched) and matched > 10 > nearest


def test_ways_lead_from_bar_to_bar():
    class Bars:
        """Certain of the nearest bar's class."""

        def __len__(self):
            return 2

        def predict(self, x):
            bar = ((x[:, 0] + 3) / 1.5).floor().long().clamp(0, 3)
            return torch.nn.functional.one_hot(bar % 2, 2).double().expand(2, -1, -1)

    data = four_bars(100, rng=0)
    assert (Bars().predict(data.train_x)[0].argmax(1) == data.train_y).all()
    ways = across_the_gaps(Bars(), steps=11)
    assert ways.shape == (2, 39, 11) and (ways[..., :5] == 0).all() and (ways[..., 6:] == 1).all()
