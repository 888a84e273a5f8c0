"""LaMix (anonymous submission to ICLR 2021, "Bypassing the Random Input Mixing in Mixup"): learn the label of the mix.

The input is always the plain average of two images; only the label varies. With r the features of the averaged image,
W_l the head of the network and W_t a second, soft head of the same shape that only training uses:

    answer        y^ = softmax(W_l r)                           equation 7
    global label  p = softmax(sigmoid(W_t r))                   equation 9
    local label   y_lam = lam y_i + (1 - lam) y_j               equation 2
    target        y = beta y_lam + (1 - beta) p                 equation 10
    loss          -(1/n) sum_i sum_c y_ic log y^_ic             equation 11, which prints neither the minus nor the sums

A sigmoid lies in [0, 1], so no entry of p exceeds e / (e + c - 1): 0.232 for ten classes and 0.027 for a hundred, where
p is close to uniform and the method close to label smoothing.
"""

import json
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixlab.method import Method, check_batch, check_method, draw_lambda
from mixlab.mixup import Mixup
from mixlab.plans import Pairs, Split, no_autocast, soft_labels, wide
from mixlab.puzzlemix import PuzzleMix


class LaMix(Method):
    """LaMix: batches are clean and mixed in turn, and the label of each is partly learned (see the top of the file).

    mixing says who is averaged with whom, and lam for the label: by default random partners and lam uniform for every
    row. Around PuzzleMix the image is its puzzle for lam = 1/2 in place of the average (equation 5). Clean batches, the
    first among them, follow the same equations with i = j. beta in [0, 1]: the weight of the local label; 1 leaves
    nothing to learn, 0 nothing to go by. detach_target: no gradient through the target, so that the soft head stays as
    it was drawn (equation 11 is its only way to learn). originals=False leaves the clean batches out.

    The soft head is made to the size of the network by `prepare(model)`, before the optimiser is made; it has a bias if
    the network's head has one. The network needs `embed(x)` and `head`, as those of mixlab have. Tests use the
    network alone.
    """

    defaults: ClassVar[dict] = {"beta": 0.5}

    own_loss = True

    def __init__(
        self,
        beta: float = 0.5,
        mixing: Method | None = None,
        detach_target: bool = False,
        originals: bool = True,
        rng=None,
    ):
        super().__init__(rng)
        self.beta, self.detach_target, self.originals = _check_beta(beta), detach_target, originals
        self.mixing = Mixup(1.0, per_sample=True) if mixing is None else mixing
        check_method(
            "mixing", self.mixing, "LaMix does that itself", own_loss=False, cross_entropy=True, mixes_inputs=True
        )
        if not isinstance(self.mixing, PuzzleMix):
            check_method("mixing", self.mixing, asks_model=False)
        self.soft_head: nn.Linear | None = None
        self.steps = 0

    def prepare(self, model, labels=None):
        """Draw the soft head, as PyTorch draws a linear layer; a second call for the same size keeps it."""
        self.mixing.prepare(model, labels)
        head = _head(model)
        if self.soft_head is not None and self.soft_head.weight.shape == head.weight.shape:
            return
        size, like = (head.in_features, head.out_features), {"device": head.weight.device, "dtype": head.weight.dtype}
        self.soft_head = nn.utils.skip_init(nn.Linear, *size, bias=head.bias is not None, **like)
        bound = head.in_features**-0.5
        for parameter in self.soft_head.parameters():
            parameter.data.copy_(torch.from_numpy(self.rng.uniform(-bound, bound, tuple(parameter.shape))))

    def draw(self, x, labels):
        plan = self.mixing.draw(x, labels)
        if not isinstance(plan, Pairs | Split):
            raise ValueError(f"mixing {type(self.mixing).__name__} gives no pairs: LaMix averages two images")
        return Split(Pairs(plan.partner, 0.5), plan)

    def draw_with_model(self, model, x, labels):
        if not isinstance(self.mixing, PuzzleMix):
            return self.draw(x, labels)
        puzzle = self.mixing.draw_with_model(model, x, labels, lam=0.5)
        lam = draw_lambda(self.mixing.rng, self.mixing.alpha, len(x))
        return Split(puzzle, Pairs(puzzle.partner, lam.to(x.device, non_blocking=True)))

    def loss(self, model, x, labels):
        check_batch(x, labels)
        head = _head(model)
        if self.soft_head is None or self.soft_head.weight.shape != head.weight.shape:
            raise ValueError("method LaMix has no soft head for this model: call prepare(model) before the optimiser")
        clean = self.originals and self.steps % 2 == 0
        self.steps += 1
        if clean:
            r, local = model.embed(x), soft_labels(labels, head.out_features)
        else:
            plan = self.draw_with_model(model, x, labels)
            r, local = model.embed(plan.mix(x)), self.mixing.targets(plan, labels, head.out_features)
        heads = {"bias": head.bias, "soft_bias": self.soft_head.bias}
        return lamix_loss(r, head.weight, self.soft_head.weight, local, self.beta, self.detach_target, **heads)

    def end_epoch(self):
        self.mixing.end_epoch()

    def get_extra_state(self) -> str:
        return json.dumps({"rng": super().get_extra_state(), "steps": self.steps})

    def set_extra_state(self, state: str) -> None:
        state = json.loads(state)
        super().set_extra_state(state["rng"])
        self.steps = state["steps"]

    def extra_repr(self) -> str:
        other = ", detach_target=True" * self.detach_target + ", originals=False" * (not self.originals)
        return f"beta={self.beta}" + other


def lamix_loss(
    embedding: Tensor,
    head: Tensor,
    soft_head: Tensor,
    local: Tensor,
    beta: float,
    detach_target: bool = False,
    bias: Tensor | None = None,
    soft_bias: Tensor | None = None,
) -> Tensor:
    """Equations 7 to 11 for embedding r (n, width), both heads (c, width) and local labels (n, c): a scalar.

    Both heads and the network below learn from it, through the answer and through the target, unless the target is
    detached. In float32 or better: among many classes the entries of p differ by less than bfloat16 resolves.
    """
    with no_autocast(embedding.device):
        target = lamix_target(embedding, soft_head, local, beta, soft_bias)
        answer = F.linear(wide(embedding), wide(head), bias if bias is None else wide(bias)).log_softmax(1)
    return -((target.detach() if detach_target else target) * answer).sum(1).mean()


def lamix_target(
    embedding: Tensor, soft_head: Tensor, local: Tensor, beta: float, soft_bias: Tensor | None = None
) -> Tensor:
    """beta local + (1 - beta) softmax(sigmoid(W_t r)), (n, c): the label that LaMix trains on."""
    soft_bias = soft_bias if soft_bias is None else wide(soft_bias)
    p = F.linear(wide(embedding), wide(soft_head), soft_bias).sigmoid().softmax(1)
    if local.shape != p.shape:
        raise ValueError(f"local labels {tuple(local.shape)} must have the shape of the answers, {tuple(p.shape)}")
    return _check_beta(beta) * local + (1 - beta) * p


def _head(model) -> nn.Linear:
    head = getattr(model, "head", None)
    if not hasattr(model, "embed") or not isinstance(head, nn.Linear):
        raise ValueError(f"model {type(model).__name__} has no embed(x) and linear head: take one of mixlab.models")
    return head


def _check_beta(beta: float) -> float:
    if not 0 <= beta <= 1:
        raise ValueError(f"beta must lie in [0, 1], not {beta}")
    return float(beta)
