"""PuzzleMix (Kim et al., 2020): cut both images into blocks and show of each the blocks that its label depends on.

Saliency of every pixel -> each block's share s of it -> the energy E of a mask -> the mask of least energy, by a
minimum cut -> blocks moved to where they can be seen, by an assignment. For B x B blocks and a mask z, 1 where the own
image shows, 0 where the partner's does, and a blend between,

    E(z) = sum_i [ (1 - z_i) s_own,i + z_i s_partner,i ]          saliency that is hidden
           - eta / B^2 sum_i log Binomial(m, lam)(m z_i)          z_i in {0, 1/m, …, 1} should be lam on average
           + beta / (16 B) sum_(i~j) (z_i - z_j)^2                neighbours should come from the same image

The label's weight of the own image is the mean of z. Not here: the paper's fourth term, on the pixels at blocks' edges.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixlab.checks import check_alpha, check_batch, check_images, check_inputs, check_whole, check_wholes
from mixlab.graphcut import minimum_cut
from mixlab.method import Method, draw_lambda
from mixlab.plans import Pairs, Split, no_autocast, soft_labels, wide


class PuzzleMix(Method):
    """PuzzleMix: saliency by an extra backward pass, a mask by minimum cut, and transport if asked for.

    alpha: lam ~ Beta(alpha, alpha), one for the batch. blocks: numbers of blocks a side, one drawn for each batch; they
    must divide height and width. labels = m + 1: 2, or 3 to allow a blend of both images in a block. transport: move
    blocks. beta, eta and the cost of a move are those of the paper. Cut and assignment run on the CPU.
    """

    defaults: ClassVar[dict[str, Any]] = {"alpha": 1.0}
    asks_model = True

    def __init__(
        self,
        alpha: float,
        blocks: Sequence[int] = (2, 4, 8, 16),
        labels: int = 3,
        transport: bool = True,
        rng: Any = None,
    ):
        super().__init__(rng)
        self.alpha, self.blocks = check_alpha(alpha), check_wholes("blocks", blocks)
        self.labels, self.transport = check_whole("labels", labels, 2), transport

    def draw(self, x, labels):
        raise ValueError("PuzzleMix asks the model what is salient: use draw_with_model(model, x, labels)")

    def draw_with_model(self, model, x, labels, lam: Any = None):
        """The plan for this batch; lam: the share of the own image that every mask aims at, drawn if not given."""
        check_batch(x, labels)
        for count in self.blocks:
            _block_size(x, count)
        lam = draw_lambda(self.rng, self.alpha) if lam is None else lam
        count = self.blocks[self.rng.integers(len(self.blocks))]
        partner = torch.from_numpy(self.rng.permutation(len(x)))
        own = F.avg_pool2d(saliency(model, x, labels)[:, None], _block_size(x, count))[:, 0].cpu()
        mask = puzzle_mask(own, own[partner], lam, self.labels)
        moves = (transport(own, mask), transport(own[partner], 1 - mask)) if self.transport else ()
        return Puzzle(partner, mask, *moves).to(x.device)


class Puzzle(Split):
    """Row i of the batch shows mask[i] of its own blocks and 1 - mask[i] of those of row partner[i].

    partner (n,); mask (n, B, B) in [0, 1]; own_source, partner_source (n, B * B): the block shown at each place, of the
    own image and of the partner's, or None where every block stays.
    """

    def __init__(self, partner: Tensor, mask: Tensor, own_source: Any = None, partner_source: Any = None):
        super().__init__(None, Pairs(partner, mask.flatten(1).mean(1)))
        stay = torch.arange(mask[0].numel(), device=mask.device).expand(len(mask), -1)
        self.mask, self.own_source = mask, stay if own_source is None else own_source
        self.partner_source = stay if partner_source is None else partner_source

    def mix(self, x):
        """x (n, …, height, width) floating point -> a new tensor of the same shape and type."""
        check_inputs(x, len(self))
        n, size = len(x), _block_size(x, self.mask.shape[-1])
        blocks = F.unfold(wide(x).reshape(n, -1, *x.shape[-2:]), size, stride=size).mT  # (n, B * B, pixels)
        rows = torch.arange(n, device=x.device)[:, None]
        own, other = blocks[rows, self.own_source], blocks[self.partner[:, None], self.partner_source]
        mixed = other.lerp_(own, self.mask.to(own.dtype).reshape(n, -1, 1)).mT
        mixed = F.fold(mixed, x.shape[-2:], size, stride=size).reshape(x.shape)
        return torch.empty_like(x).copy_(mixed)  # in the memory layout of x


def saliency(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """The root mean square over channels of the loss's gradient at each pixel: x (n, channels, h, w) -> (n, h, w).

    In evaluation mode, so that BatchNorm statistics move once a step, in the pass that trains; without autocast, in the
    network's own precision. The model is left as it was, and its weights get no gradient.
    """
    check_images(x)
    training = [part for part in model.modules() if part.training]
    weights = next((weight.dtype for weight in model.parameters() if weight.is_floating_point()), wide(x).dtype)
    model.eval()
    try:
        with torch.enable_grad(), no_autocast(x.device):
            pixels = wide(x.detach()).requires_grad_()
            logits = wide(model(pixels.to(weights)))
            loss = F.cross_entropy(logits, soft_labels(labels, logits.shape[1]).to(logits.dtype), reduction="sum")
            (gradient,) = torch.autograd.grad(loss, pixels)
    finally:
        for part in training:
            part.training = True
    return gradient.reshape(len(x), -1, *x.shape[-2:]).square().mean(1).sqrt()


def puzzle_mask(own: Tensor, partner: Tensor, lam: Any, labels: int = 3, beta: float = 1.2, eta: float = 0.2) -> Tensor:
    """The mask of least energy E, (n, B, B) in {0, 1/m, …, 1}, 1 where the own image shows.

    own, partner (n, B, B): the saliency of the blocks of both images, of any scale. lam: a number, or (n,).
    """
    if own.shape != partner.shape or own.dim() != 3 or own.shape[1] != own.shape[2]:
        raise ValueError(f"own {tuple(own.shape)} and partner {tuple(partner.shape)} must both have shape (n, B, B)")
    lam = np.asarray(lam, dtype=np.float64).reshape(-1, 1, 1, 1)
    if not ((lam >= 0) & (lam <= 1)).all():
        raise ValueError(f"lam must lie in [0, 1], not {lam.ravel()}")
    t, m, count = np.arange(labels), labels - 1, own.shape[-1]  # E as the cost of each label t = m z in each block
    hidden = (1 - t / m) * _shares(own)[..., None] + t / m * _shares(partner)[..., None]
    prior = np.array([math.comb(m, k) for k in t]) * lam**t * (1 - lam) ** (m - t)
    with np.errstate(divide="ignore"):  # what lam rules out costs infinitely much
        wish = -np.log(prior) * (eta / count**2)
    return torch.from_numpy(minimum_cut(hidden + wish, beta / (16 * count * m**2)) / m).float()


def transport(share: Tensor, shown: Tensor, move_cost: float = 0.8) -> Tensor:
    """The block to show at each place, (n, B * B): saliency (n, B, B) brought to where shown (n, B, B) > 0.

    Of all ways to give every visible place a block of its own, the one of least sum over places of
    move_cost * (distance squared) - (share of saliency of the block), the image's side being 1.
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


def _shares(values: Tensor) -> np.ndarray:
    """Saliency (n, B, B) as shares that sum to one; an image without any counts as equally salient everywhere."""
    known = values.double().nan_to_num(0.0, 0.0, 0.0).clamp(min=0).numpy()
    total = known.sum((1, 2), keepdims=True)
    return np.where(total > 0, known / np.where(total > 0, total, 1), 1 / known[0].size)


def _block_size(x: Tensor, count: int) -> tuple[int, int]:
    height, width = check_images(x)
    if height % count or width % count:
        fits = [number for number in range(1, min(height, width) + 1) if not (height % number or width % number)]
        raise ValueError(f"blocks must divide the {height} x {width} pixels: {count} does not, {fits} would")
    return height // count, width // count
