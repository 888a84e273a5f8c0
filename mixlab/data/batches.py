"""Batches of a data set that lies whole on the device as uint8: cropped, flipped and normalised there, all at once.

Every crop of every image already exists as a view: `unfold` twice gives windows (n, 2p+1, 2p+1, h, w, channels) of the
padded images without copying anything, and one index into it gathers a batch. Pixels lie with their channels side by
side (channels_last), which is the layout that convolutions are fastest in. Order, offsets and flips of an epoch are
drawn together on the host and sent in one piece, so that no step waits for the host; because NumPy draws them, one
seed gives the same batches on every device.
"""

import numpy as np
import torch
from torch import Tensor

from mixlab.checks import check_choice, check_whole
from mixlab.data.subsets import ranked

PADDING = 4  # black pixels on each side, which crops are cut out of


class Batches:
    """One pass over the set each time it is iterated: x (b, channels, h, w), labels (b,) int64, both on the device.

    images: uint8 (n, channels, h, w). labels: (n,). mean, std: (channels,), on the scale from 0 to 1.
    rng: a numpy Generator or a seed. A generator stays the caller's: its state before an epoch is all it takes to
    repeat that epoch. All of an epoch's draws are made when it begins.
    augment: crop and, with `flip`, mirror every other image. order: "shuffled"; "stratified", classes spread as evenly
    as they go over the batches; both anew every epoch; or "fixed". dtype: of the images that come out.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, batch_size: int, rng, *, mean, std, device="cpu",
        augment: bool = True, flip: bool = True, order: str = "shuffled", dtype: torch.dtype = torch.float32,
    ):  # fmt: skip
        if images.dtype != torch.uint8:
            raise TypeError(f"images must be uint8, pixels from 0 to 255, got {images.dtype}")
        if images.ndim != 4 or labels.shape != images.shape[:1] or not len(images):
            shapes = f"{tuple(images.shape)} and {tuple(labels.shape)}"
            raise ValueError(f"images and labels must have shapes (n, channels, height, width) and (n,), got {shapes}")
        self.batch_size, self.dtype = check_whole("batch_size", batch_size), dtype
        self.order = check_choice("order", order, ("shuffled", "stratified", "fixed"))
        self.padding, self.flip = PADDING * augment, augment and flip
        self.rng = np.random.default_rng(rng)
        self.host_labels, self.labels = labels.cpu().numpy(), labels.to(device, torch.int64)
        self.windows = _windows(images.to(device), self.padding)
        self.scale, self.shift = _affine(mean, std, images.shape[1], self.labels.device)

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self):
        parts = self.draw().split(self.batch_size, dim=1)  # now, not at the first batch: this is no generator itself
        return (self.batch(part) for part in parts)

    def draw(self) -> Tensor:
        """Who comes when, cut where, mirrored or not: int64 (4, n) of row, top, left, flip, on the device."""
        n = len(self.labels)
        drawn = np.zeros((4, n), np.int64)
        drawn[0] = np.arange(n) if self.order == "fixed" else self.rng.permutation(n)
        if self.order == "stratified":
            drawn[0] = _spread(drawn[0], self.host_labels, self.rng)
        if self.padding:
            drawn[1:3] = self.rng.integers(2 * self.padding + 1, size=(2, n))
        if self.flip:
            drawn[3] = self.rng.integers(2, size=n)
        return torch.from_numpy(drawn).to(self.labels.device)

    def batch(self, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """The images and labels that the columns of `draw()` ask for."""
        row, top, left, flip = drawn
        x = self.windows[row, top, left]  # (b, h, w, channels)
        if self.flip:
            both = torch.cat((x, x.flip(2)))  # then pick: on one core a fifth of the time of torch.where
            x = both.index_select(0, flip * len(x) + torch.arange(len(x), device=x.device))
        x = x.permute(0, 3, 1, 2).float().mul_(self.scale).add_(self.shift)
        return x.to(self.dtype), self.labels[row]


def _windows(images: Tensor, padding: int) -> Tensor:
    """Every crop of the padded images, as a view: (n, 2 padding + 1, 2 padding + 1, h, w, channels).

    images: uint8 (n, channels, h, w). [i, top, left] is one crop; only the padded images take memory.
    """
    height, width = images.shape[2:]
    padded = torch.nn.functional.pad(images, [padding] * 4) if padding else images
    crops = padded.permute(0, 2, 3, 1).contiguous().unfold(1, height, 1).unfold(2, width, 1)
    return crops.permute(0, 1, 2, 4, 5, 3)


def _spread(order: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Reorder a permutation so that each class is spread evenly over it.

    Member number r of a class of m gets a random place in [r/m, (r+1)/m). With classes of one size, every run of c
    images then holds each of the c classes once, in random order.
    """
    by_class, r, m = ranked(order, labels)
    return by_class[np.argsort((r + rng.random(len(r))) / m)]


def _affine(mean, std, channels: int, device) -> tuple[Tensor, Tensor]:
    """(x / 255 - mean) / std as x * scale + shift; each (channels, 1, 1) float32."""
    mean, std = (torch.as_tensor(v, dtype=torch.float64).reshape(-1, 1, 1).cpu() for v in (mean, std))
    if len(mean) != channels or len(std) != channels:
        raise ValueError(f"mean and std must have {channels} values, one per channel, got {len(mean)} and {len(std)}")
    if not bool((std > 0).all()):
        raise ValueError(f"std must be positive, got {std.flatten().tolist()}")
    return (1 / (255 * std)).float().to(device), (-mean / std).float().to(device)
