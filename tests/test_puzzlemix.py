"""PuzzleMix: the cut against brute force, the assignment against all permutations, saliency, what is shown where."""

from itertools import permutations, product
from math import comb

import numpy as np
import pytest
import torch
from examples import images, refuses
from torch import nn
from torch.nn import functional as F

from mixlab import PuzzleMix, one_hot
from mixlab.graphcut import minimum_cut
from mixlab.puzzlemix import Puzzle, puzzle_mask, saliency, transport
from mixlab.training.models import build


def shares(n, count, seed=0, power=3):
    """Two sets of n saliency maps, (n, count, count), some blocks far above the others."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(n, count, count, generator=generator, dtype=torch.float64) ** power for _ in range(2))


def energy(masks, own, partner, lam, labels, beta, eta):
    """E of masks (k, B, B) for one pair of images (B, B), term by term as at the top of puzzlemix.py: (k,) float64."""
    z, count, m = masks.double(), masks.shape[-1], labels - 1
    hidden = ((1 - z) * own / own.sum() + z * partner / partner.sum()).flatten(1).sum(1)
    binomial = torch.tensor([comb(m, t) * lam**t * (1 - lam) ** (m - t) for t in range(labels)], dtype=torch.float64)
    prior = binomial[(z * m).round().long()].log().flatten(1).sum(1)
    steps = sum(z.diff(dim=side).square().flatten(1).sum(1) for side in (1, 2))
    return hidden - eta / count**2 * prior + beta / (16 * count) * steps


# --- the mask


@pytest.mark.parametrize("labels, count", [(2, 3), (3, 3), (4, 2)])
def test_no_mask_has_less_energy(labels, count):
    """Against every mask there is; what rounding to whole numbers leaves is under a millionth."""
    masks = torch.tensor(list(product(range(labels), repeat=count**2))).float().view(-1, count, count) / (labels - 1)
    for beta, eta, lam in ((1.2, 0.2, 0.5), (1.2, 0.2, 0.83), (20.0, 1.0, 0.3)):
        own, partner = shares(4, count, seed=count)
        found = puzzle_mask(own, partner, lam, labels, beta, eta)
        for mask, *pair in zip(found, own, partner, strict=True):
            least = energy(masks, *pair, lam, labels, beta, eta).min()
            assert energy(mask[None], *pair, lam, labels, beta, eta) <= least + 1e-6 * least.abs()


def test_the_cut_itself_on_costs_drawn_at_random():
    """Costs as uneven as energies never are, on 2 x 3 blocks, against all labels there are."""
    every = np.array(list(product(range(3), repeat=6))).reshape(-1, 2, 3)
    for unary in np.random.default_rng(0).random((9, 2, 3, 3)) - 0.5:

        def cost(labels, unary=unary):
            steps = sum((np.diff(labels, axis=side) ** 2).sum((1, 2)) for side in (1, 2))
            return np.take_along_axis(unary[None], labels[..., None], 3).sum((1, 2, 3)) + 0.02 * steps

        assert cost(minimum_cut(unary[None], 0.02))[0] == pytest.approx(cost(every).min(), rel=1e-6)


def test_images_of_one_batch_do_not_touch_each_other_and_each_may_have_a_lam():
    (own, partner), lam = shares(7, 4), torch.linspace(0, 1, 7)
    alone = [puzzle_mask(own[i : i + 1], partner[i : i + 1], lam[i]) for i in range(7)]
    assert torch.equal(puzzle_mask(own, partner, lam), torch.cat(alone))
    assert (alone[0] == 0).all() and (alone[6] == 1).all(), "at its ends one image is shown alone"


@pytest.mark.parametrize("share", [0.09, 1 - 1e-9])
def test_one_block_with_most_of_the_saliency_does_not_overflow(share):
    """Of 16 x 16 blocks: costs are scaled to whole numbers by the sum of all, so none can leave 32 bits."""
    own = torch.full((200, 16, 16), (1 - share) / 255, dtype=torch.float64)
    own[:, 5, 7] = share
    assert (puzzle_mask(own, torch.ones(200, 16, 16), 0.5)[:, 5, 7] == 1).all()


def test_without_any_saliency_masks_and_moves_are_still_sound():
    for value in (0.0, float("nan"), float("inf")):
        nothing = torch.full((3, 4, 4), value)
        mask = puzzle_mask(nothing, nothing, 0.5)
        assert mask.isfinite().all()
        assert torch.equal(transport(nothing, mask), torch.arange(16).expand(3, 16)), "each block stays"


# --- transport


def test_no_assignment_is_better():
    """Against all ways to fill the visible places of a 3 x 3 grid."""
    share, _ = shares(5, 3, power=4)
    shown, places = torch.tensor([[1, 1, 0], [0, 0.5, 0], [0, 0, 0]]).expand(5, 3, 3), [0, 1, 4]
    moved, at = transport(share, shown, 0.1), np.stack(np.divmod(np.arange(9), 3), 1) / 2
    distance, worth = ((at[:, None] - at) ** 2).sum(-1), (share / share.sum((1, 2), keepdim=True)).flatten(1)
    assert not torch.equal(moved, torch.arange(9).expand(5, 9))
    every = np.array(list(permutations(range(9), 3)))
    for row, gained in zip(moved.numpy(), worth.numpy(), strict=True):
        costs = 0.1 * distance[places, every].sum(1) - gained[every].sum(1)
        assert 0.1 * distance[places, row[places]].sum() - gained[row[places]].sum() == pytest.approx(costs.min())
        assert all(row[j] == j for j in range(9) if j not in places)


def test_every_visible_place_has_a_block_of_its_own_and_dear_moves_are_not_made():
    share, _ = shares(20, 8, power=6)
    shown = puzzle_mask(*shares(20, 8), 0.4)
    for row, visible in zip(transport(share, shown, 0.01), shown.flatten(1) > 0, strict=True):
        assert len(set(row[visible].tolist())) == int(visible.sum())
    assert torch.equal(transport(share, shown, 1e6), torch.arange(64).expand(20, 64))


# --- the plan


@pytest.mark.parametrize("channels, layout", [(1, torch.contiguous_format), (3, torch.channels_last)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_what_is_shown_where(channels, layout, dtype):
    """Block by block, with moves, on images that are not square; the label's weight is the mean of the mask."""
    x = torch.randn(3, channels, 4, 6, generator=torch.Generator().manual_seed(0)).to(dtype).to(memory_format=layout)
    before, partner = x.clone(), torch.tensor([2, 0, 1])
    mask = torch.tensor([[[1, 0], [0.5, 1]], [[0, 0], [1, 0.5]], [[1, 1], [1, 1]]])
    own = torch.tensor([[1, 0, 2, 3], [0, 1, 3, 2], [0, 1, 2, 3]])
    other = torch.tensor([[0, 2, 1, 3], [3, 2, 1, 0], [0, 1, 2, 3]])
    plan = Puzzle(partner, mask, own, other)
    mixed = plan.mix(x)

    def block(image, number):
        row, column = divmod(int(number), 2)
        return image[:, 2 * row : 2 * row + 2, 3 * column : 3 * column + 3].double()

    for i, j in product(range(3), range(4)):
        z = float(mask[i].flatten()[j])
        expected = z * block(x[i], own[i, j]) + (1 - z) * block(x[partner[i]], other[i, j])
        assert torch.allclose(block(mixed[i], j), expected, atol=2e-2 if dtype == torch.bfloat16 else 1e-6)
    assert torch.equal(x, before) and mixed.dtype == dtype and mixed.is_contiguous(memory_format=layout)
    y = torch.tensor([[0.625, 0, 0.375], [0.625, 0.375, 0], [0, 0, 1]])
    assert torch.equal(plan.mix_labels(torch.eye(3)), y)


