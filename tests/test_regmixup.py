"""RegMixup: its loss and gradient by hand, one pass through the network, and what goes inside."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mixlab import (
    ConfusionMixup,
    CutMix,
    InfiniteClass,
    LabelSmoothing,
    LaMix,
    ManifoldMixup,
    Mixup,
    PuzzleMix,
    RegMixup,
)
from mixlab.method import REASONS
from mixlab.training.models import build


def images(n=6, size=16, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 3, size, size, generator=generator, dtype=dtype), torch.arange(n) % 3


@pytest.mark.parametrize("eta", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("inner", [Mixup, CutMix, lambda a, rng: InfiniteClass(Mixup(a, rng=rng))])
def test_it_is_the_clean_loss_plus_eta_times_the_methods(eta, inner):
    x, labels = images(dtype=torch.float64)
    net = nn.Sequential(nn.Flatten(), nn.Linear(768, 3)).double()
    expected = F.cross_entropy(net(x), labels) + (eta * inner(20, rng=3).loss(net, x, labels) if eta else 0)
    (there,) = torch.autograd.grad(expected, net[1].weight)
    loss = RegMixup(inner(20, rng=3), eta=eta).loss(net, x, labels)
    (here,) = torch.autograd.grad(loss, net[1].weight)
    assert torch.allclose(loss, expected) and torch.allclose(here, there)


def test_clean_and_mixed_go_through_the_network_together():
    x, labels = images()
    net, sizes = build("quick_resnet", 3, seed=0), []
    net.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
    RegMixup(Mixup(20, rng=0)).loss(net, x, labels)
    RegMixup(Mixup(20, rng=0), eta=0).loss(net, x, labels)
    assert sizes == [12, 6] and net.stages[-1][1].num_batches_tracked == 2


def test_what_is_inside_learns_from_the_mixed_answers_alone():
    x, labels = images()
    inner = ConfusionMixup(1.0, 1.0, rng=0)
    RegMixup(inner).loss(nn.Sequential(nn.Flatten(), nn.Linear(768, 3)), x, labels)
    assert inner.seen.sum().item() == pytest.approx(6)


def test_what_it_cannot_do_is_refused_with_the_reason():
    for inner in (ManifoldMixup(Mixup(1.0)), LabelSmoothing(0.1, ManifoldMixup(Mixup(1.0)))):
        with pytest.raises(ValueError, match=f"^method {type(inner).__name__} {REASONS['mixes_inputs']}"):
            RegMixup(inner)
    for inner in (RegMixup(Mixup(1.0)), LaMix()):
        with pytest.raises(ValueError, match=f"^method {type(inner).__name__} {REASONS['own_loss']}"):
            RegMixup(inner)
    for method, eta, name in ((Mixup(1.0), -1.0, "eta"), (Mixup(1.0), float("nan"), "eta"), (Mixup(1.0), "1", "eta")):
        with pytest.raises(ValueError, match=f"^{name} "):
            RegMixup(method, eta)
    with pytest.raises(ValueError, match=r"^method "):
        RegMixup(None)
    assert RegMixup(PuzzleMix(1.0)).asks_model and RegMixup(Mixup(1.0)).own_loss


def test_a_method_that_calls_super_in_its_loss_is_still_taken():
    class Noting(Mixup):
        def loss(self, model, x, labels):
            return super().loss(model, x, labels)

    x, labels = images()
    net = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))
    for outer in (RegMixup, InfiniteClass, lambda method: ManifoldMixup(method, (0,))):
        noting, plain = outer(Noting(1.0, rng=0)), outer(Mixup(1.0, rng=0))
        assert torch.equal(noting.loss(net, x, labels), plain.loss(net, x, labels))
