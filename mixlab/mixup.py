"""mixup (Zhang et al., 2018) and the ground every other method stands on.

A method answers three questions: who mixes with whom and how much (`draw`, the only random part), what the targets
are (`targets`), and how the network is scored (`score`). ERM, mixup and label smoothing are the three smallest answers.
"""

import json
import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixlab.plans import Pairs, soft_labels, wide


class Method(nn.Module):
    """What all methods share: one NumPy generator, whose state travels in `state_dict()`, and the plain way to score.

    rng: a seed, a `numpy.random.Generator`, or None for a seed from the operating system. Every draw comes from it,
    on the CPU, so one seed gives the same plans whatever device the batch is on.
    """

    usual: ClassVar[dict] = {}  # the parameters that a comparison of methods starts from

    def __init__(self, rng=None):
        super().__init__()
        self.rng = np.random.default_rng(rng)

    def prepare(self, model, labels: Tensor | None = None) -> None:
        """Called before the optimiser is made: for weights of the method's own, which must fit the model, and for what
        it has to know of the training set. labels (n,): those of the whole training set."""

    def draw(self, x: Tensor, labels: Tensor) -> Pairs:
        """Who with whom, and how much: a plan for this batch, on its device."""
        raise NotImplementedError(f"{type(self).__name__} does not say how a plan is drawn")

    @staticmethod
    def draw_many(methods, x: Tensor, labels: Tensor) -> list:
        """A plan for each of m methods of one class, for its batch of x (m, n, …), together where that is faster."""
        return [method.draw(*batch) for method, *batch in zip(methods, x, labels, strict=True)]

    def plan_for(self, model, x: Tensor, labels: Tensor):
        """The plan that `loss` uses; a method that must ask the model first overrides this in place of `draw`."""
        return self.draw(x, labels)

    def answers(self, model, x: Tensor, labels: Tensor) -> tuple:
        """Draw and apply: the plan, and the model's logits (n, c) on the mix."""
        plan = self.plan_for(model, x, labels)
        return plan, model(plan.mix(x))

    def targets(self, plan, labels: Tensor, num_classes: int) -> Tensor:
        """labels (n,) class indices or (n, c) soft -> what the network should answer on plan.mix(x), (n, c)."""
        return plan.label_plan.mix(soft_labels(labels, num_classes))  # checked there: mix_labels would check again

    def score(self, logits: Tensor, plan, labels: Tensor) -> Tensor:
        """The loss of logits (n, c) on the mix: a scalar to call backward() on."""
        return soft_cross_entropy(logits, self.targets(plan, labels, logits.shape[1]))

    def loss(self, model, x: Tensor, labels: Tensor) -> Tensor:
        """Draw, apply, score: a scalar to call backward() on."""
        plan, logits = self.answers(model, x, labels)
        return self.score(logits, plan, labels)

    def ahead(self, x: Tensor) -> None:
        """Called by the training loop with the batch after the one it is about to train on: k-mixup starts on it."""
        for part in self.children():
            if isinstance(part, Method):
                part.ahead(x)

    def end_epoch(self) -> None:
        """Called by the training loop after every epoch; a method that learns from the epoch overrides it."""

    def get_extra_state(self) -> str:
        return json.dumps(self.rng.bit_generator.state)  # text, so that weights_only=True loads it

    def set_extra_state(self, state: str) -> None:
        self.rng.bit_generator.state = json.loads(state)


class ERM(Method):
    """Empirical risk minimisation: nothing is mixed, W is the identity."""

    def draw(self, x, labels):
        check_batch(x, labels)
        return Pairs.unchecked(torch.arange(len(x), device=x.device), 1.0)

    def answers(self, model, x, labels):
        return self.draw(x, labels), model(x)  # the same as mixing with W = I, less a copy


class Mixup(Method):
    """mixup: partners are a random permutation of the batch, lam ~ Beta(alpha, alpha).

        x'_i = lam x_i + (1 - lam) x_pi(i)        y'_i = lam y_i + (1 - lam) y_pi(i)

    alpha >= 0: 0 mixes nothing (lam = 1), 1 draws lam uniformly, large alpha pushes lam to 1/2.
    per_sample: one lam for every row in place of one for the batch (as published).
    """

    usual: ClassVar[dict] = {"alpha": 1.0}

    def __init__(self, alpha: float, per_sample: bool = False, rng=None):
        super().__init__(rng)
        self.alpha = check_alpha(alpha)
        self.per_sample = per_sample

    def draw(self, x, labels):
        check_batch(x, labels)
        n = x.shape[0]
        lam = draw_lambda(self.rng, self.alpha, n if self.per_sample else None)
        plan = Pairs.unchecked(torch.from_numpy(self.rng.permutation(n)), lam)
        return plan if x.is_cpu else plan.to(x.device)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}" + ", per_sample=True" * self.per_sample


