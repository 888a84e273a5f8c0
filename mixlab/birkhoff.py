"""Partners by class: who meets whom when class a should meet class b with probability M_ab.

M is doubly stochastic, (c, c), and so a weighted sum of permutations of the classes (Birkhoff): `birkhoff` finds them,
`pair_birkhoff` draws from them and realises M. `pair_sequential` is the way of the confusion paper, which does not.
"""

import numpy as np
import torch
from torch import Tensor


def birkhoff(matrix: Tensor, tolerance: float = 1e-9) -> tuple[Tensor, Tensor]:
    """A doubly stochastic matrix (c, c) as a mean of permutations: weights (k,) float64, permutations (k, c).

        M_ab = sum of weights[k] over the permutations k that send class a to class b

    Take a permutation of positive entries away as often as its smallest entry allows, and go on with the rest, until
    that is below the tolerance: at most (c - 1)^2 + 1 times. The weights are scaled to sum to one.
    """
    from scipy.optimize import linear_sum_assignment  # here, so that `import mixlab` stays light

    rest = check_matrix(matrix).numpy().copy()
    if np.abs(np.stack([rest.sum(0), rest.sum(1)]) - 1).max() > 1e-6:
        raise ValueError("matrix must be doubly stochastic, every row and column summing to one: use sinkhorn first")
    rows, weights, permutations, left = np.arange(len(rest)), [], [], 1.0
    while left > tolerance:
        with np.errstate(divide="ignore"):
            worth = np.log(np.where(rest > 1e-15, rest, 0.0))  # -inf: may not be used
        try:
            _, permutation = linear_sum_assignment(worth, maximize=True)
        except ValueError:  # no permutation is left: what remains is the tolerance of the balancing
            break
        weights.append(rest[rows, permutation].min())
        permutations.append(permutation)
        rest[rows, permutation] -= weights[-1]
        left -= weights[-1]
    weights = np.array(weights)
    return torch.from_numpy(weights / weights.sum()), torch.from_numpy(np.stack(permutations))


