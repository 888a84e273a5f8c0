"""Manifold mixup: by hand at every place, on networks of ours and of a student's own, and one draw a batch."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mixlab import (
    ConfusionMixup,
    InfiniteClass,
    KMixup,
    LabelSmoothing,
    LaMix,
    ManifoldMixup,
    Mixup,
    PuzzleMix,
    RegMixup,
    one_hot,
    soft_cross_entropy,
)
from mixlab.method import REASONS
from mixlab.training.models import build


def images(n=6, size=16):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0)), torch.arange(n) % 3


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


def test_stage_zero_is_plain_mixup():
    x, labels = images()
    for net in (build("quick_resnet", 3, seed=0), Student()):
        manifold = ManifoldMixup(Mixup(1.0, rng=7), stages=(0,))
        assert torch.equal(manifold.loss(net, x, labels), Mixup(1.0, rng=7).loss(net, x, labels))


@pytest.mark.parametrize("stage", [1, 2, 3, 4, 5])
def test_by_hand_at_every_stage(stage):
    x, labels = images()
    net = build("quick_resnet", 3, seed=0)
    plan = Mixup(1.0, rng=7).draw(x, labels)
    h = x
    for part in net.stages[:stage]:
        h = part(h)
    h = plan.lam * h + (1 - plan.lam) * h[plan.partner]
    for part in net.stages[stage:]:
        h = part(h)
    by_hand = soft_cross_entropy(net.head(h.mean((2, 3))), plan.mix_labels(one_hot(labels, 3)))
    assert torch.allclose(ManifoldMixup(Mixup(1.0, rng=7), (stage,)).loss(net, x, labels), by_hand, atol=1e-6)


def test_mixing_after_a_lone_convolution_is_mixing_images_and_later_is_not():
    """Why stage 1 of a PreActResNet is no place of its own, and 2 is the default."""
    x, labels = images()
    net = build("quick_resnet", 3, seed=0)
    logits = [ManifoldMixup(Mixup(1.0, rng=7), stages=(place,)).run(net, x, labels)[1] for place in (0, 1, 2)]
    assert (logits[0] - logits[1]).abs().max() < 1e-4 < 1e-3 < (logits[0] - logits[2]).abs().max()
    assert ManifoldMixup(Mixup(1.0)).stages == (0, 2)


def test_a_students_own_network_is_mixed_after_its_named_parts():
    """Place 2 is what the pooling gives at its first use; no hook stays behind."""
    x, labels = images()
    net = Student()
    plan = Mixup(1.0, rng=7).draw(x, labels)
    h = plan.mix(net.pool(F.relu(net.conv1(x))))
    logits = net.fc2(F.relu(net.fc1(net.pool(F.relu(net.conv2(h))).flatten(1))))
    by_hand = soft_cross_entropy(logits, plan.mix_labels(one_hot(labels, 3)))
    assert torch.allclose(ManifoldMixup(Mixup(1.0, rng=7), (2,)).loss(net, x, labels), by_hand, atol=1e-6)
    assert not any(part._forward_hooks for part in net.modules())
    rows = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    assert ManifoldMixup(Mixup(1.0), (2,)).loss(rows, torch.randn(6, 4), labels).isfinite()


def test_a_network_without_such_a_place_is_told_the_contract():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused, self.fc = nn.Linear(3, 3), nn.Linear(4, 3)

        def forward(self, x):
            return self.fc(x)

    x, labels = torch.randn(6, 4), torch.arange(6) % 3
    for net, stage in ((nn.Linear(4, 3), 2), (Odd(), 1), (build("quick_resnet", 3), 9)):
        given = images()[0] if stage == 9 else x
        with pytest.raises(ValueError, match=r"^stages(.|\n)*model\.stages") as told:
            ManifoldMixup(Mixup(1.0), stages=(stage,)).loss(net, given, labels)
        assert len(str(told.value).splitlines()) == 3


def test_the_plan_is_drawn_from_the_features_and_stages_are_uniform():
    seen = []

    class Looking(Mixup):
        def draw(self, x, labels):
            seen.append(x.shape[1])
            return super().draw(x, labels)

    x, labels = images(2, size=8)
    net = build("quick_resnet", 3, seed=0)
    method = ManifoldMixup(Looking(1.0, rng=0), stages=(0, 2, 4), rng=0)
    for _ in range(300):
        method.run(net, x, labels)
    counts = {channels: seen.count(channels) for channels in set(seen)}
    assert set(counts) == {3, 16, 64}  # the images, and what stages 2 and 4 are given
    assert all(abs(count - 100) < 4 * (300 * 1 / 3 * 2 / 3) ** 0.5 for count in counts.values())


@pytest.mark.parametrize("stage", [0, 2])
def test_around_k_mixup_there_is_one_draw_a_batch(stage):
    x, labels = images()
    net, same = build("quick_resnet", 3, seed=0), KMixup(1.0, 2, rng=3)
    method = ManifoldMixup(KMixup(1.0, 2, rng=3), (stage,))
    for _ in range(3):
        method.loss(net, x, labels)
        same.draw(net.hidden(x, stage), labels)
    assert method.mixing.rng.bit_generator.state == same.rng.bit_generator.state


def test_what_it_mixes_by_learns_from_the_answers():
    x, labels = images()
    method = ManifoldMixup(ConfusionMixup(1.0, 1.0, rng=0), (2,))
    method.loss(build("quick_resnet", 3, seed=0), x, labels)
    method.end_epoch()
    assert method.mixing.pairing.shape == (3, 3)


def test_what_it_cannot_do_is_refused_with_the_reason():
    for stages in ((), (-1,), (0.5,), (True,), "02", None):
        with pytest.raises(ValueError, match=r"^stages "):
            ManifoldMixup(Mixup(1.0), stages=stages)
    assert ManifoldMixup(Mixup(1.0), np.array([0, 3])).stages == (0, 3)
    reasons = {
        "own_loss": [RegMixup(Mixup(1.0)), LaMix()],
        "cross_entropy": [InfiniteClass(Mixup(1.0))],
        "mixes_inputs": [ManifoldMixup(Mixup(1.0)), LabelSmoothing(0.1, ManifoldMixup(Mixup(1.0)))],
        "asks_model": [PuzzleMix(1.0)],
    }
    for reason, methods in reasons.items():
        for method in methods:
            with pytest.raises(ValueError, match=f"^mixing {type(method).__name__} {REASONS[reason]}"):
                ManifoldMixup(method)
    with pytest.raises(ValueError, match=r"^mixing "):
        ManifoldMixup("Mixup(1.0)")
