"""How a network is trained, by name: the papers' protocols, and short ones with equal budgets.

A recipe named after a paper follows its text; where the text is silent, `note` says what we took. The learning rate is
a plain function of how many epochs have passed, so there is no schedule whose state could get lost.
"""

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Recipe:
    """SGD with momentum. milestones: epochs after which the learning rate is multiplied by factor; none: a cosine to
    zero after a linear rise over the first tenth. augment: crop with padding and flip."""

    epochs: int
    lr: float
    batch_size: int = 128
    weight_decay: float = 5e-4
    momentum: float = 0.9
    nesterov: bool = False
    milestones: tuple[int, ...] = ()
    factor: float = 0.1
    augment: bool = True
    stratified: bool = False
    note: str = ""

    def learning_rate(self, epoch: float) -> float:
        """The learning rate after that many epochs, fractions allowed."""
        if self.milestones:
            return self.lr * self.factor ** sum(epoch >= milestone for milestone in self.milestones)
        rise = self.epochs / 10
        if epoch < rise:
            return self.lr * epoch / rise
        return self.lr * (1 + math.cos(math.pi * (epoch - rise) / (self.epochs - rise))) / 2


_SHORT = {"lr": 0.1, "nesterov": True}
_CONFUSION = Recipe(
    epochs=100,
    lr=0.1,
    batch_size=250,
    weight_decay=1e-4,
    milestones=(50, 75),
    stratified=True,
    note="momentum 0.9 and crop and flip are ours: the text is silent",
)
RECIPES = {
    "quick": Recipe(epochs=10, note="two cores, a small network, a few thousand images", augment=False, **_SHORT),
    "short15": Recipe(epochs=15, note="borrowed GPU time", **_SHORT),
    "short30": Recipe(epochs=30, note="borrowed GPU time", **_SHORT),
    "short60": Recipe(epochs=60, note="borrowed GPU time", **_SHORT),
    "kmixup": Recipe(
        epochs=200,
        lr=0.1,
        weight_decay=1e-4,
        milestones=(100, 150),
        note="factor 0.1, batch 128 and crop and flip are ours: the text is silent",
    ),
    "kmixup-speech": Recipe(
        epochs=30,
        lr=0.003,
        weight_decay=1e-4,
        milestones=(10, 20),
        augment=False,
        note="batch 128, momentum and weight decay are ours: the text is silent",
    ),
    "confusion-cifar10": _CONFUSION,
    "confusion-cifar100": replace(_CONFUSION, batch_size=1000),
    "lamix": Recipe(
        epochs=400,
        lr=0.1,
        weight_decay=1e-4,
        milestones=(100, 150),
        note="the text names only epochs and batch and points to released mixup code for the rest",
    ),
    "infinite": Recipe(
        epochs=200, lr=0.1, milestones=(50, 100, 150), factor=0.2, note="crop and flip are ours: the text is silent"
    ),
}


def recipe(name: str) -> Recipe:
    """The recipe of that name."""
    if name not in RECIPES:
        raise ValueError(f"recipe must be one of {', '.join(RECIPES)}, not {name!r}")
    return RECIPES[name]
