"""Confusion-guided mixup (Simpson et al., "From Confusion to Clarity: Generalized mixup").

Mix more often what the network confuses. An epoch's predictions become a matrix of probabilities, and the next epoch
draws the partners' classes from it:

    counts   = sum_i y_i p_i^T, without the columns of the true classes        increment
    rows     = counts with rows scaled to (c - 1)/c, the diagonal set to 1/c   row_probabilities
    average  = m average + (1 - m) rows                                        ConfusionMixup.end_epoch
    M        = Sinkhorn(average^gamma, entry by entry)                         pairing_matrix, sinkhorn
    partners : a sample of class a meets class b with probability M_ab         birkhoff and pair_birkhoff

The average stays raw: power and balance are made on a copy, once an epoch. gamma = 0 makes every entry of M equal 1/c,
which is mixup. The paper draws partners class after class from what is left (`pair_sequential`), and that does not
give M. A doubly stochastic M is a weighted sum of permutations of the classes (Birkhoff), and drawing from those does.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor

from mixlab.birkhoff import birkhoff, check_labels, check_matrix, pair_birkhoff, pair_sequential
from mixlab.method import Method, check_alpha, check_batch, draw_lambda
from mixlab.plans import Pairs, soft_labels

FLOOR = 1e-6  # a class pair never confused: keeps gamma -> 0 continuous (0^0 is 1, 0^0.01 is 0) and Sinkhorn possible
SAMPLERS = ("birkhoff", "sequential")


class ConfusionMixup(Method):
    """Mixup whose partners come from the classes that the network confused in the epochs before.

    alpha: lam ~ Beta(alpha, alpha), one for the batch; 0 mixes nothing. gamma >= 0: the power on the confusion matrix;
    0 is mixup, large gamma pairs ever fewer classes. momentum: the share of the old average in the new one.
    sampler: "birkhoff", or "sequential" as published.

    In the first epoch the matrix is even: that is mixup. Batches with equally many samples of each class (recipes
    confusion-*) realise M exactly; in others every sample draws the class it wishes for, each class serves as many
    wishes as it has samples, and those that come away empty share what is left (`pair_layers`).

    The predictions are counted as the network answers, whoever scores them: label smoothing and Infinite Class Mixup go
    around it. Whoever runs the network in another way calls `observe` instead.
    """

    defaults: ClassVar[dict] = {"alpha": 1.0, "gamma": 0.25}

    def __init__(self, alpha: float, gamma: float, momentum: float = 0.5, sampler: str = "birkhoff", rng=None):
        super().__init__(rng)
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must lie in [0, 1], not {momentum}")
        if sampler not in SAMPLERS:
            raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, not {sampler!r}")
        self.alpha, self.gamma = check_alpha(alpha), check_gamma(gamma)
        self.momentum, self.sampler = float(momentum), sampler
        for name, shape in (("average", (0, 0)), ("counts", (0, 0)), ("seen", (0,))):  # sized by the first predictions
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))
        self._made = None  # M and its decomposition: made of the average, so not part of the state

    @property
    def pairing(self) -> Tensor | None:
        """M (c, c) float64 on the CPU, the one in force; None as long as the number of classes is unknown."""
        if self._made is None and len(self.average):
            self._make()
        return self._made and self._made[0]

    def draw(self, x, labels):
        check_batch(x, labels)
        lam = draw_lambda(self.rng, self.alpha)
        plan = Pairs(self._partners(labels), lam)
        return plan if x.is_cpu else plan.to(x.device)

    @torch.no_grad()
    def observe(self, logits, plan, labels):
        """Add a batch to the epoch's counts: logits (n, c) on its mix. Reads no value from the device."""
        classes, y = logits.shape[1], self.targets(plan, labels, logits.shape[1])
        if len(self.average) == 0:
            new = {"dtype": torch.float64, "device": logits.device}
            self.average = torch.full((classes, classes), 1 / classes, **new)
            self.counts, self.seen = torch.zeros(classes, classes, **new), torch.zeros(classes, **new)
        if len(self.average) != classes:
            raise ValueError(f"logits have {classes} columns, the matrix in memory is of {len(self.average)} classes")
        self.counts += increment(logits.double().softmax(1), y)
        self.seen += y.sum(0)

    def end_epoch(self):
        if len(self.average) == 0:
            raise ValueError("ConfusionMixup has seen no predictions: train through its loss(), or call observe()")
        rows = row_probabilities(self.counts, self.seen, self.average)
        self.average = self.momentum * self.average + (1 - self.momentum) * rows
        self.counts, self.seen = torch.zeros_like(self.counts), torch.zeros_like(self.seen)
        self._make()

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, gamma={self.gamma}, momentum={self.momentum}, sampler={self.sampler!r}"

    def _make(self) -> None:
        """M, is it even, and its decomposition: once an epoch, and anew after load_state_dict."""
        matrix = pairing_matrix(self.average, self.gamma)
        even, layers = float(matrix.max() - matrix.min()) < 1e-12, None
        if self.sampler == "birkhoff" and not even:
            layers = [part.to(self.average.device) for part in birkhoff(matrix)]
        self._made = matrix, even, layers

    def _partners(self, labels: Tensor) -> Tensor:
        matrix = self.pairing
        if matrix is None or self._made[1]:  # nothing is known yet, or nothing is preferred: mixup
            return torch.from_numpy(self.rng.permutation(len(labels)))
        classes = labels if labels.dim() == 1 else labels.argmax(1)
        if self.sampler == "sequential":
            return pair_sequential(classes, matrix, self.rng)
        return pair_birkhoff(classes, *self._made[2], self.rng)

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        for name in ("average", "counts", "seen"):  # their size is that of the task
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name], device=getattr(self, name).device))
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._made = None


