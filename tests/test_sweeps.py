"""Many networks at once end where each would end alone."""

import numpy as np
import pytest
import torch

from mixlab import ERM, InfiniteClass, KMixup, LabelSmoothing, Method, Mixup, Remix, Weights
from mixlab.data.toys import four_bars, one_ring
from mixlab.training.sweeps import Nets, adam, fit_many, pair_many

SMALL = {"hidden": (16, 12), "epochs": 6, "batch_size": 20, "progress": False}


def train_alone(data, method, seed, optimizer, milestones=()):
    """The same run by ordinary means: one torch network, one loop, the method's own loss."""
    net = Nets((2, 16, 12, 2), [seed]).alone(0)
    method.prepare(net, data.train_y)
    optimiser, order = optimizer(net.parameters()), np.random.default_rng([seed, 1])
    for epoch in range(SMALL["epochs"]):
        rows = torch.from_numpy(order.permutation(len(data.train_x)))
        for part in rows.split(SMALL["batch_size"]):
            optimiser.zero_grad()
            method.loss(net, data.train_x[part], data.train_y[part]).backward()
            optimiser.step()
        method.end_epoch()
        if epoch + 1 in milestones:
            for group in optimiser.param_groups:
                group["lr"] /= 10
    return net


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-3)


def whole_batch(seed):
    class WholeBatch(Method):
        def draw(self, x, labels):
            return Weights(torch.from_numpy(self.rng.dirichlet(np.ones(len(x)), len(x))).float())

    return WholeBatch(rng=seed)


def learning(seed):
    class Learning(Mixup):
        def observe(self, logits, plan, labels):
            self.alpha += 0.01 * len(logits)

        def end_epoch(self):
            self.alpha += 1

    return Learning(0.1, rng=seed)


FAMILIES = {
    "pairs": [lambda s: Mixup(1.0, rng=s), lambda s: Mixup(8.0, per_sample=True, rng=s), lambda s: ERM()],
    "smoothed": [lambda s: LabelSmoothing(0.2, Mixup(1.0, rng=s)), lambda s: Mixup(0.5, rng=s), lambda s: ERM()],
    "whole rows": [whole_batch, lambda s: Mixup(1.0, rng=s), lambda s: ERM()],
    "matched": [lambda s: KMixup(1.0, 8, rng=s), lambda s: Mixup(1.0, rng=s), lambda s: KMixup(1.0, 2, rng=s)],
    "scored otherwise": [lambda s: InfiniteClass(Mixup(1.0, rng=s)), lambda s: Mixup(1.0, rng=s), lambda s: ERM()],
    "prepared and learning": [lambda s: Remix(1.0, rng=s), learning, lambda s: ERM()],
}


@pytest.mark.parametrize("family", FAMILIES)
def test_each_network_equals_the_same_one_trained_alone(family):
    optimizer, milestones = (sgd, (2, 4)) if family in ("smoothed", "matched", "scored otherwise") else (adam, ())
    data, seeds = one_ring(110, 50), [5, 6, 5]  # 110 points in batches of 20: the last one is ragged
    methods = [make(seed) for make, seed in zip(FAMILIES[family], seeds, strict=True)]
    nets = fit_many(data, methods, seeds, optimizer=optimizer, milestones=milestones, **SMALL)
    for i, (make, seed) in enumerate(zip(FAMILIES[family], seeds, strict=True)):
        alone = train_alone(data, make(seed), seed, optimizer, milestones)
        assert torch.allclose(nets.predict(data.test_x)[i], alone(data.test_x).softmax(1), atol=2e-5)
        assert not torch.allclose(alone(data.test_x), Nets((2, 16, 12, 2), [seed]).alone(0)(data.test_x), atol=1e-2)
        wrong = 100 * (nets.alone(i)(data.test_x).argmax(1) != data.test_y).double().mean()
        assert nets.error(data.test_x, data.test_y)[i] == pytest.approx(float(wrong), abs=1e-4)


