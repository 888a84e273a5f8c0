"""Manifold mixup: by hand at every place, on networks of ours and of a student's own, and one draw a batch."""

import pytest
import torch
from examples import batch, images, refuses
from torch import nn
from torch.nn import functional as F

from mixlab import ConfusionMixup, KMixup, ManifoldMixup, Mixup, one_hot, soft_cross_entropy
from mixlab.training.models import build


class Student(nn.Module):
    """As a first tutorial writes it: parts in the order of their use, one pooling used twice, views between."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16, 12)
        self.fc2 = nn.Linear(12, 3)

    def forward(self, x):
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


def test_place_zero_is_plain_mixup():
    x, labels = images()
    for net in (build("quick_resnet", 3, seed=0), Student()):
        manifold = ManifoldMixup(Mixup(1.0, rng=7), stages=(0,))
        assert torch.equal(manifold.loss(net, x, labels), Mixup(1.0, rng=7).loss(net, x, labels))


@pytest.mark.parametrize("stage", [1, 2, 5])
def test_by_hand_at_every_place(stage):
    (x, labels), net = images(), build("quick_resnet", 3, seed=0)
    plan, h = Mixup(1.0, rng=7).draw(x, labels), x
    for part in net.stages[:stage]:
        h = part(h)
    h = plan.lam * h + (1 - plan.lam) * h[plan.partner]
    for part in net.stages[stage:]:
        h = part(h)
    by_hand = soft_cross_entropy(net.head(h.mean((2, 3))), plan.mix_labels(one_hot(labels, 3)))
    assert torch.allclose(ManifoldMixup(Mixup(1.0, rng=7), (stage,)).loss(net, x, labels), by_hand, atol=1e-6)


def test_a_students_own_network_is_mixed_after_its_named_parts():
    """Place 2 is what the pooling gives at its first use; no hook stays behind."""
    (x, labels), net = images(), Student()
    plan = Mixup(1.0, rng=7).draw(x, labels)
    h = plan.mix(net.pool(F.relu(net.conv1(x))))
    logits = net.fc2(F.relu(net.fc1(net.pool(F.relu(net.conv2(h))).flatten(1))))
    by_hand = soft_cross_entropy(logits, plan.mix_labels(one_hot(labels, 3)))
    assert torch.allclose(ManifoldMixup(Mixup(1.0, rng=7), (2,)).loss(net, x, labels), by_hand, atol=1e-6)
    assert not any(part._forward_hooks for part in net.modules())


def test_the_plan_is_drawn_from_the_features_and_places_are_uniform():
    seen = []

    class Looking(Mixup):
        def draw(self, x, labels):
            seen.append(x.shape[1])
            return super().draw(x, labels)

    (x, labels), net = images(2, size=8), build("quick_resnet", 3, seed=0)
    method = ManifoldMixup(Looking(1.0, rng=0), stages=(0, 2, 4), rng=0)
    for _ in range(90):
        method.run(net, x, labels)
    counts = {channels: seen.count(channels) for channels in set(seen)}
    assert set(counts) == {3, 16, 64}  # the images, and what stages 2 and 4 are given
    assert all(abs(count - 30) < 4 * (90 * 1 / 3 * 2 / 3) ** 0.5 for count in counts.values())


def test_there_is_one_draw_a_batch_and_what_it_mixes_by_learns_from_the_answers():
    (x, labels), net = images(), build("quick_resnet", 3, seed=0)
    for stage in (0, 2):
        method, same = ManifoldMixup(KMixup(1.0, 2, rng=3), (stage,)), KMixup(1.0, 2, rng=3)
        for _ in range(3):
            method.loss(net, x, labels)
            same.draw(net.hidden(x, stage), labels)
        assert method.mixing.rng.bit_generator.state == same.rng.bit_generator.state
    learning = ManifoldMixup(ConfusionMixup(1.0, 1.0, rng=0), (2,))
    learning.loss(net, x, labels)
    learning.end_epoch()
    assert learning.mixing.pairing.shape == (3, 3)


def test_a_network_without_such_a_place_is_told_what_places_are():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused, self.fc = nn.Linear(3, 3), nn.Linear(4, 3)

        def forward(self, x):
            return self.fc(x)

    for net, stage, (x, labels) in ((Odd(), 1, batch(6)), (build("quick_resnet", 3), 9, images())):
        method = ManifoldMixup(Mixup(1.0), (stage,))
        refuses(lambda x, method=method, net=net, y=labels: method.loss(net, x, y), "stages", x)
