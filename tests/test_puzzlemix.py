"""PuzzleMix: the cut against brute force, the assignment against all permutations, saliency, what is shown where."""

from itertools import permutations, product

import numpy as np
import pytest
import torch
from examples import images, refuses
from torch import nn
from torch.nn import functional as F

from mixlab import PuzzleMix, one_hot
from mixlab.graphcut import minimum_cut
from mixlab.puzzlemix import Puzzle, energy_terms, puzzle_mask, saliency, transport
from mixlab.training.models import build


def shares(n, count, seed=0, power=3):
    """Two sets of n saliency maps, (n, count, count), some blocks far above the others."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(n, count, count, generator=generator, dtype=torch.float64) ** power for _ in range(2))


def puzzle_energy(mask, own, partner, lam, labels=3, beta=1.2, eta=0.2):
    """E of masks (n, B, B): (n,) float64."""
    unary, weight = energy_terms(own, partner, lam, labels, beta, eta)
    label = (mask.double() * (labels - 1)).round().long()
    cost = torch.from_numpy(unary).gather(3, label[..., None]).flatten(1).sum(1)
    return cost + weight * sum(label.diff(dim=side).square().flatten(1).sum(1) for side in (1, 2))


# --- the mask


def test_energy_is_its_formula():
    own, partner = shares(1, 3)
    s, p = (own / own.sum())[0], (partner / partner.sum())[0]
    mask = torch.tensor([[[0, 0.5, 1], [1, 1, 0.5], [0, 0, 1]]])
    prior, total = {0.0: 0.7**2, 0.5: 2 * 0.3 * 0.7, 1.0: 0.3**2}, 0.0
    for i, j in product(range(3), repeat=2):
        z = float(mask[0, i, j])
        total += (1 - z) * float(s[i, j]) + z * float(p[i, j]) - 0.4 / 9 * np.log(prior[z])
        for a, b in ((i + 1, j), (i, j + 1)):
            if a < 3 and b < 3:
                total += 1.5 / (16 * 3) * (z - float(mask[0, a, b])) ** 2
    assert puzzle_energy(mask, own, partner, 0.3, 3, 1.5, 0.4).item() == pytest.approx(total, abs=1e-12)


@pytest.mark.parametrize("labels, count", [(2, 3), (3, 3), (4, 2)])
def test_no_mask_has_less_energy(labels, count):
    """Against every mask there is; what rounding to whole numbers leaves is under a millionth."""
    own, partner = shares(4, count, seed=count)
    masks = torch.tensor(list(product(range(labels), repeat=count**2))).float().view(-1, count, count) / (labels - 1)
    for beta, eta, lam in ((1.2, 0.2, 0.5), (1.2, 0.2, 0.83), (20.0, 1.0, 0.3), (0.0, 0.0, 0.5)):
        settings = {"lam": lam, "labels": labels, "beta": beta, "eta": eta}
        found = puzzle_energy(puzzle_mask(own, partner, **settings), own, partner, **settings)
        for i in range(4):
            every = puzzle_energy(masks, *(m[i].expand(len(masks), -1, -1) for m in (own, partner)), **settings)
            assert found[i] <= every.min() + 1e-6 * every.min().abs()


def test_the_cut_itself_on_costs_drawn_at_random():
    """Costs as uneven as energies never are, on 2 x 3 blocks, against all labels there are."""
    every = np.array(list(product(range(3), repeat=6))).reshape(-1, 2, 3)
    for unary in np.random.default_rng(0).random((9, 2, 3, 3)) - 0.5:

        def energy(labels, unary=unary):
            steps = sum((np.diff(labels, axis=side) ** 2).sum((1, 2)) for side in (1, 2))
            return np.take_along_axis(unary[None], labels[..., None], 3).sum((1, 2, 3)) + 0.02 * steps

        assert energy(minimum_cut(unary[None], 0.02))[0] == pytest.approx(energy(every).min(), rel=1e-6)


def test_images_of_one_batch_do_not_touch_each_other():
    own, partner = shares(7, 4)
    alone = [puzzle_mask(own[i : i + 1], partner[i : i + 1], 0.4) for i in range(7)]
    assert torch.equal(puzzle_mask(own, partner, 0.4), torch.cat(alone))


@pytest.mark.parametrize("share", [0.09, 1 - 1e-9])
def test_one_block_with_most_of_the_saliency_does_not_overflow(share):
    """Of 16 x 16 blocks: costs are scaled to whole numbers by the sum of all, so none can leave 32 bits."""
    own = torch.full((200, 16, 16), (1 - share) / 255, dtype=torch.float64)
    own[:, 5, 7] = share
    mask = puzzle_mask(own, torch.ones(200, 16, 16), 0.5)
    assert (mask[:, 5, 7] == 1).all()


def test_lam_at_its_ends_shows_one_image_only_and_in_between_the_mask_follows_it():
    own, partner = shares(60, 4)
    for lam, expected in ((0.0, 0.0), (1.0, 1.0)):
        assert (puzzle_mask(own, partner, lam) == expected).all()
    shown = [puzzle_mask(own, partner, lam, eta=1.0).mean().item() for lam in (0.1, 0.3, 0.5, 0.7, 0.9)]
    assert shown == sorted(shown) and shown[0] < 0.3 and shown[-1] > 0.7
    each = puzzle_mask(own[:2], partner[:2], torch.tensor([0.0, 1.0]))
    assert (each[0] == 0).all() and (each[1] == 1).all()


def test_without_any_saliency_masks_and_moves_are_still_sound():
    for value in (0.0, float("nan"), float("inf")):
        nothing = torch.full((3, 4, 4), value)
        mask = puzzle_mask(nothing, nothing, 0.5)
        assert mask.isfinite().all()
        assert torch.equal(transport(nothing, mask, 0.8), torch.arange(16).expand(3, 16)), "each block stays"


# --- transport


def test_no_assignment_is_better():
    """Against all ways to fill the visible places of a 3 x 3 grid."""
    share, _ = shares(5, 3, power=4)
    shown = torch.tensor([[1, 1, 0], [0, 0.5, 0], [0, 0, 0]]).expand(5, 3, 3)
    places, at = [0, 1, 4], np.stack(np.divmod(np.arange(9), 3), 1) / 2
    moved = transport(share, shown, 0.1)
    assert not torch.equal(moved, torch.arange(9).expand(5, 9))
    for i in range(5):
        worth = (share[i] / share[i].sum()).flatten()

        def cost(chosen, worth=worth):
            return sum(
                0.1 * ((at[b] - at[j]) ** 2).sum() - float(worth[b]) for b, j in zip(chosen, places, strict=True)
            )

        best = min(cost(chosen) for chosen in permutations(range(9), 3))
        assert cost(moved[i][places].tolist()) == pytest.approx(best)
        assert all(moved[i][j] == j for j in range(9) if j not in places)


def test_every_visible_place_has_a_block_of_its_own_and_dear_moves_are_not_made():
    share, _ = shares(20, 8, power=6)
    shown = puzzle_mask(*shares(20, 8), 0.4)
    moved = transport(share, shown, 0.01)
    for row, visible in zip(moved, shown.flatten(1) > 0, strict=True):
        assert len(set(row[visible].tolist())) == int(visible.sum())
    assert torch.equal(transport(share, shown, 1e6), torch.arange(64).expand(20, 64))


# --- the plan


@pytest.mark.parametrize("channels, layout", [(1, torch.contiguous_format), (3, torch.channels_last)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_what_is_shown_where(channels, layout, dtype):
    """Block by block, with moves, on images that are not square."""
    x = torch.randn(3, channels, 4, 6, generator=torch.Generator().manual_seed(0)).to(dtype).to(memory_format=layout)
    before = x.clone()
    mask = torch.tensor([[[1, 0], [0.5, 1]], [[0, 0], [1, 0.5]], [[1, 1], [1, 1]]])
    own = torch.tensor([[1, 0, 2, 3], [0, 1, 3, 2], [0, 1, 2, 3]])
    other = torch.tensor([[0, 2, 1, 3], [3, 2, 1, 0], [0, 1, 2, 3]])
    partner = torch.tensor([2, 0, 1])
    mixed = Puzzle(partner, mask, own, other).mix(x)

    def block(image, number):
        row, column = divmod(int(number), 2)
        return x[image][:, 2 * row : 2 * row + 2, 3 * column : 3 * column + 3].double()

    for i, j in product(range(3), range(4)):
        row, column = divmod(j, 2)
        z = float(mask[i, row, column])
        expected = z * block(i, own[i, j]) + (1 - z) * block(partner[i], other[i, j])
        here = mixed[i][:, 2 * row : 2 * row + 2, 3 * column : 3 * column + 3].double()
        assert torch.allclose(here, expected, atol=2e-2 if dtype == torch.bfloat16 else 1e-6)
    assert torch.equal(x, before) and mixed.dtype == dtype and mixed.is_contiguous(memory_format=layout)


def test_the_label_weight_is_the_mean_of_the_mask():
    mask = torch.tensor([[[1, 0], [0.5, 1]], [[0, 0], [1, 0.5]]])
    plan = Puzzle(torch.tensor([1, 0]), mask, None, None)
    y = plan.mix_labels(one_hot(torch.tensor([0, 1]), 2))
    assert torch.allclose(y, torch.tensor([[0.625, 0.375], [0.625, 0.375]]))
    assert plan.to("meta").mask.device.type == "meta" and torch.equal(plan.to("cpu").mix(mask), plan.mix(mask))


def test_no_visible_block_is_black_even_where_nothing_is_salient():
    """Images of ones: whatever is moved, every pixel must stay one. The network looks at the left half only."""

    class Left(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(16 * 8, 4)

        def forward(self, x):
            return self.net(x[..., :8].flatten(1))

    x, labels = torch.ones(8, 1, 16, 16), torch.arange(8) % 4
    for seed in range(5):
        plan = PuzzleMix(1.0, rng=seed).draw_with_model(Left(), x, labels)
        assert torch.equal(plan.mix(x), x)


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


@pytest.mark.parametrize("transporting", [False, True])
def test_loss_by_hand(transporting):
    x, labels = images(classes=4)
    net = build("quick_resnet", 4, seed=0).eval()
    method = PuzzleMix(1.0, blocks=(4,), transport=transporting, move_cost=0.01, rng=4)
    draws = np.random.default_rng(4)
    lam = draws.beta(1.0, 1.0)
    draws.integers(1)
    partner = torch.from_numpy(draws.permutation(6))
    own = F.avg_pool2d(saliency(net, x, labels)[:, None], 4)[:, 0]
    mask = puzzle_mask(own, own[partner], lam)
    moves = (transport(own, mask, 0.01), transport(own[partner], 1 - mask, 0.01)) if transporting else (None, None)
    plan = Puzzle(partner, mask, *moves)
    stay = torch.arange(16).expand(6, 16)
    assert all(torch.equal(source, stay) != transporting for source in (plan.own_source, plan.partner_source))
    logits, weight = net(plan.mix(x)), mask.flatten(1).mean(1)
    losses = [F.cross_entropy(logits, given, reduction="none") for given in (labels, labels[partner])]
    by_hand = (weight * losses[0] + (1 - weight) * losses[1]).mean()
    assert torch.allclose(method.loss(net, x, labels), by_hand, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_networks_of_any_precision(dtype):
    x, labels = images(classes=4)
    net = build("quick_resnet", 4, seed=0).to(dtype)
    plan = PuzzleMix(1.0, (4,), rng=0).draw_with_model(net, x.to(dtype), labels)
    loss = PuzzleMix(1.0, (4,), rng=0).loss(net, x.to(dtype), labels)
    loss.backward()
    assert loss.isfinite() and 0 < plan.mask.mean() < 1 and all(part.grad.isfinite().all() for part in net.parameters())
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
