"""What bench compares with: other libraries' ways, and the loops of the papers and of released code, in our words."""

from collections.abc import Callable

import numpy as np
import torch


def match_as_printed(x: torch.Tensor, z: torch.Tensor, k: int) -> torch.Tensor:
    """Figure 5 of the k-mixup paper, one block after the other, plain distances."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial import distance_matrix

    a, b = x.flatten(1).numpy(), z.flatten(1).numpy()
    partner = np.zeros(len(a), np.int64)
    for start in range(0, len(a), k):
        block = slice(start, start + k)
        partner[block] = linear_sum_assignment(distance_matrix(a[block], b[block]))[1] + start
    return torch.from_numpy(partner)


def zeta_rolled(series: torch.Tensor) -> torch.Tensor:
    """Row i: the first weight, then the others in random order, rolled i places to the right."""
    n = len(series)
    others = series[1:][torch.rand(n, n - 1).argsort(1)]
    rows = torch.cat([series[:1].expand(n, 1), others], 1)
    turn = torch.outer(torch.arange(n), torch.fft.fftfreq(n, 1 / n)) / n
    return torch.fft.ifft(torch.fft.fft(rows) * torch.exp(-2j * torch.pi * turn)).real


def pair_as_released(labels: torch.Tensor, matrix: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Class after class draws from what is left, and to find that every sample is looked up among those taken."""
    own, partner, taken = labels.numpy(), np.empty(len(labels), np.int64), np.empty(0, np.int64)
    for a, row in enumerate(matrix.numpy()):
        rows, left = np.flatnonzero(own == a), [i for i in range(len(own)) if i not in taken]
        chances = row[own[left]]
        partner[rows] = rng.choice(left, len(rows), replace=False, p=chances / chances.sum())
        taken = np.append(taken, partner[rows])
    return torch.from_numpy(partner)


def count_one_by_one(probabilities: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The increment, one sample after the other."""
    counts = torch.zeros(y.shape[1], y.shape[1])
    for p, label in zip(probabilities, y, strict=True):
        true, others = label.nonzero()[:, 0], p.clone()
        others[true] = 0
        for a in true:
            counts[a] += label[a] * others
    return counts


def move_by_products(plan, x: torch.Tensor) -> torch.Tensor:
    """What a PuzzleMix plan makes of x, each image's blocks rearranged by a matrix of zeros and ones."""
    from torch.nn import functional as F

    n, count = plan.mask.shape[:2]
    size = x.shape[2] // count
    blocks = F.unfold(x, size, stride=size)  # (n, pixels of a block, blocks)
    own, other = (
        F.one_hot(source, count**2).float().transpose(1, 2) for source in (plan.own_source, plan.partner_source)
    )
    mask = plan.mask.view(n, 1, -1)
    mixed = mask * (blocks @ own) + (1 - mask) * (blocks[plan.partner] @ other)
    return F.fold(mixed, x.shape[2:], size, stride=size)


def timm_mixing(x: torch.Tensor, labels: torch.Tensor, **alphas: float) -> dict[str, Callable]:
    """timm's mixing, one for the batch and one for every sample; nothing where timm is not installed."""
    try:
        from timm.data import Mixup as TimmMixup
    except ImportError:
        print("timm is not installed: pip install -e '.[bench]' to see it beside the others")
        return {}
    own = x.clone()  # timm overwrites the batch it is given: it gets one of its own, and is not charged for the copy
    variants = {}
    for mode, name in (("batch", "timm, batch"), ("elem", "timm, per sample")):
        mixer = TimmMixup(**alphas, label_smoothing=0.0, num_classes=10, mode=mode)
        variants[name] = lambda mixer=mixer: mixer(own, labels)
    return variants


def train_alone(data, method, seed: int, epochs: int) -> None:
    """One network 2-130-120-2 with an optimiser of its own: what `fit_many` does for many at once."""
    from mixlab.training.sweeps import Nets, adam

    net = Nets((2, 130, 120, 2), [seed]).alone(0)
    optimiser, order = adam(net.parameters()), np.random.default_rng([seed, 1])
    for _ in range(epochs):
        for rows in torch.from_numpy(order.permutation(len(data.train_x))).split(32):
            optimiser.zero_grad()
            method.loss(net, data.train_x[rows], data.train_y[rows]).backward()
            optimiser.step()


def loader(x: torch.Tensor, batch: int, mean, std):
    """The usual way: PIL images, one at a time, in two worker processes."""
    from PIL import Image
    from torchvision import transforms

    flow = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    flow = transforms.Compose([*flow, transforms.ToTensor(), transforms.Normalize(mean, std)])
    pixels = x.permute(0, 2, 3, 1).numpy()

    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return len(pixels)

        def __getitem__(self, index):
            return flow(Image.fromarray(pixels[index])), 0

    return torch.utils.data.DataLoader(Images(), batch, shuffle=True, num_workers=2, persistent_workers=True)