def increment(probabilities: Tensor, y: Tensor) -> Tensor:
    """What a batch adds to the counts: sum_i y_i p_i^T, where p_i is zero at the classes that y_i names.

    probabilities (n, c) floating point; y (n, c) soft labels, or (n,) class indices. Returns (c, c) float64. A pair of
    classes a and b adds lam p to row a and (1 - lam) p to row b, both without the columns a and b; with lam = 1 there
    is no b. In float64, which no autocast touches.
    """
    if probabilities.dim() != 2 or not probabilities.is_floating_point():
        raise ValueError(
            f"probabilities must be floating point (n, c), not {probabilities.dtype} {tuple(probabilities.shape)}"
        )
    if len(y) != len(probabilities):
        raise ValueError(f"y has {len(y)} rows, probabilities {len(probabilities)}")
    classes = probabilities.shape[1]
    if y.dim() == 1:  # one term a row: added where it belongs
        y = check_labels(y, classes)
        counts = torch.zeros(classes, classes, dtype=torch.float64, device=probabilities.device)
        return counts.index_add_(0, y, probabilities.double().scatter(1, y[:, None], 0.0))
    y = soft_labels(y, classes).double()
    return y.T @ probabilities.double().masked_fill(y > 0, 0.0)


def row_probabilities(counts: Tensor, seen: Tensor, previous: Tensor) -> Tensor:
    """Rows of counts (c, c) as probabilities: (c - 1)/c shared out off the diagonal, 1/c on it; (c, c) float64.

    seen (c,): the label mass that each class had; a class without any keeps its row of `previous` (c, c). A class that
    was seen and never confused spreads its (c - 1)/c evenly.
    """
    counts = counts.double()
    classes = len(counts)
    if counts.shape != (classes, classes) or previous.shape != counts.shape or seen.shape != counts.shape[:1]:
        shapes = f"{tuple(counts.shape)}, {tuple(seen.shape)} and {tuple(previous.shape)}"
        raise ValueError(f"counts, seen and previous must have shapes (c, c), (c,) and (c, c), not {shapes}")
    if not bool((torch.isfinite(counts) & (counts >= 0)).all()):
        raise ValueError("counts must be finite and >= 0: did the network diverge? Try a smaller learning rate")
    wrong = counts * (1 - torch.eye(classes, dtype=counts.dtype, device=counts.device))
    total = wrong.sum(1, keepdim=True)
    rows = torch.where(total > 0, wrong / total * ((classes - 1) / classes), 1 / classes)
    rows.fill_diagonal_(1 / classes)
    return torch.where(seen[:, None] > 0, rows, previous.double())


def sinkhorn(matrix: Tensor, tolerance: float = 1e-9, sweeps: int = 1000) -> Tensor:
    """Scale rows and columns until all sum to one: columns, then rows, in turn; (c, c) float64.

    Ends on rows, since rows are what is drawn from; then every column sums to one within the tolerance. Zeros stay.
    Sweeps gain next to nothing where classes hardly meet (large gamma): after a hundred, a Newton step follows each.
    A matrix whose zeros leave room for no permutation is refused.
    """
    matrix, off = check_matrix(matrix), math.inf
    for sweep in range(sweeps):
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


def pairing_matrix(average: Tensor, gamma: float) -> Tensor:
    """M = Sinkhorn(max(average, FLOOR)^gamma): doubly stochastic, (c, c) float64. Every entry gets the power."""
    return sinkhorn(check_matrix(average).clamp(min=FLOOR) ** check_gamma(gamma))


def check_gamma(gamma: float) -> float:
    """gamma as a float if it is a finite number >= 0."""
    if not (math.isfinite(gamma) and gamma >= 0):
        raise ValueError(f"gamma must be a finite number >= 0 (0: mixup), not {gamma}")
    return float(gamma)


def _newton(matrix: Tensor) -> Tensor:
    """A damped Newton step on g, the logarithms of the columns' factors, for rows that sum to one.

    Balancing minimises sum_i log sum_j A_ij e^{g_j} - sum_j g_j: its gradient is q - 1, its Hessian diag(q) - M^T M,
    with M the matrix so far and q its column sums.
    """
    q = matrix.sum(0)
    step = torch.linalg.pinv(torch.diag(q) - matrix.T @ matrix, hermitian=True) @ (1 - q)
    matrix = matrix * (step / max(1.0, float(step.abs().max()))).exp()
    return matrix / matrix.sum(1, keepdim=True)
