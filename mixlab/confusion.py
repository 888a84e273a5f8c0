"""Confusion-guided mixup (Simpson et al., "From Confusion to Clarity: Generalized mixup").

Mix more often what the network confuses. An epoch's predictions become a matrix of probabilities, and the next epoch
draws the partners' classes from it:

    counts   = sum_i y_i p_i^T, without the columns of the true classes        increment
    rows     = counts with rows scaled to (c - 1)/c, the diagonal set to 1/c   row_probabilities
    average  = m average + (1 - m) rows                                        ConfusionMixup.end_epoch
    M        = Sinkhorn(average^gamma, entry by entry)                         pairing_matrix, sinkhorn
    partners : a sample of class a meets class b with probability M_ab         birkhoff and pair_birkhoff

The average stays raw: power and balance are made on a copy, once an epoch. gamma = 0 makes every entry of M 1/c, which
is mixup. The paper draws partners class after class from what is left (`pair_sequential`), which does not give M;
permutations of the classes do, of which M is a weighted sum (Birkhoff).
"""

import math
import warnings
from typing import Any, ClassVar

import torch
from torch import Tensor

from mixlab.birkhoff import birkhoff, float_type, pair_birkhoff, pair_sequential
from mixlab.checks import check_alpha, check_batch, check_choice, check_matrix, check_number, check_whole
from mixlab.method import Method, draw_lambda
from mixlab.plans import Pairs, Plan, soft_labels

FLOOR = 1e-6  # a class pair never confused: keeps gamma -> 0 continuous (0^0 is 1, 0^0.01 is 0) and Sinkhorn possible


class ConfusionMixup(Method):
    """Mixup whose partners come from the classes that the network confused in the epochs before.

    alpha: lam ~ Beta(alpha, alpha), one for the batch. gamma >= 0: the power on the confusion matrix; 0 is mixup, large
    gamma pairs ever fewer classes. momentum: the share of the old average in the new one. sampler: "birkhoff", which
    realises M if a batch holds equally many samples of each class (recipes confusion-*), or "sequential" as published.

    In the first epoch the matrix is even: that is mixup. `end_epoch`, after every epoch, changes it; a second epoch
    without brings a warning.
    """

    defaults: ClassVar[dict[str, Any]] = {"alpha": 1.0, "gamma": 0.25}

    def __init__(self, alpha: float, gamma: float, momentum: float = 0.5, sampler: str = "birkhoff", rng: Any = None):
        super().__init__(rng)
        self.alpha, self.gamma = check_alpha(alpha), check_number("gamma", gamma, hint="0: mixup")
        self.momentum = check_number("momentum", momentum, high=1)
        self.sampler = check_choice("sampler", sampler, ("birkhoff", "sequential"))
        self.average: Tensor | None = None  # (c, c) on the CPU; None before the first predictions
        self.counts: Tensor | None = None  # (c, c) this epoch's, where the network is, and the label mass of each class
        self.seen: Tensor | None = None
        self.samples, self.epoch_size = 0, 1000  # samples drawn in this epoch, and how many it has, as far as known
        self.pairing: Tensor | None = None  # M (c, c) on the CPU, made of the average, and its decomposition
        self._layers: tuple = ()

    def prepare(self, model, labels=None):
        self.epoch_size = self.epoch_size if labels is None else len(labels)

    def draw(self, x, labels):
        check_batch(x, labels)
        self.samples += len(x)
        if self.samples > 1.5 * self.epoch_size:
            drawn = f"{self.samples} samples were drawn without it, in epochs of {self.epoch_size} (see prepare)"
            warnings.warn(f"ConfusionMixup learns from end_epoch() after every epoch: {drawn}", stacklevel=2)
        lam = draw_lambda(self.rng, self.alpha)
        return Pairs(self._partners(labels), lam).to(x.device)

    @torch.no_grad()
    def observe(self, logits: Tensor, plan: Plan | None, labels: Tensor) -> None:
        """Count a batch: logits (n, c) on plan.mix(x), labels as for `draw`. Reads no value from the device.

        plan None: nothing is left to mix, as with the soft labels (n, c) of a mix.
        """
        classes, device = logits.shape[1], logits.device
        if self.average is None:
            self.average = torch.full((classes, classes), 1 / classes, dtype=torch.float64)
        if len(self.average) != classes:
            raise ValueError(f"logits have {classes} columns, the matrix in memory is of {len(self.average)} classes")
        y = soft_labels(labels, classes) if plan is None else self.targets(plan, labels, classes)
        counts, seen = increment(logits.to(float_type(device)).softmax(1), y), y.sum(0)
        if self.counts is not None and self.seen is not None:
            counts, seen = counts + self.counts.to(device), seen + self.seen.to(device)
        self.counts, self.seen = counts, seen

    def end_epoch(self):
        if self.counts is None:
            raise ValueError("ConfusionMixup has seen no predictions: train through its loss(), or call observe()")
        rows = row_probabilities(self.counts.cpu(), self.seen.cpu(), self.average)
        self.average = self.momentum * self.average + (1 - self.momentum) * rows
        self.epoch_size = max(self.epoch_size, self.samples)
        self.counts, self.seen, self.samples = None, None, 0
        self._make()

    def get_extra_state(self) -> dict:
        return {"rng": super().get_extra_state(), "learned": (self.average, self.counts, self.seen, self.samples)}

    def set_extra_state(self, state: dict) -> None:
        super().set_extra_state(state["rng"])
        self.average, self.counts, self.seen, self.samples = state["learned"]
        self._make()

    def _make(self) -> None:  # once an epoch
        self.pairing, self._layers = None, ()
        if self.average is not None:
            self.pairing = pairing_matrix(self.average, self.gamma)
            self._layers = birkhoff(self.pairing) if self.sampler == "birkhoff" else ()

    def _partners(self, labels: Tensor) -> Tensor:
        if self.pairing is None or float(self.pairing.max() - self.pairing.min()) < 1e-12:  # nothing is preferred
            return torch.from_numpy(self.rng.permutation(len(labels)))
        classes = labels if labels.dim() == 1 else labels.argmax(1)
        if self.sampler == "sequential":
            return pair_sequential(classes, self.pairing, self.rng)
        self._layers = weights, permutations = tuple(part.to(labels.device) for part in self._layers)  # moves once
        return pair_birkhoff(classes, weights, permutations, self.rng)


