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
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixlab.checks import check_batch, check_number, check_rows
from mixlab.method import Method, check_method, draw_lambda
from mixlab.mixup import Mixup
from mixlab.plans import Pairs, Split, no_autocast, soft_labels, wide
from mixlab.puzzlemix import PuzzleMix

HEAD = (
    "needs an nn.Linear that turns features (n, width) into the scores (n, c) which the model returns, once in each "
    "call: name it `head`, or let it be the last nn.Linear of the model"
)


class LaMix(Method):
    """LaMix: batches are clean and mixed in turn, and the label of each is partly learned (see the top of the file).

    beta in [0, 1]: the weight of the local label; 1 leaves nothing to learn, 0 nothing to go by. mixing: who meets
    whom, and lam for the label; by default random partners, and lam uniform for each row. Around PuzzleMix the
    image is its puzzle for lam = 1/2 in place of the average (equation 5). detach_target: no gradient through the
    target, its only way to the soft head, which stays as it was drawn. originals: clean batches, the first among them,
    take turns with the mixed ones and follow the same equations with i = j.

    `prepare(model)`, before the optimiser is made, draws the soft head at the size of the network's head: `model.head`,
    or else its last nn.Linear. Tests use the network alone.
    """

    defaults: ClassVar[dict[str, Any]] = {"beta": 0.5}
    own_loss = True

    def __init__(
        self,
        beta: float = 0.5,
        mixing: Method | None = None,
        detach_target: bool = False,
        originals: bool = True,
        rng: Any = None,
    ):
        super().__init__(rng)
        self.beta, self.detach_target, self.originals = check_number("beta", beta, high=1), detach_target, originals
        self.mixing = Mixup(1.0, per_sample=True) if mixing is None else mixing
        needed = {"mixes_inputs": True, "own_loss": False, "cross_entropy": True}
        needed["asks_model"] = isinstance(mixing, PuzzleMix)  # it alone can be asked for its puzzle for 1/2
        check_method("mixing", self.mixing, "LaMix does the rest itself", **needed)
        self.soft_head: nn.Linear | None = None
        self.steps = 0

    def prepare(self, model, labels=None):
        """Draw the soft head, as PyTorch draws a linear layer; a second call for the same size keeps it."""
        self.mixing.prepare(model, labels)
        head = _head(model)
        if self.soft_head is not None and self.soft_head.weight.shape == head.weight.shape:
            return
        kind = {"bias": head.bias is not None, "device": head.weight.device, "dtype": head.weight.dtype}
        self.soft_head = nn.utils.skip_init(nn.Linear, head.in_features, head.out_features, **kind)
        bound = head.in_features**-0.5
        for parameter in self.soft_head.parameters():
            parameter.data.copy_(torch.from_numpy(self.rng.uniform(-bound, bound, tuple(parameter.shape))))

    def draw(self, x, labels):
        plan = self.mixing.draw(x, labels)
        if not isinstance(plan, Pairs | Split):
            raise ValueError(f"mixing {type(self.mixing).__name__} gives no pairs: LaMix averages two images")
        return Split(Pairs(plan.partner, 0.5), plan.label_plan if isinstance(plan, Split) else plan)

    def draw_with_model(self, model, x, labels):
        if not isinstance(self.mixing, PuzzleMix):
            return self.draw(x, labels)
        puzzle = self.mixing.draw_with_model(model, x, labels, lam=0.5)
        lam = draw_lambda(self.mixing.rng, self.mixing.alpha, len(x))
        return Split(puzzle, Pairs(puzzle.partner, lam.to(x.device, non_blocking=True)))

    def loss(self, model, x, labels):
        check_batch(x, labels)
        head, soft_head = _head(model), self.soft_head
        if soft_head is None or soft_head.weight.shape != head.weight.shape:
            raise ValueError("method LaMix has no soft head for this model: call prepare(model) before the optimiser")
        clean = self.originals and self.steps % 2 == 0
        self.steps += 1
        plan = None if clean else self.draw_with_model(model, x, labels)
        r, logits = _features(model, head, x if clean else plan.mix(x))
        self.mixing.observe(logits, plan, labels)
        c, biases = head.out_features, {"bias": head.bias, "soft_bias": soft_head.bias}
        local = soft_labels(labels, c) if clean else self.mixing.targets(plan, labels, c)
        return lamix_loss(r, head.weight, soft_head.weight, local, self.beta, self.detach_target, **biases)

    def end_epoch(self):
        self.mixing.end_epoch()

    def get_extra_state(self) -> str:
        return json.dumps({"rng": super().get_extra_state(), "steps": self.steps})

    def set_extra_state(self, state: str) -> None:
        told = json.loads(state)
        super().set_extra_state(told["rng"])
        self.steps = told["steps"]


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
        answer = F.linear(wide(embedding), wide(head), None if bias is None else wide(bias)).log_softmax(1)
    return -((target.detach() if detach_target else target) * answer).sum(1).mean()


def lamix_target(
    embedding: Tensor, soft_head: Tensor, local: Tensor, beta: float, soft_bias: Tensor | None = None
) -> Tensor:
    """beta local + (1 - beta) softmax(sigmoid(W_t r)), (n, c): the label that LaMix trains on."""
    bias = None if soft_bias is None else wide(soft_bias)
    p = F.linear(wide(embedding), wide(soft_head), bias).sigmoid().softmax(1)
    if local.shape != p.shape:
        raise ValueError(f"local labels {tuple(local.shape)} must have the shape of the answers, {tuple(p.shape)}")
    check_rows("local", local)
    return check_number("beta", beta, high=1) * local + (1 - beta) * p


def _head(model: nn.Module) -> nn.Linear:
    """The layer that gives the scores: `model.head`, or else the last nn.Linear there is."""
    linear = [part for part in (*model.modules(), getattr(model, "head", None)) if isinstance(part, nn.Linear)]
    if not linear:
        raise ValueError(f"model {type(model).__name__} has no linear layer; LaMix {HEAD}")
    return linear[-1]


def _features(model: nn.Module, head: nn.Linear, x: Tensor) -> tuple[Tensor, Tensor]:
    """Run the network: what its head was given, (n, width), and the logits (n, c)."""
    model, seen = getattr(model, "_orig_mod", model), []  # a network under torch.compile hears no hooks
    handle = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        logits = model(x)
    finally:
        handle.remove()
    if len(seen) != 1 or seen[0].dim() != 2 or logits.shape != (len(x), head.out_features):
        raise ValueError(f"model {type(model).__name__} does not end in its linear head; LaMix {HEAD}")
    return seen[0], logits