# --- saliency and the whole


def test_saliency_is_the_norm_of_the_gradient_over_channels():
    x, labels = images(classes=4)
    net = build("quick_resnet", 4, seed=0).eval()
    pixels = x.clone().requires_grad_()
    F.cross_entropy(net(pixels), labels, reduction="sum").backward()
    assert torch.allclose(saliency(net, x, labels), pixels.grad.square().mean(1).sqrt())
    assert torch.equal(saliency(net, x, labels), saliency(net, x, one_hot(labels, 4)))


def test_saliency_leaves_the_model_and_its_gradients_as_they_were():
    x, labels = images(classes=4)
    net = build("quick_resnet", 4, seed=0)
    net.stages[1].eval()  # frozen by its owner
    modes = [part.training for part in net.modules()]
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with torch.no_grad():
        found = saliency(net, x, labels)
    assert [part.training for part in net.modules()] == modes and not found.requires_grad
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(saliency(net, x, labels), found), "in float32 within autocast too"
        half = x.bfloat16()
        assert torch.equal(saliency(net, half, labels), saliency(net, half.float(), labels))


@pytest.mark.parametrize("moving", [False, True])
def test_loss_by_hand(moving):
    x, labels = images(classes=4)
    net = build("quick_resnet", 4, seed=0).eval()
    method, draws = PuzzleMix(1.0, blocks=(8,), transport=moving, rng=4), np.random.default_rng(4)
    lam, _, partner = draws.beta(1.0, 1.0), draws.integers(1), torch.from_numpy(draws.permutation(6))
    own = F.avg_pool2d(saliency(net, x, labels)[:, None], 2)[:, 0]
    mask = puzzle_mask(own, own[partner], lam)
    moves = (transport(own, mask), transport(own[partner], 1 - mask)) if moving else (None, None)
    plan, stay = Puzzle(partner, mask, *moves), torch.arange(64).expand(6, 64)
    assert all(torch.equal(source, stay) != moving for source in (plan.own_source, plan.partner_source))
    logits, weight = net(plan.mix(x)), mask.flatten(1).mean(1)
    losses = [F.cross_entropy(logits, given, reduction="none") for given in (labels, labels[partner])]
    by_hand = (weight * losses[0] + (1 - weight) * losses[1]).mean()
    assert torch.allclose(method.loss(net, x, labels), by_hand, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_networks_of_any_precision(dtype):
    x, labels = images(classes=4)
    net = build("quick_resnet", 4, seed=0).to(dtype)
    loss = PuzzleMix(1.0, (4,), rng=0).loss(net, x.to(dtype), labels)
    loss.backward()
    assert loss.isfinite() and all(part.grad.isfinite().all() for part in net.parameters())
    found, exact = saliency(net, x.to(dtype), labels), saliency(net.double(), x.to(dtype).double(), labels)
    assert torch.corrcoef(torch.stack([found.flatten().double(), exact.flatten()]))[0, 1] > 0.9


def test_what_makes_no_sense_is_refused_by_name():
    x, labels, net = torch.rand(3, 1, 28, 28), torch.arange(3), nn.Sequential(nn.Flatten(), nn.Linear(784, 3))
    refuses(lambda x: PuzzleMix(1.0).loss(net, x, labels), "blocks", x)  # the default blocks do not divide 28
    assert PuzzleMix(1.0, blocks=(2, 4, 7, 14)).loss(net, x, labels).isfinite()
    refuses(lambda x: PuzzleMix(1.0).loss(net, x, labels), "x", torch.zeros(3, 2))
    refuses(lambda x: PuzzleMix(1.0).draw(x, labels), "PuzzleMix", x)
    refuses(lambda lam: puzzle_mask(*shares(1, 2), lam), "lam", 1.5, float("nan"))
    refuses(lambda partner: puzzle_mask(torch.ones(1, 2, 2), partner, 0.5), "own", torch.ones(1, 2, 3))
    refuses(Puzzle(torch.tensor([0]), torch.ones(1, 2, 2)).mix, "x", torch.ones(1, 1, 4, 4, dtype=torch.uint8))
