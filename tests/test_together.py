"""Every pairing inside every scoring: it trains every weight, and after a restart goes on with the same losses."""

import io

import numpy as np
import pytest
import torch

import mixlab
from mixlab import CutMix, Method, PuzzleMix, Remix
from mixlab.results.runs import build_method, describe
from mixlab.training.models import build

PAIRINGS = ["ERM()", "Mixup(1.0)", "CutMix(1.0, per_sample=True)", "Remix(1.0, [40, 20, 10, 5])", "KMixup(1.0, 3)"]
PAIRINGS += ["ZetaMixup(2.8)", "ConfusionMixup(1.0, 1.0)", "PuzzleMix(1.0, blocks=(2, 4))"]
INSIDE = ["ManifoldMixup(CutMix(1.0), (1, 3))", "ManifoldMixup(KMixup(1.0, 2))", "ManifoldMixup(ZetaMixup(2.8))"]
SCORINGS = [
    "LabelSmoothing(0.1, {})",
    "InfiniteClass({})",
    "RegMixup({})",
    "RegMixup(LabelSmoothing(0.1, {}), eta=0.5)",
]
SCORINGS += ["RegMixup(InfiniteClass({}))", "LaMix(0.5, {})"]
TOGETHER = [*PAIRINGS, *INSIDE] + [scoring.format(pairing) for scoring in SCORINGS for pairing in PAIRINGS]
TOGETHER += [scoring.format(pairing) for scoring in SCORINGS[:2] for pairing in INSIDE]
TOGETHER.remove("LaMix(0.5, ZetaMixup(2.8))")  # gives no pairs


def images(n=7, size=8):
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 3])[:n]
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0)), labels


@pytest.mark.parametrize("expression", TOGETHER)
def test_every_pairing_goes_with_every_scoring(expression):
    x, labels = images()
    method, net = build_method(expression, seed=0), build("quick_resnet", 4, seed=0)
    method.prepare(net, labels.repeat(9))
    optimiser = torch.optim.SGD([*net.parameters(), *method.parameters()], lr=0.01)

    def step():
        optimiser.zero_grad()
        loss = method.loss(net, x, labels)
        loss.backward()
        optimiser.step()
        return loss.item()

    assert np.isfinite(step()) and np.isfinite(step())
    for name, parameter in [*net.named_parameters(), *method.named_parameters()]:
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name
    if "Confusion" in expression:
        method.end_epoch()
    file = io.BytesIO()
    torch.save([net.state_dict(), method.state_dict()], file)
    expected = [step(), step()]
    file.seek(0)
    of_net, of_method = torch.load(file, weights_only=True)
    method = build_method(expression, seed=9)  # another object, of another seed
    method.prepare(net, labels.repeat(9))
    net.load_state_dict(of_net)
    method.load_state_dict(of_method)
    optimiser = torch.optim.SGD([*net.parameters(), *method.parameters()], lr=0.01)
    assert [step(), step()] == expected


ALL = {name: part for name, part in vars(mixlab).items() if isinstance(part, type) and issubclass(part, Method)}


@pytest.mark.parametrize("name", sorted(ALL.keys() - {"Method"}))
def test_every_method_has_one_spelling_and_takes_a_batch_of_one(name):
    method = ALL[name](**ALL[name].defaults)
    assert describe(build_method(describe(method), seed=0)) == describe(method)
    assert name in repr(method)
    x, labels = images(1, size=16)
    net = build("quick_resnet", 10, seed=0)
    method.prepare(net, labels)
    assert method.loss(net, x, labels).isfinite()


def test_a_split_plan_moves_whole():
    x, labels = images()
    net = build("quick_resnet", 4, seed=0)
    for method in (Remix(1.0, [4, 3, 2, 1], rng=0), CutMix(1.0, True, rng=0), PuzzleMix(1.0, (2, 4), rng=0)):
        plan = method.draw_with_model(net, x, labels)
        moved = plan.to("cpu")
        assert torch.equal(moved.mix(x), plan.mix(x)) and torch.equal(moved.matrix(), plan.matrix())
        assert plan.to("meta").partner.device.type == plan.to("meta").mix(x.to("meta")).device.type == "meta"
