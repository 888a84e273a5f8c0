"""What a method is: three questions, and one class that asks them.

Who mixes with whom, and how much? `draw`, the only random part; the answer is a plan (plans.py).
What do inputs and labels become? `plan.mix(x)` and `targets`, both by the same plan.
How is the network scored? `score`: cross-entropy with soft labels, unless a method says otherwise.
"""

import inspect
import json
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import get_worker_info

from mixlab.checks import check_alpha, check_soft_labels
from mixlab.plans import Plan, soft_labels, wide


class Method(nn.Module):
    """The ground of all methods: one generator for every draw, and the plain way from a batch to its loss.

        loss = method.loss(model, x, labels)                     in a training loop
        x_mixed, y_mixed = method(x, labels, num_classes=10)     in a loop of your own, or in a collate function

    rng: a seed, a `numpy.random.Generator`, or None for a seed from the operating system. Draws are made on the CPU, so
    one seed gives the same plans on any device, and the generator's state is part of `state_dict()`. Every parameter of
    a method is kept under its own name.
    """

    defaults: ClassVar[dict[str, Any]] = {}  # the parameters that a comparison of methods starts from
    mixes_inputs: bool = True  # the model sees plan.mix(x), once, and nothing else
    asks_model: bool = False  # the plan depends on the model: draw_with_model
    own_loss: bool = False  # loss does more than draw, apply and score: a method that overrides it so says so here
    cross_entropy: bool = True  # scored by cross-entropy against targets
    _rng: np.random.Generator
    _worker_seed: int | None = None

    def __init__(self, rng: Any = None):
        super().__init__()
        self.rng = np.random.default_rng(rng)

    @property
    def rng(self) -> np.random.Generator:
        """The generator. A worker of a DataLoader has its own, or all workers would repeat each other's draws."""
        worker = get_worker_info()
        if worker is not None and self._worker_seed != worker.seed:  # new for every worker and every epoch
            self._worker_seed = worker.seed
            self._rng = np.random.default_rng([worker.seed, *self._rng.integers(2**63, size=2)])
        return self._rng

    @rng.setter
    def rng(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def prepare(self, model: nn.Module, labels: Tensor | None = None) -> None:
        """Called before the optimiser is made, with the labels (n,) of the whole training set: for weights of the
        method's own, and for what it must know of that set."""

    def draw(self, x: Tensor, labels: Tensor) -> Plan:
        """Who with whom, and how much: a plan for this batch, on its device."""
        raise NotImplementedError(f"{type(self).__name__} does not say how a plan is drawn")

    def draw_with_model(self, model: nn.Module, x: Tensor, labels: Tensor) -> Plan:
        """The plan that `loss` uses; a method whose plan depends on the model overrides this in place of `draw`."""
        return self.draw(x, labels)

    def run(self, model: nn.Module, x: Tensor, labels: Tensor) -> tuple[Plan, Tensor]:
        """Draw and apply: the plan, and the model's logits (n, c) on the mix."""
        plan = self.draw_with_model(model, x, labels)
        return plan, model(plan.mix(x))

    def targets(self, plan: Plan, labels: Tensor, num_classes: int) -> Tensor:
        """labels (n,) class indices or (n, c) soft -> what the model should answer on plan.mix(x), (n, c)."""
        return plan.mix_labels(soft_labels(labels, num_classes))

    def observe(self, logits: Tensor, plan: Plan, labels: Tensor) -> None:
        """What the method learns from the model's answers, for batches to come: nothing, unless it says so."""

    def score(self, logits: Tensor, plan: Plan, labels: Tensor) -> Tensor:
        """The loss of logits (n, c) on the mix: a scalar to call backward() on."""
        return soft_cross_entropy(logits, self.targets(plan, labels, logits.shape[1]))

    def loss(self, model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
        """Draw, apply, score: a scalar to call backward() on."""
        plan, logits = self.run(model, x, labels)
        self.observe(logits, plan, labels)
        return self.score(logits, plan, labels)

    def forward(self, x: Tensor, labels: Tensor, num_classes: int | None = None) -> tuple[Tensor, Tensor]:
        """Mixed inputs and soft labels (n, c), as torchvision's v2.MixUp returns them; soft labels need no count."""
        if num_classes is None:
            if labels.dim() != 2:
                raise ValueError("num_classes must be given, for labels that are class indices; it is None")
            num_classes = labels.shape[1]
        check_method("method", self, "train with its loss(model, x, labels)", **ALONE)
        plan = self.draw(x, labels)
        return plan.mix(x), self.targets(plan, labels, num_classes)

    def end_epoch(self) -> None:
        """Called after every epoch, for what the method learns from it."""

    def settings(self) -> dict[str, Any]:
        """The parameters that are not at their defaults, by name."""
        usual = {name: p.default for name, p in inspect.signature(type(self)).parameters.items() if name != "rng"}
        kept = {name: getattr(self, name) for name in usual if hasattr(self, name)}
        return {name: value for name, value in kept.items() if repr(value) != repr(usual[name])}

    def extra_repr(self) -> str:
        shown = {name: value for name, value in self.settings().items() if not isinstance(value, Method)}
        return ", ".join(f"{name}={value!r}" for name, value in shown.items())

    def get_extra_state(self) -> Any:
        return json.dumps(self.rng.bit_generator.state)  # text, so that weights_only=True loads it

    def set_extra_state(self, state: Any) -> None:
        self.rng.bit_generator.state = json.loads(state)


class Around(Method):
    """A method around another one: what it does not answer itself, the inner one answers."""

    def __init__(self, method: Method, rng: Any = None):
        super().__init__(rng)
        self.method = check_method("method", method)
        self.mixes_inputs, self.asks_model = method.mixes_inputs, method.asks_model
        self.own_loss, self.cross_entropy = method.own_loss, method.cross_entropy

    def prepare(self, model, labels=None):
        self.method.prepare(model, labels)

    def draw(self, x, labels):
        return self.method.draw(x, labels)

    def draw_with_model(self, model, x, labels):
        return self.method.draw_with_model(model, x, labels)

    def run(self, model, x, labels):
        return self.method.run(model, x, labels)

    def targets(self, plan, labels, num_classes):
        return self.method.targets(plan, labels, num_classes)

    def observe(self, logits, plan, labels):
        self.method.observe(logits, plan, labels)

    def end_epoch(self):
        self.method.end_epoch()


ALONE = {"mixes_inputs": True, "asks_model": False, "own_loss": False, "cross_entropy": True}  # all is in the batch
REASONS = {
    "mixes_inputs": "runs the network in its own way",
    "asks_model": "asks the model before it draws",
    "own_loss": "adds a loss of its own",
    "cross_entropy": "is not scored by cross-entropy",
}


def check_method(name: str, method: Any, hint: str = "", **needed: bool) -> Method:
    """method if it is one, with its attributes as needed (own_loss=False, …); hint: what to do if they are not."""
    if not isinstance(method, Method):
        raise ValueError(f"{name} must be a method such as Mixup(1.0), not {method!r}")
    for attribute, value in needed.items():
        if getattr(method, attribute) != value:
            raise ValueError(f"{name} {type(method).__name__} {REASONS[attribute]}" + (hint and f": {hint}"))
    return method


def soft_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """-(1/n) sum_i sum_c y_ic log softmax(logits_i)_c, for logits (n, c) and soft labels y (n, c), in float32."""
    if logits.shape != y.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and y {tuple(y.shape)} must have the same shape")
    check_soft_labels(y, len(logits))
    logits = wide(logits)
    return F.cross_entropy(logits, y.to(logits.dtype))


def draw_lambda(rng: np.random.Generator, alpha: float, n: int | None = None) -> float | Tensor:
    """lam ~ Beta(alpha, alpha): one number, or a float32 tensor (n,). alpha = 0 gives 1: no mixing.

    By NumPy, whose Beta is right down to alpha = 1e-4 and takes a generator; torch's is not and does not.
    """
    if check_alpha(alpha) == 0:
        return 1.0 if n is None else torch.ones(n)
    lam = rng.beta(alpha, alpha, size=n)
    return float(lam) if n is None else torch.from_numpy(lam).float()