def increment(probabilities: Tensor, y: Tensor) -> Tensor:
    """What a batch adds to the counts: sum_i y_i p_i^T, where p_i is zero at the classes that y_i names.

    probabilities (n, c) floating point; y (n, c) soft labels, or (n,) class indices. A pair of classes a and b adds
    lam p to row a and (1 - lam) p to row b, both without the columns a and b; with lam = 1 there is no b. (c, c) in
    float64, which no autocast touches (float32 on Apple's GPUs).
    """
    if probabilities.dim() != 2 or not probabilities.is_floating_point():
        found = f"{probabilities.dtype} {tuple(probabilities.shape)}"
        raise ValueError(f"probabilities must be floating point (n, c), not {found}")
    if len(y) != len(probabilities):
        raise ValueError(f"y has {len(y)} rows, probabilities {len(probabilities)}")
    exact = float_type(probabilities.device)
    y = soft_labels(y, probabilities.shape[1]).to(exact)
    return y.T @ probabilities.to(exact).masked_fill(y > 0, 0.0)


def row_probabilities(counts: Tensor, seen: Tensor, previous: Tensor) -> Tensor:
    """Rows of counts (c, c) as probabilities: (c - 1)/c shared out off the diagonal, 1/c on it; (c, c) float64.

    seen (c,): the label mass that each class had; a class without any keeps its row of `previous` (c, c). A class that
    was seen and never confused spreads its (c - 1)/c evenly.
    """
    counts, classes = counts.double(), len(counts)
    shapes = [tuple(part.shape) for part in (counts, seen, previous)]
    if shapes != [(classes, classes), (classes,), (classes, classes)]:
        raise ValueError(f"counts, seen and previous must have shapes (c, c), (c,) and (c, c), not {shapes}")
    if not bool((torch.isfinite(counts) & (counts >= 0)).all()):
        raise ValueError("counts must be finite and >= 0: did the network diverge? Try a smaller learning rate")
    wrong = counts.clone().fill_diagonal_(0)
    total = wrong.sum(1, keepdim=True)
    rows = torch.where(total > 0, wrong / total * ((classes - 1) / classes), 1 / classes)
    rows.fill_diagonal_(1 / classes)
    return torch.where(seen[:, None] > 0, rows, previous.double())


def pairing_matrix(average: Tensor, gamma: float) -> Tensor:
    """M = Sinkhorn(max(average, FLOOR)^gamma): doubly stochastic, (c, c) float64. Every entry gets the power."""
    return sinkhorn(check_matrix(average).clamp(min=FLOOR) ** check_number("gamma", gamma, hint="0: mixup"))


def sinkhorn(matrix: Tensor, tolerance: float = 1e-9, sweeps: int = 1000) -> Tensor:
    """Scale rows and columns until all sum to one: columns, then rows, in turn; (c, c) float64.

    Ends on rows, from which is drawn; then every column sums to one within the tolerance. Zeros stay; a matrix whose
    zeros leave room for no permutation is refused. Sweeps gain next to nothing where classes hardly meet (large gamma):
    after a hundred, a Newton step follows each.
    """
    matrix = check_matrix(matrix)
    for sweep in range(check_whole("sweeps", sweeps)):
        matrix = matrix / matrix.sum(0)
        matrix = matrix / matrix.sum(1, keepdim=True)
        off = float((matrix.sum(0) - 1).abs().max())
        if off <= tolerance:
            return matrix
        if math.isnan(off):  # a column or a row has underflowed
            break
        if sweep >= 100:
            matrix = _newton(matrix)
    raise ValueError(
        f"matrix cannot be made doubly stochastic, after {sweep + 1:,} sweeps a column is off by {off:.1g}: "
        "its zeros leave no room, or its entries differ too much (a smaller gamma helps)"
    )


def _newton(matrix: Tensor) -> Tensor:
    """A damped Newton step on g, the logarithms of the columns' factors, for rows that sum to one.

    Balancing minimises sum_i log sum_j A_ij e^{g_j} - sum_j g_j: its gradient is q - 1, its Hessian diag(q) - M^T M,
    with M the matrix so far and q its column sums.
    """
    q = matrix.sum(0)
    step = torch.linalg.pinv(torch.diag(q) - matrix.T @ matrix, hermitian=True) @ (1 - q)
    matrix = matrix * (step / max(1.0, float(step.abs().max()))).exp()
    return matrix / matrix.sum(1, keepdim=True)