class Around(Method):
    """A method around another one: what it does not answer itself, the inner one answers."""

    def __init__(self, method: Method, rng=None):
        super().__init__(rng)
        self.method = method

    def prepare(self, model, labels=None):
        self.method.prepare(model, labels)

    def draw(self, x, labels):
        return self.method.draw(x, labels)

    def plan_for(self, model, x, labels):
        return self.method.plan_for(model, x, labels)

    def answers(self, model, x, labels):
        return self.method.answers(model, x, labels)

    def targets(self, plan, labels, num_classes):
        return self.method.targets(plan, labels, num_classes)

    def end_epoch(self):
        self.method.end_epoch()


class LabelSmoothing(Around):
    """Label smoothing: y' = (1 - eps) y + eps / c, on top of any method that is scored by cross-entropy.

    The rows of W sum to one, so it makes no difference whether labels are smoothed before or after they are mixed.
    """

    usual: ClassVar[dict] = {"eps": 0.1}

    def __init__(self, eps: float, method: Method | None = None):
        super().__init__(ERM() if method is None else method)
        if not 0 <= eps <= 1:
            raise ValueError(f"eps must lie in [0, 1], not {eps}")
        if not scored_by_targets(self.method):
            raise ValueError(f"method {type(method).__name__} has a loss of its own: smooth inside it instead")
        self.eps = eps

    def targets(self, plan, labels, num_classes):
        return (1 - self.eps) * self.method.targets(plan, labels, num_classes) + self.eps / num_classes

    def extra_repr(self) -> str:
        return f"eps={self.eps}"


def soft_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """-(1/n) sum_i sum_c y_ic log softmax(logits_i)_c, for logits (n, c) and soft labels y (n, c), in float32."""
    if logits.shape != y.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and y {tuple(y.shape)} must have the same shape")
    logits = wide(logits)
    return F.cross_entropy(logits, y.to(logits.dtype))


def draw_lambda(rng: np.random.Generator, alpha: float, n: int | None = None) -> float | Tensor:
    """lam ~ Beta(alpha, alpha): one number, or a float32 tensor (n,). alpha = 0 gives 1: no mixing.

    NumPy's Beta is right down to alpha = 1e-4 and takes a generator; torch's is not and does not.
    """
    if check_alpha(alpha) == 0:
        return 1.0 if n is None else torch.ones(n)
    lam = rng.beta(alpha, alpha, size=n)
    return float(lam) if n is None else torch.from_numpy(lam).float()


def check_alpha(alpha: float) -> float:
    """alpha as a float if it is a finite number >= 0."""
    if not (math.isfinite(alpha) and alpha >= 0):
        raise ValueError(f"alpha must be a finite number >= 0 (0: no mixing), not {alpha}")
    return float(alpha)


def check_batch(x: Tensor, labels: Tensor) -> None:
    """Refuse an empty batch and labels of another length."""
    if x.dim() == 0 or x.shape[0] == 0:
        raise ValueError(f"x must hold at least one sample, not shape {tuple(x.shape)}")
    if labels.dim() == 0 or labels.shape[0] != x.shape[0]:
        raise ValueError(f"labels {tuple(labels.shape)} and x {tuple(x.shape)} must have the same length")


def scored_by_targets(method: Method) -> bool:
    """Is the loss cross-entropy against the method's targets, whatever is mixed and wherever in the network?"""
    return type(method).loss is Method.loss and type(method).score is Method.score


def scored_by_cross_entropy(method: Method) -> bool:
    """Is the loss the plain one: cross-entropy between model(plan.mix(x)) and the method's targets?"""
    return scored_by_targets(method) and mixes_inputs(method) and draws_alone(method)


def mixes_inputs(method: Method) -> bool:
    """Does the model see plan.mix(x) and nothing else, once?"""
    return _as_usual(method, "answers")


def draws_alone(method: Method) -> bool:
    """Does the plan come from x and labels alone, without asking the model?"""
    return _as_usual(method, "plan_for")


def _as_usual(method: Method, hook: str) -> bool:
    own = getattr(type(method), hook)
    if own is getattr(Around, hook):
        return _as_usual(method.method, hook)
    return own in (getattr(Method, hook), getattr(ERM, hook))
