"""How a network is trained, by name: the papers' protocols, and short ones with equal budgets.

A recipe named after a paper follows its text; where the text is silent, `note` says what we took. The learning rate is
a plain function of how many epochs have passed, so there is no schedule whose state could get lost.
"""

import ast
import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Recipe:
    """SGD with momentum. milestones: epochs after which the learning rate is multiplied by factor; none: a cosine to
    zero after a linear rise over the first tenth. augment: crop with padding and flip. test_every: epochs from one test
    to the next, since testing 10,000 images costs as much as training on 3,000."""

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
    test_every: int = 1
    note: str = ""

    def __post_init__(self):
        for name, least in (("epochs", 1), ("batch_size", 1), ("test_every", 1), ("lr", 0), ("weight_decay", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int if least else int | float) or not value >= least:
                raise ValueError(f"{name} must be a number of at least {least}, not {value!r}")

    def is_tested(self, epoch: int) -> bool:
        """Is the network tested after this epoch (counted from 1)? Always after the last one."""
        return epoch % self.test_every == 0 or epoch == self.epochs

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
    # A tenth of CIFAR-10 and what else fits two cores: the budget of the course's own comparisons.
    "tenth": Recipe(epochs=100, test_every=5, note="5,000 images on two cores", **_SHORT),
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
    "kmixup-manifold": Recipe(
        epochs=1200,
        lr=0.1,
        batch_size=100,
        weight_decay=1e-4,
        nesterov=True,
        milestones=(400, 800),
        note="the text names the settings of manifold mixup, which are these in code that builds on it",
    ),
    "lamix-puzzlemix": Recipe(
        epochs=600,
        lr=0.2,
        batch_size=100,
        weight_decay=1e-4,
        nesterov=True,
        milestones=(350, 500),
        note="the text names 600 epochs and points to released PuzzleMix code, whose command for 600 epochs this is",
    ),
}


def recipe(expression: str) -> Recipe:
    """The recipe of that name, or with changes: recipe("tenth(epochs=200, lr=0.2)")."""
    name, bracket, changes = expression.strip().partition("(")
    if name not in RECIPES:
        raise ValueError(f"recipe must be one of {', '.join(RECIPES)}, not {expression!r}")
    try:
        call = ast.parse(f"f({changes if bracket else ')'}", mode="eval").body
        if call.args:
            raise ValueError("changes have names, as in epochs=200")
        return replace(RECIPES[name], **{keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords})
    except (SyntaxError, TypeError, ValueError, AttributeError) as problem:
        raise ValueError(f"recipe {expression!r} cannot be understood: {problem}") from None
