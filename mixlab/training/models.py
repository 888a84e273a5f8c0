"""The networks of the five papers, and small ones for a laptop: `build(name, num_classes)`.

Every network is the same three parts, so that a method can reach into any of them:

    net.stages    nn.ModuleList; stage 0 takes the images, the output of each is a place where features may be mixed
    net.embed(x)  images -> (n, width): all stages, then the mean over pixels
    net.head      nn.Linear(width, num_classes)

`net(x)` is `net.head(net.embed(x))`. To mix hidden features, stop before a stage and go on from it:

    h = net.hidden(x, 2)             # what stage 2 is given (stage 0 is given x itself)
    scores = net(plan.mix(h), start=2)

Where the stem is a lone convolution (PreActResNets, WRNs, DenseNets) it is linear, so mixing what stage 1 is given is
mixing the images: the first place of its own is 2.

Details that the papers leave to their code, and what is built here:
- The stem is a 3x3 convolution without pooling. Images of 64 pixels end as larger feature maps and the mean takes care
  of them; `stem_stride=2` halves them at the stem instead, at a quarter of the cost. Tiny-ImageNet is run both ways.
- The PreActResNets have no BatchNorm-ReLU after the stem nor, unlike He et al. (2016), after the last block, and add x
  itself where shapes agree: so does PuzzleMix's released code. That of mixup and k-mixup differs twice: BatchNorm-ReLU
  after the stem (128 parameters more), and the shortcut adds relu(BN(x)) even where x would fit. The WRNs do end in
  BatchNorm-ReLU.
- Weights start as PyTorch draws them by default, in every network: so does the released code of mixup, k-mixup,
  PuzzleMix and Infinite Class Mixup, and their learning rates go with it. He's normal distribution is about 2.4 times
  wider, which BatchNorm hides from the output but not from the size of a step.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mixlab.checks import check_choice, check_whole, check_wholes


def build(
    name: str,
    num_classes: int,
    in_channels: int = 3,
    image_size: int | tuple[int, int] = 32,
    stem_stride: int = 1,
    seed: int | np.random.Generator | None = None,
) -> "Network":
    """The network called name (see `names()`), with fresh weights.

    image_size    pixels, one number or (height, width); only lenet depends on it, the others then take any size
    stem_stride   1, or 2 to halve the images at the first convolution (64-pixel images); not for lenet
    seed          whole number or NumPy generator: same seed, same weights. None draws different ones every time.
                  PyTorch's global random state is neither read nor moved.
    """
    family, options = NETWORKS[check_choice("name", name, NETWORKS)]
    if stem_stride not in (1, 2) or (name, stem_stride) == ("lenet", 2):
        raise ValueError(f"stem_stride must be 1{' or 2' * (name != 'lenet')} for {name}, not {stem_stride}")
    size = check_wholes("image_size", image_size, least=16 if name == "lenet" else 8 * stem_stride)
    if len(size) > 2:
        raise ValueError(f"image_size must be pixels, or (height, width), not {image_size!r}")
    shape = {"size": (size[0], size[-1])} if name == "lenet" else {"stride": stem_stride}
    check_whole("num_classes", num_classes)
    drawn = int(np.random.default_rng(seed).integers(2**63))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(drawn)  # torch.manual_seed would also reseed the GPUs
        return family(num_classes, check_whole("in_channels", in_channels), **shape, **options)


def names() -> list[str]:
    """The names that `build` knows, the small ones first."""
    return list(NETWORKS)


class Network(nn.Module):
    """Stages, the mean over pixels, a linear head.

    images = (channels, size): what stage 0 takes, checked on every call; size None = any.
    """

    def __init__(self, stages: list[nn.Module], width: int, num_classes: int, images: tuple[int, tuple | None]):
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.head = nn.Linear(width, num_classes)
        self.images = images

    def hidden(self, x: Tensor, stage: int, start: int = 0) -> Tensor:
        """x (n, channels, height, width) -> what that stage is given: x itself for 0, the last for len(stages).

        start > 0: x is what that stage is given, `hidden(images, start)`.
        """
        for argument, place in (("stage", stage), ("start", start)):
            if not 0 <= place <= len(self.stages):
                raise ValueError(f"{argument} must lie in 0..{len(self.stages)}, the network's places, not {place}")
        if start == 0:
            self._check_images(x)
        for layer in list(self.stages)[start:stage]:
            x = layer(x)
        return x

    def embed(self, x: Tensor, start: int = 0) -> Tensor:
        """Images, or from start > 0 on the features `hidden(images, start)` -> (n, width)."""
        h = self.hidden(x, len(self.stages), start)
        return h.mean((2, 3)) if h.dim() == 4 else h  # lenet's last stages have no pixels left

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """Images, or from start > 0 on the features `hidden(images, start)` -> scores (n, c)."""
        return self.head(self.embed(x, start))

    def _check_images(self, x: Tensor) -> None:
        if not x.is_floating_point():
            raise TypeError(f"x is {x.dtype}: convert the images to floating point first, x.float() / 255")
        channels, size = self.images
        if x.dim() != 4 or x.shape[1] != channels or (size and tuple(x.shape[2:]) != size):
            pixels = f"{size[0]}, {size[1]}" if size else "height, width"
            raise ValueError(f"x must have shape (n, {channels}, {pixels}) for this network, not {tuple(x.shape)}")


# --- parts -----------------------------------------------------------------------------------------------------------


def _conv(c_in: int, c_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Keeps the size at stride 1; without bias, because a BatchNorm that follows would take it out again."""
    return nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False)


