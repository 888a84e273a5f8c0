"""RegMixup: its loss and gradient by hand, one pass through the network, and who learns from what."""

import pytest
import torch
from examples import images
from torch import nn
from torch.nn import functional as F

from mixlab import ConfusionMixup, Mixup, RegMixup
from mixlab.results.runs import build_method
from mixlab.training.models import build


@pytest.mark.parametrize("inner", ["Mixup(20)", "LabelSmoothing(0.1, CutMix(1.0))", "InfiniteClass(Mixup(20))"])
def test_it_is_the_clean_loss_plus_eta_times_the_methods(inner):
    (x, labels), net = images(), nn.Sequential(nn.Flatten(), nn.Linear(768, 3)).double()
    x = x.double()
    for eta in (0.0, 0.5, 3.0):
        mixed = eta * build_method(inner, seed=3).loss(net, x, labels) if eta else 0
        expected, loss = (
            F.cross_entropy(net(x), labels) + mixed,
            RegMixup(build_method(inner, 3), eta).loss(net, x, labels),
        )
        there, here = (torch.autograd.grad(value, net[1].weight)[0] for value in (expected, loss))
        assert torch.allclose(loss, expected) and torch.allclose(here, there)


def test_clean_and_mixed_go_through_the_network_together():
    (x, labels), net, sizes = images(), build("quick_resnet", 3, seed=0), []
    net.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
    RegMixup(Mixup(20, rng=0)).loss(net, x, labels)
    RegMixup(Mixup(20, rng=0), eta=0).loss(net, x, labels)
    assert sizes == [12, 6] and net.stages[-1][1].num_batches_tracked == 2


def test_what_is_inside_learns_from_the_mixed_answers_alone():
    (x, labels), net = images(), nn.Sequential(nn.Flatten(), nn.Linear(768, 3))
    inside, alone = ConfusionMixup(1.0, 1.0, rng=0), ConfusionMixup(1.0, 1.0, rng=0)
    RegMixup(inside).loss(net, x, labels)
    alone.loss(net, x, labels)
    assert torch.allclose(inside.counts, alone.counts, atol=1e-6) and inside.seen.sum().item() == pytest.approx(6)
