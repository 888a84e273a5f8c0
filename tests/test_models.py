"""The networks: published sizes, three parts, determinism; big ones on the meta device, which computes nothing."""

import pytest
import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from mixlab.models import build, names

# parameters at 10 classes, colour images of 32 pixels
PUBLISHED = {
    "preact_resnet18": 11_171_146,  # mixup's released network less the 128 of a BatchNorm after the stem
    "resnet18": 11_173_962,
    "wrn_28_10": 36_479_194,  # "36.5M" (Zagoruyko and Komodakis 2016)
    "wrn_16_8": 10_961_370,  # "11.0M"
    "densenet_bc_190_40": 25_624_430,  # "25.6M" (Huang et al. 2017)
    "lenet": 62_006,
}
SMALL = ["lenet", "quick_resnet", "preact_resnet18", "resnet18", "wrn_16_8"]


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def on_meta(name, classes=10, **options):
    with torch.device("meta"):
        return build(name, classes, **options)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_are_the_published_ones(name):
    assert parameters(on_meta(name)) == PUBLISHED[name]


@pytest.mark.parametrize(
    "ours, theirs",
    [
        ("resnet18", "resnet18"),
        ("resnet34", "resnet34"),
        ("resnet50", "resnet50"),
        ("wide_resnet_101", "wide_resnet101_2"),
        ("densenet_121", "densenet121"),
    ],
)
def test_counts_agree_with_torchvision_but_for_the_stem(ours, theirs):
    """torchvision's stem is a 7x7 convolution, ours a 3x3: 49 - 9 weights for each of 3 x 64 pairs of channels."""
    with torch.device("meta"):
        reference = parameters(getattr(torchvision.models, theirs)(num_classes=10))
    extra = (
        2 * 64 if ours == "densenet_121" else 0
    )  # a BatchNorm after torchvision's stem that the paper's CIFAR nets lack
    assert parameters(on_meta(ours)) == reference - 3 * 64 * (49 - 9) - extra


def test_preact_resnet18_takes_0_555_billion_multiplications_at_32_pixels():
    with FlopCounterMode(display=False) as counter:
        on_meta("preact_resnet18")(torch.zeros(1, 3, 32, 32, device="meta"))
    assert counter.get_total_flops() / 2e9 == pytest.approx(0.555, abs=0.002)


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("channels, size", [(3, 32), (1, 28), (3, 64)])
def test_every_network_takes_grey_and_colour_at_three_sizes(name, channels, size):
    net = on_meta(name, 7, in_channels=channels, image_size=size)
    assert net(torch.zeros(2, channels, size, size, device="meta")).shape == (2, 7)


@pytest.mark.parametrize("name", SMALL)
def test_the_three_parts_make_the_whole_and_any_stage_can_be_entered(name):
    net, x = build(name, 5, seed=0).eval(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        whole = net(x)
        assert torch.equal(whole, net.head(net.embed(x))) and net.embed(x).shape == (2, net.head.in_features)
        assert torch.equal(net.hidden(x, 0), x)
        for stage in range(len(net.stages) + 1):
            assert torch.allclose(net(net.hidden(x, stage), start=stage), whole, atol=1e-5)


def test_mixing_at_stage_zero_is_mixing_the_input():
    from mixlab import Pairs

    net, x, plan = build("quick_resnet", 5, seed=0).eval(), torch.randn(4, 3, 32, 32), Pairs([1, 2, 3, 0], 0.3)
    assert torch.equal(net(plan.mix(net.hidden(x, 0)), start=0), net(plan.mix(x)))
    assert not torch.allclose(net(plan.mix(net.hidden(x, 2)), start=2), net(plan.mix(x)), atol=1e-3)


def test_same_seed_same_weights_and_global_state_is_left_alone():
    before = torch.get_rng_state()
    one, two, three = (build("quick_resnet", 10, seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one["stages.0.0.weight"], three["stages.0.0.weight"])


def test_stride_two_at_the_stem_is_a_quarter_of_the_work():
    work = {}
    for stride in (1, 2):
        with FlopCounterMode(display=False) as counter:
            on_meta("preact_resnet18", image_size=64, stem_stride=stride)(torch.zeros(1, 3, 64, 64, device="meta"))
        work[stride] = counter.get_total_flops()
    assert work[1] / work[2] == pytest.approx(4, rel=0.02)


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_learns_in_channels_last_and_bfloat16_too(name):
    net = build(name, 5, seed=0).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        scores = net(torch.randn(4, 3, 32, 32).to(memory_format=torch.channels_last))
    scores.float().logsumexp(1).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters() if p.dim() > 1)


def test_bad_input_is_refused_by_name():
    for arguments, complaint in [
        (("nothing", 10), "name is 'nothing'; it must be one of lenet"),
        (("lenet", 0), "num_classes"),
        (("resnet18", 10, 0), "in_channels"),
        (("resnet18", 10, 3, 4), "image_size"),
        (("resnet18", 10, 3, 32, 3), "stem_stride"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            build(*arguments)
    net = build("lenet", 10, seed=0)
    with pytest.raises(ValueError, match=r"x is of shape \(2, 1, 32, 32\)"):
        net(torch.zeros(2, 1, 32, 32))
    with pytest.raises(TypeError, match="convert the images to floating point first"):
        net(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match="stage is 9"):
        net.hidden(torch.zeros(2, 3, 32, 32), 9)