def _norm_relu(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


class PostActBlock(nn.Module):
    """He et al. 2015: x -> relu(shortcut(x) + branch(x)), branch = conv-BN-ReLU-…-conv-BN.

    Two convolutions of 3x3; or (narrow > 0) a bottleneck of 1x1, 3x3 and 1x1 with c_out // narrow channels inside.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, narrow: int = 0):
        super().__init__()
        if narrow:
            inner = c_out // narrow
            convs = [_conv(c_in, inner, 1), _conv(inner, inner, 3, stride), _conv(inner, c_out, 1)]
        else:
            convs = [_conv(c_in, c_out, 3, stride), _conv(c_out, c_out, 3)]
        layers = [layer for conv in convs for layer in (conv, *_norm_relu(conv.out_channels))]
        self.branch = nn.Sequential(*layers[:-1])  # the last ReLU comes after the sum
        self.shortcut = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(_conv(c_in, c_out, 1, stride), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        return (self.branch(x) + self.shortcut(x)).relu_()


class PreActBlock(nn.Module):
    """He et al. 2016: x -> x + branch(a) with a = relu(BN(x)), branch = conv-BN-ReLU-conv.

    Where the shape changes, a 1x1 convolution of a stands in for x.
    """

    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.activate = nn.Sequential(*_norm_relu(c_in))
        self.branch = nn.Sequential(_conv(c_in, c_out, 3, stride), *_norm_relu(c_out), _conv(c_out, c_out, 3))
        self.shortcut = _conv(c_in, c_out, 1, stride) if stride != 1 or c_in != c_out else None

    def forward(self, x: Tensor) -> Tensor:
        a = self.activate(x)
        return self.branch(a) + (x if self.shortcut is None else self.shortcut(a))


class DenseLayer(nn.Module):
    """Huang et al. 2017: x -> x with growth new channels, made through a bottleneck of 4 * growth."""

    def __init__(self, c_in: int, growth: int):
        super().__init__()
        wide = 4 * growth
        self.new = nn.Sequential(*_norm_relu(c_in), _conv(c_in, wide, 1), *_norm_relu(wide), _conv(wide, growth, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.new(x)], 1)


# --- families --------------------------------------------------------------------------------------------------------


def _preact(classes: int, channels: int, stride: int, depths: tuple, widths: tuple, stem: int = 64) -> Network:
    """The stem, then one stage per group of blocks, and BatchNorm-ReLU after the last block if the stem is narrow."""
    stages = [nn.Sequential(_conv(channels, stem, 3, stride)), *_groups(PreActBlock, stem, depths, widths)]
    if stem < 64:
        stages[-1].extend(_norm_relu(widths[-1]))
    return Network(stages, widths[-1], classes, (channels, None))


def _resnet(classes: int, channels: int, stride: int, depths: tuple, narrow: int = 0) -> Network:
    """The stem with BatchNorm-ReLU, then four groups of blocks; narrow: see PostActBlock."""
    widths = (256, 512, 1024, 2048) if narrow else (64, 128, 256, 512)
    stem = nn.Sequential(_conv(channels, 64, 3, stride), *_norm_relu(64))
    return Network([stem, *_groups(PostActBlock, 64, depths, widths, narrow)], widths[-1], classes, (channels, None))


def _groups(block: type, c_in: int, depths: tuple, widths: tuple, *how) -> list[nn.Module]:
    """Groups of blocks; the first block of each halves the image, except in the first group."""
    groups = []
    for group, (depth, c_out) in enumerate(zip(depths, widths, strict=True)):
        rest = [block(c_out, c_out, 1, *how) for _ in range(depth - 1)]
        groups.append(nn.Sequential(block(c_in, c_out, 1 if group == 0 else 2, *how), *rest))
        c_in = c_out
    return groups


def _densenet(classes: int, channels: int, stride: int, depths: tuple, growth: int) -> Network:
    """DenseNet-BC: the stem, then one stage per block; between blocks channels and image are halved, and
    BatchNorm-ReLU ends the last stage."""
    c = 2 * growth
    stages = [nn.Sequential(_conv(channels, c, 3, stride))]
    for block, depth in enumerate(depths):
        halve = [] if block == 0 else [*_norm_relu(c), _conv(c, c // 2, 1), nn.AvgPool2d(2)]
        c = c if block == 0 else c // 2
        stages.append(nn.Sequential(*halve, *(DenseLayer(c + i * growth, growth) for i in range(depth))))
        c += depth * growth
    stages[-1].extend(_norm_relu(c))
    return Network(stages, c, classes, (channels, None))


def _lenet(classes: int, channels: int, size: tuple[int, int]) -> Network:
    """LeNet-5 (LeCun et al. 1998) as it is written today: ReLU, max pooling, no padding; 5x5 convolutions of 6 and 16
    channels, then 120 and 84 units. The first linear layer is as wide as the images leave it."""
    height, width = ((((side - 4) // 2) - 4) // 2 for side in size)
    stages = [
        nn.Sequential(nn.Conv2d(channels, 6, 5), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(6, 16, 5), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        nn.Sequential(nn.Flatten(), nn.Linear(16 * height * width, 120), nn.ReLU(inplace=True)),
        nn.Sequential(nn.Linear(120, 84), nn.ReLU(inplace=True)),
    ]
    return Network(stages, 84, classes, (channels, size))


def _plain_conv(classes: int, channels: int, stride: int) -> Network:
    """Six 3x3 convolutions without shortcuts, pooled early: after the first of every pair, so that most of the work is
    done on small maps. What a laptop's processor multiplies fastest."""
    stages, c_in = [], channels
    for c_out, step in ((32, stride), (128, 1), (128, 1)):
        first = [_conv(c_in, c_out, 3, step), nn.MaxPool2d(2), *_norm_relu(c_out)]
        stages.append(nn.Sequential(*first, _conv(c_out, c_out, 3), *_norm_relu(c_out)))
        c_in = c_out
    return Network(stages, c_in, classes, (channels, None))


NETWORKS: dict[str, tuple[Any, dict]] = {
    "lenet": (_lenet, {}),
    # a quarter of preact_resnet18's width and half its depth, with a last BatchNorm-ReLU: without it ten epochs on
    # 5,000 CIFAR-10 images (JPEG copies) ended at a test error of 41.2% instead of 38.7% (means of three seeds)
    "quick_resnet": (_preact, {"depths": (1, 1, 1, 1), "widths": (16, 32, 64, 128), "stem": 16}),
    "laptop_resnet": (_preact, {"depths": (1, 1, 1, 1), "widths": (32, 64, 128, 256), "stem": 32}),  # twice as wide
    "plain_conv": (_plain_conv, {}),
    "preact_resnet18": (_preact, {"depths": (2, 2, 2, 2), "widths": (64, 128, 256, 512)}),
    "resnet18": (_resnet, {"depths": (2, 2, 2, 2)}),
    "resnet34": (_resnet, {"depths": (3, 4, 6, 3)}),
    "resnet50": (_resnet, {"depths": (3, 4, 6, 3), "narrow": 4}),
    "wrn_16_8": (_preact, {"depths": (2, 2, 2), "widths": (128, 256, 512), "stem": 16}),
    "wrn_28_10": (_preact, {"depths": (4, 4, 4), "widths": (160, 320, 640), "stem": 16}),
    "wide_resnet_101": (_resnet, {"depths": (3, 4, 23, 3), "narrow": 2}),
    "densenet_121": (_densenet, {"depths": (6, 12, 24, 16), "growth": 32}),
    "densenet_bc_190_40": (_densenet, {"depths": (31, 31, 31), "growth": 40}),
}
