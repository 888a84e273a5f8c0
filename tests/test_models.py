"""The networks: their sizes against published counts and torchvision, their three parts, and what they refuse."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn
from torch.utils.flop_counter import FlopCounterMode

from mixlab.training import models
from mixlab.training.models import build, names

# Parameters with 10 classes and colour images, and the size as it is published, in millions.
PUBLISHED = {
    "preact_resnet18": (11_171_146, "11.17"),
    "resnet18": (11_173_962, "11.17"),
    "resnet34": (21_282_122, "21.28"),
    "resnet50": (23_520_842, "23.52"),
    "wrn_16_8": (10_961_370, "11.0"),
    "wrn_28_10": (36_479_194, "36.5"),
    "wide_resnet_101": (124_850_506, "124.85"),
    "densenet_121": (6_956_298, "6.96"),
    "densenet_bc_190_40": (25_624_430, "25.6"),
    "lenet": (62_006, "0.06"),
    "quick_resnet": (308_378, "0.31"),  # ours, as the next two: published nowhere, added up by hand
    "laptop_resnet": (1_228_074, "1.23"),
    "plain_conv": (491_754, "0.49"),
}
# One of each kind of part; the last two are families cut down, because their members of full size are slow.
CUT_DOWN = {
    "a bottleneck ResNet": lambda: models._resnet(7, 3, 1, (1, 1, 1, 1), narrow=32),
    "a DenseNet": lambda: models._densenet(7, 3, 1, (2, 2), growth=4),
}
KINDS = ["lenet", "quick_resnet", *CUT_DOWN]
LINEAR_STEM = ["quick_resnet", "a DenseNet"]


def meta(name, num_classes=10, **options):
    """The network without memory for its weights: shapes and counts only."""
    with torch.device("meta"):
        return build(name, num_classes, **options)


def small(name):
    """The network for 3 x 16 x 16 images in evaluation mode and six such images, all in float64: deep networks that
    nobody trained turn the rounding of float32 into differences that could hide a mistake.

    The BatchNorms know the images' statistics: with those of a fresh network every score is all but the head's bias.
    """
    x = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.manual_seed(0)
    net = CUT_DOWN[name]() if name in CUT_DOWN else build(name, 7, image_size=16, seed=0)
    update_bn([x], net.double())
    return net.eval().requires_grad_(False), x


def count(net):
    return sum(weight.numel() for weight in net.parameters())


def assert_close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_parameter_counts_are_the_published_ones():
    assert {name: count(meta(name)) for name in names()} == {name: exact for name, (exact, _) in PUBLISHED.items()}
    for exact, millions in PUBLISHED.values():
        assert f"{exact / 1e6:.{len(millions.split('.')[1])}f}" == millions
    assert count(meta("lenet", in_channels=1, image_size=32)) == 61_706  # LeNet-5 with every feature map connected
    assert meta("lenet", in_channels=1, image_size=(160, 101)).stages[2][1].in_features == 16 * 37 * 22  # rounds down


def test_parameter_counts_are_torchvisions_but_for_the_stem():
    zoo = pytest.importorskip("torchvision").models
    theirs = {"resnet18": "resnet18", "resnet34": "resnet34", "resnet50": "resnet50"}
    for name, other in (theirs | {"wide_resnet_101": "wide_resnet101_2", "densenet_121": "densenet121"}).items():
        with torch.device("meta"):
            reference = getattr(zoo, other)(weights=None)  # 1000 classes
        stem = 64 * 3 * (7 * 7 - 3 * 3)  # a 7x7 convolution there, 3x3 here
        norm = 2 * 64 if name == "densenet_121" else 0  # and a BatchNorm, which CIFAR's DenseNet does not have
        assert count(meta(name, 1000)) == count(reference) - stem - norm, name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "densenet_121"])
def test_with_the_same_weights_a_network_computes_what_torchvisions_does(name):
    zoo = pytest.importorskip("torchvision").models
    net, x = small(name)
    reference = getattr(zoo, name.replace("_", ""))(weights=None, num_classes=7)
    if name == "densenet_121":
        del reference.features.norm0, reference.features.relu0, reference.features.pool0
        reference.features.conv0 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    else:
        reference.conv1, reference.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    # both hold their weights in the order of the computation, so one's fit the other's in order
    weights, theirs = net.state_dict(), reference.state_dict()
    reference.double().load_state_dict(dict(zip(theirs, weights.values(), strict=True)))
    assert_close(net(x), reference.eval()(x))


@pytest.mark.parametrize("c_out, stride", [(4, 1), (6, 2)])
def test_preact_block_is_the_formula(c_out, stride):
    block = models.PreActBlock(4, c_out, stride).double().eval()
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    scale = (1 + 1e-5) ** -0.5  # a fresh BatchNorm in evaluation mode: mean 0, variance 1
    a = F.relu(x * scale)
    b = F.relu(F.conv2d(a, block.branch[0].weight, stride=stride, padding=1) * scale)
    shortcut = x if stride == 1 else F.conv2d(a, block.shortcut.weight, stride=stride)
    assert_close(block(x), shortcut + F.conv2d(b, block.branch[-1].weight, padding=1))


def test_preact_resnet18_halves_in_three_groups_and_at_the_stem_if_told():
    net, x = meta("preact_resnet18"), torch.empty(2, 3, 32, 32, device="meta")
    shapes = [tuple(net.hidden(x, stage).shape[1:]) for stage in range(len(net.stages) + 1)]
    assert shapes == [(3, 32, 32), (64, 32, 32), (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]
    for stride, pixels, billions in ((1, 32, 0.555), (2, 64, 0.555), (1, 64, 4 * 0.555)):
        with FlopCounterMode(display=False) as counter:
            meta("preact_resnet18", stem_stride=stride)(torch.empty(1, 3, pixels, pixels, device="meta"))
        assert counter.get_total_flops() / 2 == pytest.approx(billions * 1e9, rel=1e-3)


def test_every_network_takes_colour_of_64_pixels_and_grey_of_the_fewest():
    for name in names():
        for channels, pixels in ((3, 64), (1, 16 if name == "lenet" else 8)):
            net = meta(name, 11, in_channels=channels, image_size=pixels)
            assert net(torch.empty(2, channels, pixels, pixels, device="meta")).shape == (2, 11), name


def mixed(h):
    """Row i becomes 0.7 h[i] + 0.3 h[i - 1]."""
    return 0.7 * h + 0.3 * h.roll(1, 0)


@pytest.mark.parametrize("name", KINDS)
def test_stopping_before_any_stage_and_going_on_is_the_whole_network(name):
    net, x = small(name)
    whole, places = net(x), len(net.stages)
    assert torch.equal(net.head(net.embed(x)), whole) and net.hidden(x, 0) is x
    assert_close(net(x[:1]), whole[:1])  # a batch of one is that row of the batch
    at_input = net(mixed(x))
    for stage in range(places + 1):
        h = net.hidden(x, stage)
        before = h.clone()
        assert torch.equal(net(h, start=stage), whole), stage
        assert torch.equal(h, before), f"stage {stage} wrote into what it was given"
        if stage < places:  # a stem that is a convolution and nothing else is linear: mixing behind it is mixing x
            same = torch.allclose(net(mixed(h), start=stage), at_input, atol=1e-3)
            assert same == (stage == 0 or (stage == 1 and name in LINEAR_STEM)), stage
    if name != "lenet":  # whose last stages have no pixels: elsewhere scores are the mean of class activation maps
        maps = torch.einsum("nwij,cw->ncij", net.hidden(x, places), net.head.weight)
        assert_close(maps.mean((2, 3)) + net.head.bias, whole)


@pytest.mark.parametrize("name", KINDS)
def test_channels_last_and_bfloat16_follow_the_exact_scores_and_reach_every_weight(name):
    net, x = small(name)
    exact = net(x)
    net, x = net.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    assert_close(net(x), exact)
    for stage in range(len(net.stages)):
        h = net.hidden(x, stage)
        assert h.dim() == 2 or h.is_contiguous(memory_format=torch.channels_last), stage
    net.float().requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16):
        scores = net(x.float())
    assert scores.dtype == torch.bfloat16
    assert torch.corrcoef(torch.stack([scores.double().flatten(), exact.flatten()]))[0, 1] > 0.99
    F.cross_entropy(scores.float(), torch.arange(6)).backward()
    assert [key for key, weight in net.named_parameters() if not weight.grad.any()] == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Guards may run slower")  # PyTorch's advice on Python 3.13.0
def test_one_graph_holds_the_network_from_the_images_or_from_a_hidden_stage():
    net, x = small("quick_resnet")
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="eager", fullgraph=True)  # fullgraph: an error if Python must step in
    assert torch.equal(compiled(x), net(x))
    assert torch.equal(compiled(net.hidden(x, 1), start=1), net(x))


def test_a_seed_gives_its_weights_and_the_global_state_is_neither_read_nor_moved():
    def weights(seed):
        return nn.utils.parameters_to_vector(build("lenet", 10, seed=seed).parameters())

    rng, before = np.random.default_rng(3), torch.get_rng_state()
    drawn = [weights(seed) for seed in (3, 4, None, None)]
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    assert torch.equal(weights(3), drawn[0]) and torch.equal(weights(rng), drawn[0])
    drawn.append(weights(rng))  # which has moved on
    assert all(not torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])


def test_bad_arguments_are_named():
    for name, argument, value in [
        ("resnet19", "name", None),
        ("resnet18", "num_classes", 0),
        ("resnet18", "in_channels", 2.5),
        ("resnet18", "stem_stride", 3),
        ("lenet", "stem_stride", 2),
        ("lenet", "image_size", 15),
        ("densenet_121", "image_size", 7),
        ("lenet", "image_size", (32, 32, 3)),
        ("lenet", "image_size", 28.0),
    ]:
        with pytest.raises(ValueError, match=argument):
            meta(name, **{"num_classes": 10, **({argument: value} if argument != "name" else {})})
    with pytest.raises(ValueError, match="image_size"):
        meta("densenet_121", image_size=15, stem_stride=2)


def test_images_of_another_kind_and_stages_that_are_not_there_are_refused():
    net, other = build("lenet", 10, image_size=28), build("quick_resnet", 10, in_channels=1)
    for run in (net, net.embed, lambda x: net.hidden(x, 1)):
        with pytest.raises(TypeError, match="x is"):
            run(torch.zeros(2, 3, 28, 28, dtype=torch.uint8))
        for shape in [(2, 1, 28, 28), (2, 3, 32, 32), (3, 28, 28)]:
            with pytest.raises(ValueError, match=r"\(n, 3, 28, 28\)"):
                run(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"\(n, 1, height, width\)"):
        other(torch.zeros(2, 3, 32, 32))
    for stage in (-1, 6):
        with pytest.raises(ValueError, match="stage"):
            other.hidden(torch.zeros(2, 1, 8, 8), stage)
        with pytest.raises(ValueError, match="start"):
            other(torch.zeros(2, 1, 8, 8), start=stage)
