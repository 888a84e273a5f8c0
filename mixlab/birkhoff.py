"""Partners by class: who meets whom when class a should meet class b with probability M_ab.

M is doubly stochastic, (c, c), and so a weighted sum of permutations of the classes (Birkhoff): `birkhoff` finds them,
`pair_birkhoff` draws from them and realises M. `pair_sequential` is the way of the confusion paper, which does not.
"""

import numpy as np
import torch
from torch import Tensor

from mixlab.checks import check_indices, check_matrix


def birkhoff(matrix: Tensor, tolerance: float = 1e-9) -> tuple[Tensor, Tensor]:
    """A doubly stochastic matrix (c, c) as a mean of permutations: weights (k,) float64, permutations (k, c).

        M_ab = sum of weights[k] over the permutations k that send class a to class b

    Take away a permutation of large entries as often as its smallest entry allows, and go on with the rest, until that
    is below the tolerance. Large is what reaches a threshold, which falls by a tenth when no permutation does: some 9 c
    of them are enough. The weights are scaled to sum to one.
    """
    from scipy.sparse import csr_array  # here, so that `import mixlab` stays light
    from scipy.sparse.csgraph import maximum_bipartite_matching

    rest = check_matrix(matrix).numpy().copy()
    if np.abs(np.stack([rest.sum(0), rest.sum(1)]) - 1).max() > 1e-6:
        raise ValueError("matrix must be doubly stochastic, every row and column summing to one: use sinkhorn first")
    rows, weights, permutations, left, threshold = np.arange(len(rest)), [], [], 1.0, rest.max()
    while left > tolerance and threshold > 1e-15:  # below, what is left is only what the balancing left open
        permutation = maximum_bipartite_matching(csr_array(rest >= threshold), perm_type="column")
        if permutation.min() < 0:  # some class found no partner
            threshold *= 0.9
            continue
        weights.append(rest[rows, permutation].min())
        permutations.append(permutation)
        rest[rows, permutation] -= weights[-1]
        left -= weights[-1]
    shares = np.array(weights)
    return torch.from_numpy(shares / shares.sum()), torch.from_numpy(np.stack(permutations).astype(np.int64))


def pair_birkhoff(labels: Tensor, weights: Tensor, permutations: Tensor, rng: np.random.Generator) -> Tensor:
    """Partners (n,) for labels (n,): every layer of the batch draws one permutation of the classes by its weight.

    Layer r holds the r-th sample of each class, in random order. If all classes have equally many samples, a sample of
    class a meets class b with probability M_ab exactly, everybody is somebody's partner once, and no order of classes
    matters. If not, each class serves as many wishes as it has samples, and whoever comes away empty shares what is
    left at random. Reads no value from the device of the labels.
    """
    labels, permutations = check_indices("labels", labels, permutations.shape[1]), permutations.to(labels.device)
    n, classes = len(labels), permutations.shape[1]
    chance, *keys = torch.from_numpy(rng.random((4, n))).to(labels.device, float_type(labels.device))
    upto = weights.cumsum(0)[:-1].to(chance)  # permutation k answers for chances between upto[k - 1] and upto[k]
    chosen = torch.searchsorted(upto, chance, right=True)  # by each layer

    samples, number, supply = _line_up(labels, keys[0], classes)
    wish = torch.empty_like(labels)
    wish[samples] = permutations[chosen[number], labels[samples]]
    rows, place, demand = _line_up(wish, keys[1], classes)
    served, taken = place < supply[wish[rows]], number < demand[labels[samples]]
    # Both lists run through the classes in the same order, so the served rows and the taken samples line up.
    steps = torch.arange(n, device=labels.device, dtype=chance.dtype) / n
    rows = rows[torch.where(served, steps, 1 + keys[2]).argsort()]
    samples = samples[torch.where(taken, steps, 1 + steps).argsort()]
    return torch.empty_like(labels).scatter_(0, rows, samples)


def pair_sequential(labels: Tensor, matrix: Tensor, rng: np.random.Generator) -> Tensor:
    """Partners (n,) for labels (n,) as published: class after class draws, without replacement, from what is left.

    A sample of class b weighs M_ab for class a; when none with a positive weight is left, all others are alike. The
    later a class draws, the less its partners follow M, doubly stochastic or not.
    """
    M = check_matrix(matrix).numpy()
    labels = check_indices("labels", labels, len(M))
    own, left, partner = labels.cpu().numpy(), np.arange(len(labels)), np.empty(len(labels), np.int64)
    for a in range(len(M)):
        rows, weight = np.flatnonzero(own == a), M[a, own[left]]
        # Drawing one by one by weight is ringing in the order of exponential clocks of these rates.
        clock = rng.exponential(size=len(left)) / np.where(weight > 0, weight, 1.0)
        drawn = np.lexsort((clock, weight == 0))[: len(rows)]
        partner[rows] = left[drawn]
        left = np.delete(left, drawn)
    return torch.from_numpy(partner).to(labels.device)


def float_type(device: torch.device) -> torch.dtype:
    """float64, or float32 on Apple's GPUs, which have nothing wider."""
    return torch.float32 if device.type == "mps" else torch.float64


def _line_up(groups: Tensor, keys: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Members (n,) group by group, inside a group by key; the number of each within its group; the groups' sizes."""
    order = (groups + keys).argsort()
    sizes = torch.zeros(count, dtype=torch.int64, device=groups.device)
    sizes.index_add_(0, groups, torch.ones_like(groups))  # bincount would wait for the GPU
    start = sizes.cumsum(0) - sizes
    return order, torch.arange(len(groups), device=groups.device) - start[groups[order]], sizes
