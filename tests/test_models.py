"""The networks: their sizes against published counts and torchvision, their three parts, and what they refuse."""

import subprocess
import sys

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
    "preact_resnet18": (11_171_146, 11.17),
    "preact_resnet34": (21_279_306, 21.28),
    "preact_resnet50": (23_509_066, 23.51),
    "resnet18": (11_173_962, 11.17),
    "resnet34": (21_282_122, 21.28),
    "resnet50": (23_520_842, 23.52),
    "wrn_16_8": (10_961_370, 11.0),
    "wrn_28_10": (36_479_194, 36.5),
    "wide_resnet_101": (124_850_506, 124.85),
    "densenet_121": (6_956_298, 6.96),
    "densenet_bc_190_40": (25_624_430, 25.6),
    "lenet": (62_006, 0.06),
    "quick_resnet": (308_378, 0.31),  # ours, as the next two: published nowhere, added up by hand
    "laptop_resnet": (1_228_074, 1.23),
    "plain_conv": (491_754, 0.49),
}
# One of each kind of part; the last three are families cut down, because their members of full size are slow.
CUT_DOWN = {
    "a bottleneck PreActResNet": models._resnet(models.PreActBlock, (1, 2), (16, 32), stem=8, narrow=4),
    "a bottleneck ResNet": models._resnet(models.PostActBlock, (2, 1), (16, 32), stem=8, narrow=4),
    "a DenseNet": models._densenet((2, 2), growth=4),
}
SMALL = ["lenet", "quick_resnet", *CUT_DOWN]
LINEAR_STEM = ["quick_resnet", "a bottleneck PreActResNet", "a DenseNet"]


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
    if name in CUT_DOWN:
        torch.manual_seed(0)
        net = CUT_DOWN[name](models._Task(7, 3, (16, 16), 1))
    else:
        net = build(name, 7, image_size=16, seed=0)
    update_bn([x], net.double())
    return net.eval().requires_grad_(False), x


def count(net):
    return sum(weight.numel() for weight in net.parameters())


def assert_close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", names())
def test_parameter_count_is_the_published_one(name):
    exact, millions = PUBLISHED[name]
    digits = len(str(millions).split(".")[1])
    assert count(meta(name)) == exact
    assert round(exact / 1e6, digits) == millions


def test_lenet_is_lenet_5_on_grey_images_and_as_wide_as_a_spectrogram_needs():
    assert count(meta("lenet", in_channels=1, image_size=32)) == 61_706  # LeNet-5 with every feature map connected
    assert count(meta("lenet", in_channels=1, image_size=28)) == 44_426  # the same on MNIST without padding
    net = meta("lenet", 30, in_channels=1, image_size=(160, 101))  # odd sizes round down
    assert net.stages[2][1].in_features == 16 * 37 * 22
    assert net(torch.empty(2, 1, 160, 101, device="meta")).shape == (2, 30)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "wide_resnet_101", "densenet_121"])
def test_parameter_count_is_torchvisions_but_for_the_stem(name):
    zoo = pytest.importorskip("torchvision").models
    theirs = {"wide_resnet_101": "wide_resnet101_2", "densenet_121": "densenet121"}.get(name, name)
    with torch.device("meta"):
        reference = getattr(zoo, theirs)(weights=None)  # 1000 classes
    stem = 64 * 3 * (7 * 7 - 3 * 3)  # a 7x7 convolution there, 3x3 here
    norm = 2 * 64 if name == "densenet_121" else 0  # and a BatchNorm, which CIFAR's DenseNet does not have
    assert count(meta(name, 1000)) == count(reference) - stem - norm


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


@pytest.mark.parametrize("c_in, c_out, stride", [(4, 4, 1), (4, 6, 1), (4, 4, 2)])
def test_preact_block_is_the_formula(c_in, c_out, stride):
    block = models.PreActBlock(c_in, c_out, stride, narrow=0).double().eval()
    x = torch.randn(2, c_in, 6, 6, dtype=torch.float64)
    scale = (1 + 1e-5) ** -0.5  # a fresh BatchNorm in evaluation mode: mean 0, variance 1
    a = F.relu(x * scale)
    b = F.relu(F.conv2d(a, block.branch[0].weight, stride=stride, padding=1) * scale)
    shortcut = x if (c_in, stride) == (c_out, 1) else F.conv2d(a, block.shortcut.weight, stride=stride)
    assert_close(block(x), shortcut + F.conv2d(b, block.branch[-1].weight, padding=1))


