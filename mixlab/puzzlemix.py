"""PuzzleMix (Kim et al., 2020): cut both images into blocks and show of each the blocks that its label depends on.

With s_own and s_partner the share of each image's saliency in a block, the mask z (1: own image, 0: partner, and what
lies between: a blend) is the one of least energy

    E(z) = sum_i [ (1 - z_i) s_own,i + z_i s_partner,i ]          saliency that is hidden
           - eta / B^2 sum_i log Binomial(m, lam)(m z_i)          z_i in {0, 1/m, …, 1} should be lam on average
           + beta / (16 B) sum_(i~j) (z_i - z_j)^2                neighbours should come from the same image

for B x B blocks and m + 1 labels. It is a minimum cut, solved exactly up to rounding to whole numbers. Then, if asked,
the blocks of each image move to where they can be seen: an assignment. The label's weight is the mean of z.

Not here: the paper's fourth term (gamma), which compares pixels across the edges of blocks.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mixlab.companions import image_size
from mixlab.method import Method, check_alpha, check_batch, draw_lambda
from mixlab.plans import Pairs, Split, no_autocast, soft_labels, wide

BUDGET, FORBIDDEN = 2**28, 2**29  # costs in whole numbers: all of one image, and what must not be cut; sums fit int32


class PuzzleMix(Method):
    """PuzzleMix: saliency by an extra backward pass, a mask by minimum cut, and transport if asked for.

    alpha: lam ~ Beta(alpha, alpha), one for the batch. blocks: numbers of blocks a side, one drawn for each batch; they
    must divide height and width. labels: 2, or 3 to allow a blend of both images in a block. beta: smoothness of the
    mask. eta: how much the mask should keep to lam. transport: move blocks; move_cost: what a move across the image
    costs, in shares of saliency.

    The saliency is taken in evaluation mode, as in the released code without its clean-loss term: BatchNorm statistics
    move once a step, in the pass that trains. Cut and assignment run on the CPU and wait for the saliency.
    """

    defaults: ClassVar[dict] = {"alpha": 1.0}

    asks_model = True

    def __init__(
        self,
        alpha: float,
        blocks: Sequence[int] = (2, 4, 8, 16),
        labels: int = 3,
        beta: float = 1.2,
        eta: float = 0.2,
        transport: bool = True,
        move_cost: float = 0.8,
        rng=None,
    ):
        super().__init__(rng)
        self.alpha, self.blocks, self.labels = check_alpha(alpha), tuple(blocks), labels
        self.beta, self.eta, self.transport, self.move_cost = beta, eta, transport, move_cost
        if not self.blocks or not all(isinstance(count, int) and count >= 1 for count in self.blocks):
            raise ValueError(f"blocks must be whole numbers >= 1, at least one, not {blocks}")
        _check(labels, beta=beta, eta=eta, move_cost=move_cost)

    def draw(self, x, labels):
        raise ValueError("PuzzleMix asks the model what is salient: use draw_with_model(model, x, labels)")

    def draw_with_model(self, model, x, labels, lam: float | None = None):
        """The plan for this batch; lam: the share of the own image that every mask aims at, drawn if not given."""
        check_batch(x, labels)
        for count in self.blocks:
            _block_size(x, count)
        lam = draw_lambda(self.rng, self.alpha) if lam is None else lam
        count = self.blocks[self.rng.integers(len(self.blocks))]
        partner = torch.from_numpy(self.rng.permutation(len(x)))
        own = F.avg_pool2d(saliency(model, x, labels)[:, None], _block_size(x, count))[:, 0].cpu()
        mask = puzzle_mask(own, own[partner], lam, self.labels, self.beta, self.eta)
        moves = (None, None)
        if self.transport:
            moves = transport(own, mask, self.move_cost), transport(own[partner], 1 - mask, self.move_cost)
        return Puzzle(partner, mask, *moves).to(x.device)

    def extra_repr(self) -> str:
        shape = f"alpha={self.alpha}, blocks={self.blocks}, labels={self.labels}, beta={self.beta}, eta={self.eta}"
        return shape + (f", move_cost={self.move_cost}" if self.transport else ", transport=False")


class Puzzle(Split):
    """Row i of the batch shows mask[i] of its own blocks and 1 - mask[i] of those of row partner[i].

    partner (n,); mask (n, B, B) in [0, 1]; own_source, partner_source (n, B * B): the block shown at each place, of the
    own image and of the partner's, or None where every block stays.
    """

    def __init__(self, partner: Tensor, mask: Tensor, own_source: Tensor | None, partner_source: Tensor | None):
        super().__init__(None, Pairs(partner, mask.flatten(1).mean(1)))
        here = torch.arange(mask[0].numel()).expand(len(mask), -1)
        self.mask, sources = mask, [here if source is None else source for source in (own_source, partner_source)]
        self.sources = tuple(sources)

    def to(self, device):
        moved = super().to(device)
        moved.mask = self.mask.to(device, non_blocking=True)
        moved.sources = tuple(source.to(device, non_blocking=True) for source in self.sources)
        return moved

    def mix(self, x):
        """x (n, …, height, width) floating point -> a new tensor of the same shape and type."""
        if not x.is_floating_point():
            raise TypeError(f"x is {x.dtype}: convert to float first, for instance x.float() / 255")
        n, count = self.mask.shape[:2]
        high, across = _block_size(x, count)
        cut = x.reshape(n, -1, count, high, count, across).permute(0, 2, 4, 1, 3, 5).reshape(n * count**2, -1)
        first = count**2 * torch.arange(n, device=x.device)[:, None]  # number of the first block of each image
        own, other = first + self.sources[0], first[self.partner] + self.sources[1]
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        weight = self.mask.to(dtype).reshape(-1, 1)
        mixed = cut[other.flatten()].to(dtype).lerp_(cut[own.flatten()].to(dtype), weight).to(x.dtype)
        mixed = mixed.view(n, count, count, -1, high, across).permute(0, 3, 1, 4, 2, 5).reshape(x.shape)
        return mixed if x.is_contiguous() else torch.empty_like(x).copy_(mixed)


def saliency(model, x: Tensor, labels: Tensor) -> Tensor:
    """The root mean square over channels of the loss's gradient at each pixel: x (n, channels, h, w) -> (n, h, w).

    In evaluation mode and in float32: half precision would round small gradients to nothing. Only the input's gradient
    is computed, and the model is left as it was.
    """
    image_size(x)
    training = [part for part in model.modules() if part.training]
    model.eval()
    try:
        with torch.enable_grad(), no_autocast(x.device):
            pixels = wide(x.detach()).requires_grad_()
            logits = model(pixels)
            loss = F.cross_entropy(logits, soft_labels(labels, logits.shape[1]), reduction="sum")
            (gradient,) = torch.autograd.grad(loss, pixels)
    finally:
        for part in training:
            part.training = True
    return gradient.reshape(len(x), -1, *x.shape[-2:]).square().mean(1).sqrt()


def puzzle_mask(own: Tensor, partner: Tensor, lam, labels: int = 3, beta: float = 1.2, eta: float = 0.2) -> Tensor:
    """The mask of least energy, (n, B, B) in {0, 1/m, …, 1}, 1 where the own image shows.

    own, partner (n, B, B): the saliency of the blocks of both images, of any scale. lam: a number, or (n,).
    """
    _check(labels, beta=beta, eta=eta)
    unary, weight = _energy_terms(own, partner, lam, labels, beta, eta)
    return torch.from_numpy(minimum_cut(unary, weight) / (labels - 1)).float()


def puzzle_energy(mask: Tensor, own, partner, lam, labels: int = 3, beta: float = 1.2, eta: float = 0.2) -> Tensor:
    """E of masks (n, B, B), as at the top of the file: (n,) float64."""
    unary, weight = _energy_terms(own, partner, lam, labels, beta, eta)
    label = (mask.double() * (labels - 1)).round().long()
    cost = torch.from_numpy(unary).gather(3, label[..., None]).flatten(1).sum(1)
    steps = label.diff(dim=1).square().flatten(1).sum(1) + label.diff(dim=2).square().flatten(1).sum(1)
    return cost + weight * steps


def minimum_cut(unary: np.ndarray, weight: float) -> np.ndarray:
    """Labels t (n, h, w) of least  sum_i unary[i, t_i] + weight sum_(i~j) (t_i - t_j)^2,  for unary (n, h, w, labels).

    m = labels - 1 nodes for each block, in a chain from source to sink whose links cost as much as the labels: t of its
    nodes fall on the source's side where link t is cut. Between neighbours node k leads to node l <= k of the other, at
    the weight if k = l and twice that if not: where t_i > t_j that cuts (t_i - t_j)^2. All images are one graph.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    nodes, tails, heads, costs = _graph(unary, weight)
    size = nodes.max() + 1
    graph = coo_matrix((costs, (tails, heads)), shape=(size, size)).tocsr()
    left = graph.astype(np.int64) - maximum_flow(graph, 0, 1).flow.astype(np.int64)
    left.eliminate_zeros()
    reached = np.zeros(size, dtype=bool)
    reached[breadth_first_order(left, 0, return_predecessors=False)] = True
    return reached[nodes].sum(-1)


