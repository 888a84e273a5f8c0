"""The cheapest labels for the blocks of an image, by a minimum cut (Ishikawa, 2003): what PuzzleMix needs."""

import numpy as np

BUDGET, UNCUT = 2**28, 2**29  # costs in whole numbers: those of an image in all, and what must not be cut


def minimum_cut(unary: np.ndarray, weight: float) -> np.ndarray:
    """Labels t (n, h, w) of least  sum_i unary[i, t_i] + weight sum_(i~j) (t_i - t_j)^2,  for unary (n, h, w, labels).

    labels - 1 nodes for each block, in a chain from source 0 to sink 1 whose links cost as much as the labels: t of the
    nodes fall on the source's side where link t is cut. Between neighbours node k leads to node l <= k of the other, at
    the weight if k = l and twice that if not: where t_i > t_j that cuts (t_i - t_j)^2.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    n, height, width, labels = unary.shape
    nodes = 2 + np.arange(n * height * width * (labels - 1)).reshape(n, height, width, -1)
    unary = unary - unary.min(-1, keepdims=True)  # what a block costs in any case does not matter
    between = 2 * (labels - 1) ** 2 * (2 * height * width - height - width) * weight  # all links of neighbours
    total = np.where(np.isfinite(unary), unary, 0).sum((1, 2, 3), keepdims=True) + between
    scale = BUDGET / np.maximum(total, 1e-300)  # so that no sum leaves 32 bits
    tails, heads, costs = _links(nodes, unary * scale, weight * scale[..., 0])
    costs = np.minimum(np.rint(costs), UNCUT).astype(np.int32)
    graph = csr_array((costs, (tails, heads)), shape=(nodes.max() + 1, nodes.max() + 1))
    left = graph - maximum_flow(graph, 0, 1).flow
    left.eliminate_zeros()
    return np.isin(nodes, breadth_first_order(left, 0, return_predecessors=False)).sum(-1)


def _links(nodes: np.ndarray, unary: np.ndarray, weight: np.ndarray) -> list[np.ndarray]:
    """Tails, heads and costs of all links of nodes (n, h, w, m); the endless ones have every chain cut once only."""
    source, steps = np.zeros_like(nodes[..., :1]), range(nodes.shape[-1])
    links = [(np.concatenate([source, nodes], -1), np.concatenate([nodes, source + 1], -1), unary)]
    links += [(nodes[..., 1:], nodes[..., :-1], np.full(1, np.inf))]
    for a, b in ((nodes[:, 1:], nodes[:, :-1]), (nodes[:, :, 1:], nodes[:, :, :-1])):
        for one, other in ((a, b), (b, a)):
            links += [(one[..., k], other[..., i], weight * (1 + (i < k))) for k in steps for i in range(k + 1)]
    whole = [np.broadcast_arrays(*link) for link in links]
    return [np.concatenate([link[side].ravel() for link in whole]) for side in range(3)]