def multiply_adds(net, pixels):
    with FlopCounterMode(display=False) as counter:
        net(torch.empty(1, 3, pixels, pixels, device="meta"))
    return counter.get_total_flops() / 2


def test_preact_resnet18_takes_0_555_billion_multiply_adds_at_32_pixels_and_as_many_at_64_with_a_stem_of_stride_2():
    assert multiply_adds(meta("preact_resnet18"), 32) == pytest.approx(0.555e9, rel=1e-3)
    assert multiply_adds(meta("preact_resnet18", stem_stride=2), 64) == pytest.approx(0.555e9, rel=1e-3)
    assert multiply_adds(meta("preact_resnet18"), 64) == pytest.approx(4 * 0.555e9, rel=1e-3)


@pytest.mark.parametrize("channels, pixels", [(1, 28), (3, 32), (3, 64), (3, 0)])
@pytest.mark.parametrize("name", names())
def test_every_network_takes_grey_and_colour_at_28_32_64_and_the_fewest_pixels(name, channels, pixels):
    pixels = pixels or (16 if name == "lenet" else 8)
    net = meta(name, 11, in_channels=channels, image_size=pixels)
    x = torch.empty(2, channels, pixels, pixels, device="meta")
    assert net.embed(x).shape == (2, net.head.in_features)
    assert net(x).shape == (2, 11)


def test_stages_of_preact_resnet18_are_the_stem_and_four_groups():
    net, x = meta("preact_resnet18"), torch.empty(2, 3, 32, 32, device="meta")
    shapes = [tuple(net.hidden(x, stage).shape[1:]) for stage in range(len(net.stages) + 1)]
    assert shapes == [(3, 32, 32), (64, 32, 32), (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]


@pytest.mark.parametrize("name", SMALL)
def test_stopping_before_any_stage_and_going_on_is_the_whole_network(name):
    net, x = small(name)
    whole, width = net(x), net.head.in_features
    assert net.embed(x).shape == (6, width)
    assert torch.equal(net.head(net.embed(x)), whole)
    assert_close(net(x[:1]), whole[:1])  # a batch of one is that row of the batch
    assert net.hidden(x, 0) is x
    for stage in range(len(net.stages) + 1):
        h = net.hidden(x, stage)
        before = h.clone()
        assert torch.equal(net(h, start=stage), whole), stage
        assert torch.equal(h, before), f"stage {stage} wrote into what it was given"


def mixed(h):
    """Row i becomes 0.7 h[i] + 0.3 h[i - 1]."""
    return 0.7 * h + 0.3 * h.roll(1, 0)


@pytest.mark.parametrize("name", SMALL)
def test_mixing_what_stage_0_is_given_is_plain_mixup_and_mixing_later_is_not(name):
    net, x = small(name)
    at_input = net(mixed(net.hidden(x, 0)))
    assert torch.equal(at_input, net(mixed(x)))
    for stage in range(1, len(net.stages)):
        same = torch.allclose(net(mixed(net.hidden(x, stage)), start=stage), at_input, atol=1e-3)
        # a stem that is a convolution and nothing else is linear: mixing behind it is mixing in front of it
        assert same == (stage == 1 and name in LINEAR_STEM), stage


@pytest.mark.parametrize("name", SMALL[1:])  # lenet's last stages have no pixels
def test_scores_are_the_mean_of_class_activation_maps(name):
    net, x = small(name)
    maps = torch.einsum("nwij,cw->ncij", net.hidden(x, len(net.stages)), net.head.weight)
    assert_close(maps.mean((2, 3)) + net.head.bias, net(x))


def weights_of(seed):
    return nn.utils.parameters_to_vector(build("quick_resnet", 10, seed=seed).parameters())


def test_a_seed_gives_the_same_weights_whatever_the_global_state():
    first = weights_of(3)
    torch.rand(1)
    assert torch.equal(weights_of(3), first)
    assert torch.equal(weights_of(np.random.default_rng(3)), first)


def test_other_seeds_no_seed_and_a_generator_that_moved_on_give_other_weights():
    rng = np.random.default_rng(3)
    drawn = [weights_of(seed) for seed in (3, 4, None, None)] + [(weights_of(rng), weights_of(rng))[1]]
    assert all(not torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])