def transport(share: Tensor, shown: Tensor, move_cost: float) -> Tensor:
    """The block to show at each place, (n, B * B): saliency (n, B, B) brought to where shown (n, B, B) > 0.

    Of all ways to give every visible place a block of its own, the one of least
    sum over places of  move_cost * (distance squared) - (share of saliency of the block), the image's side being 1.
    Places that are hidden keep their own block.
    """
    from scipy.optimize import linear_sum_assignment

    count = share.shape[-1]
    at = np.stack(np.divmod(np.arange(count**2), count), 1) / max(1, count - 1)
    distance = ((at[:, None] - at[None]) ** 2).sum(-1)
    source = np.tile(np.arange(count**2), (len(share), 1))
    worths = _shares(share).reshape(len(share), -1)
    for row, worth, visible in zip(source, worths, shown.flatten(1).numpy(), strict=True):
        (places,) = np.nonzero(visible > 0)
        row[places] = linear_sum_assignment(move_cost * distance[places] - worth)[1]
    return torch.from_numpy(source)


def _energy_terms(own, partner, lam, labels: int, beta: float, eta: float) -> tuple[np.ndarray, float]:
    """What each label costs in each block, (n, B, B, labels), and a step of one label between neighbours."""
    if own.shape != partner.shape or own.dim() != 3 or own.shape[1] != own.shape[2]:
        raise ValueError(f"own {tuple(own.shape)} and partner {tuple(partner.shape)} must both have shape (n, B, B)")
    lam = np.asarray(lam, dtype=np.float64).reshape(-1, 1, 1, 1)
    if not ((lam >= 0) & (lam <= 1)).all():
        raise ValueError(f"lam must lie in [0, 1], not {lam.ravel()}")
    m, count = labels - 1, own.shape[-1]
    t = np.arange(labels)
    prior = np.array([math.comb(m, k) for k in t]) * lam**t * (1 - lam) ** (m - t)
    with np.errstate(divide="ignore"):  # what lam rules out costs infinitely much
        wish = -np.log(prior) * (eta / count**2) if eta else np.zeros(1)
    z = t / m
    hidden = (1 - z) * _shares(own)[..., None] + z * _shares(partner)[..., None]
    return hidden + wish, beta / (16 * count * m**2)