def test_a_set_per_network():
    sets = [one_ring(60, 50, rng=1), four_bars(60, 50, rng=2)]
    nets = fit_many(sets, [Mixup(1.0, rng=0), Mixup(1.0, rng=1)], [0, 1], **SMALL)
    for i, data in enumerate(sets):
        alone = train_alone(data, Mixup(1.0, rng=i), i, adam)
        assert torch.allclose(nets.predict(data.test_x)[i], alone(data.test_x).softmax(1), atol=2e-5)


def test_whoever_watches_sees_every_network_before_the_first_epoch_and_after_each():
    data, seen = one_ring(60, 50), []
    nets = fit_many(data, [ERM(), ERM()], [0, 1], watch=lambda nets: seen.append(nets.predict(data.test_x)), **SMALL)
    assert len(seen) == 1 + SMALL["epochs"] and torch.equal(seen[0], Nets((2, 16, 12, 2), [0, 1]).predict(data.test_x))
    assert torch.equal(seen[-1], nets.predict(data.test_x)) and not torch.equal(seen[-1], seen[-2])


def test_learning_happens_from_the_weights_of_torch_linear():
    weight = Nets((400, 300, 2), [0]).weights[0]
    assert weight.abs().max() <= 1 / 20 and weight.std().item() == pytest.approx(1 / 20 / 3**0.5, rel=0.02)
    data = one_ring(256, 500)
    nets = fit_many(data, [ERM(), Mixup(0.2, rng=0)], [0, 1], epochs=40, progress=False)
    assert nets.error(data.test_x, data.test_y).max() < 5


@pytest.mark.parametrize("n, d", [(1, 2), (9, 1), (37, 40)])
def test_many_networks_draw_together_what_each_would_draw_alone(n, d):
    made = [(k, cost, per) for k in (1, 2, 4, 5, 16) for cost in ("squared", "euclidean") for per in (False, True)]
    x = torch.from_numpy(np.random.default_rng(n).normal(size=(22, n, d))).float()
    labels = torch.zeros(22, n)

    def methods():
        kmixup = [KMixup(0.5, k, cost, per, rng=i) for i, (k, cost, per) in enumerate(made)]
        return [Mixup(1.0, rng=0), *kmixup, Mixup(2.0, per_sample=True, rng=1)]

    alone, together = methods(), methods()
    for method in (*alone[1:-1], *together[1:-1]):
        method.deal(40)  # a whole batch first: n is a short last one
    plan = pair_many(together, x, labels)
    for i, method in enumerate(alone):
        own, part = method.draw(x[i], labels[i]), slice(i * n, i * n + n)
        if (d, getattr(method, "cost", "")) == (1, "euclidean"):  # on a line many matchings cost the same
            step = [(x[i] - x[i][partner]).abs().sum() for partner in (own.partner, plan.partner[part] - i * n)]
            assert torch.allclose(*step)
        else:
            assert torch.equal(own.partner, plan.partner[part] - i * n)
        assert torch.equal(torch.as_tensor(own.lam, dtype=torch.float32).expand(n), plan.lam[part])


def test_bad_input_is_refused_by_name():
    data, shared = one_ring(20, 10), Mixup(1.0)
    for arguments, complaint in [
        ((data, [ERM()], [0, 1]), "seeds"),
        ((data, [], []), "seeds"),
        (([data, data], [ERM()], [0]), "data"),
        ((data, [shared, shared], [0, 1]), "distinct"),
        ((data, ["ERM()"], [0]), "methods"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            fit_many(*arguments, **SMALL)
    with pytest.raises(ValueError, match="batch_size"):
        fit_many(data, [ERM()], [0], batch_size=0, progress=False)


def test_a_method_that_needs_more_than_inputs_and_a_score_is_refused():
    for name in ("mixes_inputs", "asks_model", "own_loss"):
        method = Mixup(1.0)
        setattr(method, name, not getattr(Method, name))
        with pytest.raises(ValueError, match="methods Mixup"):
            fit_many(one_ring(20, 10), [method], [0], **SMALL)