@pytest.mark.parametrize("seed", [3, None])
def test_build_leaves_the_global_random_state_alone(seed):
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    build("lenet", 10, seed=seed)
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002


@pytest.mark.parametrize("name", SMALL[1:])  # lenet's last stages have no pixels
def test_channels_last_gives_the_same_scores_and_stays_channels_last(name):
    net, x = small(name)
    expected = net(x)
    net, x = net.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    assert_close(net(x), expected)
    for stage in range(len(net.stages)):
        assert net.hidden(x, stage).is_contiguous(memory_format=torch.channels_last), stage


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_autocast_in_channels_last_follows_the_exact_scores_and_reaches_every_weight(name):
    net, x = small(name)
    exact = net(x)
    net.float().requires_grad_(True).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        scores = net(x.float().contiguous(memory_format=torch.channels_last))
    assert scores.dtype == torch.bfloat16
    assert torch.corrcoef(torch.stack([scores.double().flatten(), exact.flatten()]))[0, 1] > 0.99
    F.cross_entropy(scores.float(), torch.arange(6)).backward()
    assert [key for key, weight in net.named_parameters() if not weight.grad.any()] == []


@pytest.mark.filterwarnings("ignore:Guards may run slower")  # PyTorch's advice on Python 3.13.0
@pytest.mark.parametrize("name", SMALL)
def test_one_graph_holds_the_network_from_the_images_or_from_a_hidden_stage(name):
    net, x = small(name)
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="eager", fullgraph=True)  # fullgraph: an error if Python must step in
    assert torch.equal(compiled(x), net(x))
    assert torch.equal(compiled(net.hidden(x, 1), start=1), net(x))


def test_import_needs_nothing_but_torch_and_numpy():
    heavy = "{'torchvision', 'scipy', 'sklearn', 'matplotlib', 'PIL'}"
    code = f"import sys, mixlab.training.models; assert not (found := {heavy} & set(sys.modules)), found"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="name is 'resnet19'") as error:
        build("resnet19", 10)
    assert all(name in str(error.value) for name in names())


@pytest.mark.parametrize(
    "name, options, sentence",
    [
        ("resnet18", {"num_classes": 0}, "num_classes is 0"),
        ("resnet18", {"num_classes": 2.5}, "num_classes is 2.5"),
        ("resnet18", {"in_channels": 0}, "in_channels is 0"),
        ("resnet18", {"stem_stride": 3}, "stem_stride is 3; it must be 1 or 2"),
        ("lenet", {"stem_stride": 2}, "stem_stride is 2; it must be 1 for lenet"),
        ("lenet", {"image_size": 8}, "image_size is 8; it must be 16 or more"),
        ("densenet_121", {"image_size": 7}, "image_size is 7; it must be 8 or more"),
        ("densenet_121", {"image_size": 15, "stem_stride": 2}, "image_size is 15; it must be 16 or more"),
        ("lenet", {"image_size": (32, 32, 3)}, "image_size is "),
        ("lenet", {"image_size": 28.0}, "image_size is 28.0"),
    ],
)
def test_bad_arguments_are_named(name, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        meta(name, **{"num_classes": 10, **options})


@pytest.mark.parametrize("call", ["hidden", "embed", "forward"])
def test_images_of_another_kind_are_refused(call):
    net = build("lenet", 10, image_size=28)
    run = (lambda x: net.hidden(x, 1)) if call == "hidden" else getattr(net, call)
    with pytest.raises(TypeError, match=r"x is of type torch.uint8"):
        run(torch.zeros(2, 3, 28, 28, dtype=torch.uint8))
    for shape in [(2, 1, 28, 28), (2, 3, 32, 32), (3, 28, 28)]:
        with pytest.raises(ValueError, match=r"x is of shape .*; this network takes \(n, 3, 28, 28\)"):
            run(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"takes \(n, 1, height, width\)"):
        build("quick_resnet", 10, in_channels=1)(torch.zeros(2, 3, 32, 32))


@pytest.mark.parametrize("stage", [-1, 6])
def test_a_stage_that_is_not_there_is_refused(stage):
    net, x = build("quick_resnet", 10), torch.zeros(2, 3, 8, 8)
    with pytest.raises(ValueError, match=f"stage is {stage}; this network has places 0 to 5"):
        net.hidden(x, stage)
    with pytest.raises(ValueError, match=f"start is {stage}; this network has places 0 to 5"):
        net(x, start=stage)