def _shares(values: Tensor) -> np.ndarray:
    """Saliency (n, B, B) as shares that sum to one; an image without any counts as equally salient everywhere."""
    values = values.double().nan_to_num(0.0, 0.0, 0.0).clamp(min=0).numpy()
    total = values.sum((1, 2), keepdims=True)
    return np.where(total > 0, values / np.where(total > 0, total, 1), 1 / values[0].size)


def _graph(unary: np.ndarray, weight: float) -> tuple[np.ndarray, ...]:
    """The nodes (n, h, w, m) of all images, numbered after source 0 and sink 1, and tails, heads, costs of all links.

    Costs are scaled to whole numbers, of which an image has BUDGET in all, however large one block's cost is.
    """
    unary = unary - unary.min(-1, keepdims=True)  # the same for all labels of a block: no matter for the minimum
    n, height, width, labels = unary.shape
    m = labels - 1
    nodes = 2 + np.arange(n * height * width * m).reshape(n, height, width, m)
    ends = np.zeros((n, height, width, 1), dtype=nodes.dtype)
    links = [(np.concatenate([ends, nodes], -1), np.concatenate([nodes, ends + 1], -1), unary)]
    links += [(nodes[..., 1:], nodes[..., :-1], np.full((n, height, width, m - 1), np.inf))]  # one cut for each chain
    for one, other in ((nodes[:, 1:], nodes[:, :-1]), (nodes[:, :, 1:], nodes[:, :, :-1])):
        for tail, head in ((one, other), (other, one)):
            for k in range(m):
                for level in range(k + 1):
                    step = np.full(one.shape[:3], weight * (1 if k == level else 2))
                    links.append((tail[..., k], head[..., level], step))
    finite = [np.where(np.isfinite(cost), cost, 0).reshape(n, -1).sum(1) for _, _, cost in links]
    scale = BUDGET / np.maximum(np.sum(finite, 0), 1e-300)
    whole = [np.minimum(np.rint(cost.reshape(n, -1) * scale[:, None]), FORBIDDEN).ravel() for _, _, cost in links]
    tails, heads = (np.concatenate([link[side].ravel() for link in links]) for side in (0, 1))
    return nodes, tails, heads, np.concatenate(whole).astype(np.int32)


def _block_size(x: Tensor, count: int) -> tuple[int, int]:
    height, width = image_size(x)
    if height % count or width % count:
        raise ValueError(f"blocks must divide the images: {height} x {width} pixels cannot be cut into {count} a side")
    return height // count, width // count


def _check(labels: int, **amounts: float) -> None:
    if not isinstance(labels, int) or labels < 2:
        raise ValueError(f"labels must be a whole number >= 2, not {labels}")
    for name, amount in amounts.items():
        if not (math.isfinite(amount) and amount >= 0):
            raise ValueError(f"{name} must be a finite number >= 0, not {amount}")
