"""How a network is trained, by name: the papers' protocols, and short ones with equal budgets.

A recipe named after a paper follows its text; where the text is silent, `note` says what we took. The learning rate is
a plain function of how many epochs have passed, so there is no schedule whose state could get lost.
"""

import ast
import math
from dataclasses import dataclass, replace

from mixlab.checks import check_choice, check_number, check_whole


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
        for name in ("epochs", "batch_size", "test_every"):
            check_whole(name, getattr(self, name))
        for name in ("lr", "weight_decay"):
            check_number(name, getattr(self, name))

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


SHORT = Recipe(epochs=10, lr=0.1, nesterov=True)
LONG = Recipe(epochs=200, lr=0.1, weight_decay=1e-4, milestones=(100, 150))
SPEECH = replace(LONG, epochs=30, lr=0.003, milestones=(10, 20), augment=False)
HUNDREDS = replace(LONG, batch_size=100, nesterov=True)
CONFUSION = replace(LONG, epochs=100, batch_size=250, milestones=(50, 75), stratified=True)
CONFUSION = replace(CONFUSION, note="momentum 0.9 and crop and flip are ours: the text is silent")
MANIFOLD = "the text names the settings of manifold mixup, which are these in code that builds on it"
PUZZLEMIX = "the text names 600 epochs and points to released PuzzleMix code, whose command for 600 epochs this is"
RECIPES = {
    "quick": replace(SHORT, augment=False, note="two cores, a small network, a few thousand images"),
    # A tenth or a twentieth of CIFAR-10 on two cores: the budgets of the course's own comparisons.
    "tenth": replace(SHORT, epochs=100, test_every=5, note="5,000 images on two cores"),
    "twentieth": replace(SHORT, epochs=100, test_every=10, note="2,500 images on two cores"),
    "short15": replace(SHORT, epochs=15, note="borrowed GPU time"),
    "short30": replace(SHORT, epochs=30, note="borrowed GPU time"),
    "short60": replace(SHORT, epochs=60, note="borrowed GPU time"),
    "kmixup": replace(LONG, note="factor 0.1, batch 128 and crop and flip are ours: the text is silent"),
    "kmixup-speech": replace(SPEECH, note="batch 128, momentum and weight decay are ours: the text is silent"),
    "confusion-cifar10": CONFUSION,
    "confusion-cifar100": replace(CONFUSION, batch_size=1000),
    "lamix": replace(
        LONG, epochs=400, note="the text names only epochs and batch and points to released mixup code for the rest"
    ),
    "infinite": Recipe(
        epochs=200, lr=0.1, milestones=(50, 100, 150), factor=0.2, note="crop and flip are ours: the text is silent"
    ),
    "kmixup-manifold": replace(HUNDREDS, epochs=1200, milestones=(400, 800), note=MANIFOLD),
    "lamix-puzzlemix": replace(HUNDREDS, epochs=600, lr=0.2, milestones=(350, 500), note=PUZZLEMIX),
}


def recipe(expression: str) -> Recipe:
    """The recipe of that name, or with changes: recipe("tenth(epochs=200, lr=0.2)")."""
    name, changes = name_and_options("recipe", expression)
    try:
        return replace(RECIPES[check_choice("recipe", name, RECIPES)], **changes)
    except TypeError as problem:
        raise ValueError(f"recipe {expression!r} cannot be understood: {problem}") from None


def name_and_options(what: str, expression: str) -> tuple[str, dict]:
    """'name(key=1)' as ('name', {'key': 1}), where nothing is evaluated; names may hold dashes and dots."""
    name, bracket, rest = expression.strip().partition("(")
    try:
        call = ast.parse(f"f({rest if bracket else ')'}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("options have names, as in size=32")
        return name.strip(), {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError) as problem:
        raise ValueError(f"{what} {expression!r} cannot be understood: {problem}") from None