def pair_birkhoff(labels: Tensor, weights: Tensor, permutations: Tensor, rng: np.random.Generator) -> Tensor:
    """Partners (n,) for labels (n,): every layer of the batch draws one permutation of the classes by its weight.

    Layer r holds the r-th sample of each class. If all classes have equally many samples, a sample of class a meets
    class b with probability M_ab exactly, every sample is somebody's partner once, and no order of classes matters.
    """
    n, classes = len(labels), permutations.shape[1]
    labels, draws = check_labels(labels, classes), rng.random((4, n))
    upto = weights.cumsum(0)[:-1]  # permutation k answers for draws between upto[k - 1] and upto[k]
    if labels.is_cpu and _is_even(labels.numpy(), classes):
        chosen = np.searchsorted(upto.cpu().numpy(), draws[0, : n // classes], side="right")
        return torch.from_numpy(_grant_all(labels.numpy(), permutations.cpu().numpy()[chosen], draws[1:]))
    draws, upto = (part.to(labels.device, non_blocking=True) for part in (torch.from_numpy(draws), upto))
    chosen = torch.searchsorted(upto, draws[0], right=True)
    return pair_layers(labels, permutations.to(labels.device), chosen, draws[1:])


def pair_layers(labels: Tensor, permutations: Tensor, chosen: Tensor, keys: Tensor) -> Tensor:
    """The part of `pair_birkhoff` without chance: partners (n,) on the device of the labels, no value read from it.

    labels (n,); permutations (k, c) and chosen (n,): in layer r class a wishes for class permutations[chosen[r], a];
    keys (3, n) from [0, 1), all different: who is r-th of its class, whose wish comes first, and who of the others gets
    which sample left over.
    """
    n, classes = len(labels), permutations.shape[1]
    labels = check_labels(labels, classes)
    samples, number, supply = _line_up(labels, keys[0], classes)
    wish = torch.empty_like(labels)
    wish[samples] = permutations[chosen[number], labels[samples]]
    rows, place, demand = _line_up(wish, keys[1], classes)
    served, taken = place < supply[wish[rows]], number < demand[labels[samples]]
    # Both lists run through the classes in the same order, so the served rows and the taken samples line up.
    steps = torch.arange(n, device=labels.device, dtype=keys.dtype) / n
    rows = rows[torch.where(served, steps, 1 + keys[2]).argsort()]
    samples = samples[torch.where(taken, steps, 1 + steps).argsort()]
    return torch.empty_like(labels).scatter_(0, rows, samples)


def _is_even(labels: np.ndarray, classes: int) -> bool:
    return len(labels) % classes == 0 and bool((np.bincount(labels, minlength=classes) == len(labels) // classes).all())


def _grant_all(labels: np.ndarray, layers: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """What `pair_layers` comes to where all classes have as many samples as there are layers: every wish is granted.

    layers (layers, c). In NumPy, whose calls cost less than torch's on so little data.
    """
    samples, number = (labels + keys[0]).argsort(), np.arange(len(labels)) % len(layers)
    wish = layers[number, labels[samples]]
    partner = np.empty_like(samples)
    partner[samples[(wish + keys[1][samples]).argsort()]] = samples
    return partner


def pair_sequential(labels: Tensor, matrix: Tensor, rng: np.random.Generator, order=None) -> Tensor:
    """Partners (n,) as published: class after class draws its partners, without replacement, from what is left.

    labels (n,), matrix (c, c), order: the classes in the order in which they draw (0, 1, 2, …). A sample of class b
    weighs M_ab for class a; when none with a positive weight is left, all others are alike. The later a class draws,
    the less its partners follow M, doubly stochastic or not.
    """
    matrix = check_matrix(matrix).numpy()
    labels = check_labels(labels, len(matrix))
    classes = list(range(len(matrix)) if order is None else order)
    if sorted(classes) != list(range(len(matrix))):
        raise ValueError(f"order must name every class from 0 to {len(matrix) - 1} once, not {classes}")
    own = labels.cpu().numpy()
    left, partner = np.arange(len(own)), np.empty(len(own), np.int64)
    for a in classes:
        rows, weight = np.flatnonzero(own == a), matrix[a, own[left]]
        # Drawing one by one by weight is ringing in the order of exponential clocks of these rates.
        clock = rng.exponential(size=len(left)) / np.where(weight > 0, weight, 1.0)
        drawn = np.lexsort((clock, weight == 0))[: len(rows)]
        partner[rows] = left[drawn]
        left = np.delete(left, drawn)
    return torch.from_numpy(partner).to(labels.device)


def check_matrix(matrix: Tensor) -> Tensor:
    """A square matrix of finite numbers >= 0 with something in each row and column, as float64 on the CPU."""
    matrix = torch.as_tensor(matrix).to("cpu", torch.float64)
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) == 0:
        raise ValueError(f"matrix must be (c, c) with c >= 1, not {tuple(matrix.shape)}")
    if not bool((torch.isfinite(matrix) & (matrix >= 0)).all()):
        raise ValueError("matrix must hold finite numbers >= 0")
    if not bool((matrix.sum(0) > 0).all() & (matrix.sum(1) > 0).all()):
        raise ValueError("matrix has a row or a column of zeros")
    return matrix


def _line_up(groups: Tensor, keys: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Members (n,) group by group, inside a group by key; the number of each within its group; the groups' sizes."""
    order = (groups + keys).argsort()
    sizes = torch.zeros(count, dtype=torch.int64, device=groups.device)
    sizes.index_add_(0, groups, torch.ones_like(groups))  # bincount would wait for the GPU
    start = sizes.cumsum(0) - sizes
    return order, torch.arange(len(groups), device=groups.device) - start[groups[order]], sizes


def check_labels(labels: Tensor, classes: int) -> Tensor:
    """labels (n,) as int64 if they are whole numbers below the number of classes; on a GPU the range is not read."""
    if labels.dim() != 1 or len(labels) == 0 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels must be whole numbers (n,) with n >= 1, not {labels.dtype} {tuple(labels.shape)}")
    if labels.is_cpu and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(f"labels must lie in 0..{classes - 1}, found {int(labels.min())} to {int(labels.max())}")
    return labels.long()
