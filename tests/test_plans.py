"""Plans: the arithmetic of a mix, held to the matrix W and to the bugs this field had."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mixlab import Pairs, Split, Weights, one_hot, soft_labels

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
LAYOUTS = ("contiguous", "channels_last", "transposed", "strided", "expanded")
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}


def laid_out(x, layout):
    """The same values in another memory layout."""
    if layout == "channels_last" and x.dim() == 4:
        return x.to(memory_format=torch.channels_last)
    if layout == "transposed" and x.dim() >= 2:
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "strided":
        return torch.stack([x, x], dim=-1)[..., 0]
    if layout == "expanded" and x.dim() >= 2:
        return x[:, :1].expand_as(x)
    return x


@st.composite
def mixes(draw):
    n = draw(st.integers(1, 9))
    shape = (n, *draw(st.lists(st.integers(1, 4), max_size=3)))
    partner = draw(st.lists(st.integers(0, n - 1), min_size=n, max_size=n))
    lam = draw(st.floats(0, 1) | st.lists(st.floats(0, 1), min_size=n, max_size=n))
    x = torch.from_numpy(np.random.default_rng(draw(st.integers(0, 99))).uniform(-1, 1, shape))
    return laid_out(x.to(draw(st.sampled_from(FLOATS))), draw(st.sampled_from(LAYOUTS))), Pairs(partner, lam)


@given(mixes())
def test_gather_and_lerp_equal_the_matrix(mix):
    x, plan = mix
    before = x.clone()
    mixed = plan.mix(x)
    by_matrix = (plan.matrix() @ x.double().reshape(len(x), -1)).reshape(x.shape)
    assert mixed.shape == x.shape and mixed.dtype == x.dtype
    assert torch.allclose(mixed.double(), by_matrix, rtol=0, atol=TOLERANCE[x.dtype])
    assert torch.equal(x, before), "the caller's batch was changed"
    assert mixed.data_ptr() != x.data_ptr()


@given(mixes())
def test_weights_with_the_matrix_of_pairs_mix_alike(mix):
    x, plan = mix
    mixed = Weights(plan.matrix()).mix(x)
    assert mixed.dtype == x.dtype
    assert torch.allclose(mixed.double(), plan.mix(x).double(), rtol=0, atol=2 * TOLERANCE[x.dtype])


@given(mixes())
def test_rows_of_w_and_of_mixed_labels_sum_to_one(mix):
    x, plan = mix
    assert torch.allclose(plan.matrix().sum(1), torch.ones(len(x), dtype=torch.float64))
    y = plan.mix_labels(one_hot(torch.arange(len(x)) % 3, 3))
    assert torch.allclose(y.sum(1), torch.ones(len(x))) and bool((y >= 0).all())


@pytest.mark.parametrize("lam, winner", [(1.0, "own"), (0.0, "partner")])
@pytest.mark.parametrize("per_sample", [False, True])
def test_lam_belongs_to_the_own_sample(lam, winner, per_sample):
    x = torch.randn(5, 3, 2)
    plan = Pairs([1, 2, 3, 4, 0], torch.full((5,), lam) if per_sample else lam)
    assert torch.equal(plan.mix(x), x if winner == "own" else x.roll(-1, 0))


def test_three_quarters_by_hand():
    plan = Pairs(partner=[1, 0], lam=0.75)
    assert plan.mix(torch.tensor([[0.0], [4.0]])).tolist() == [[1.0], [3.0]]
    assert plan.mix_labels(torch.eye(2)).tolist() == [[0.75, 0.25], [0.25, 0.75]]
    assert plan.matrix().tolist() == [[0.75, 0.25], [0.25, 0.75]]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("plan", [Pairs([1, 0, 3, 2], 0.3), Weights(torch.full((4, 4), 0.25))], ids=repr)
def test_memory_layout_is_kept(plan, layout):
    x = torch.randn(4, 3, 6, 5).to(memory_format=layout)
    mixed = plan.mix(x)
    assert mixed.stride() == x.stride()
    assert torch.allclose(mixed, plan.mix(x.contiguous()), atol=1e-6)


def test_half_precision_is_mixed_in_float32_and_rounded_once():
    x = torch.linspace(0, 1, 2000).to(torch.bfloat16)[:, None]
    plan = Pairs(torch.arange(1999, -1, -1), 0.3)
    exact = 0.3 * x.double() + 0.7 * x.double().flip(0)
    assert torch.equal(plan.mix(x), exact.to(torch.float32).to(torch.bfloat16))
    per_sample = Pairs(plan.partner, torch.full((2000,), 0.3))
    assert torch.equal(per_sample.mix(x), plan.mix(x)), "lam was rounded to bfloat16"


def test_gradients_are_those_of_a_linear_map():
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    for plan in (Pairs([2, 2, 0, 3], 0.3), Pairs([1, 0, 0, 1], [0.1, 0.5, 0.9, 1.0])):
        assert torch.autograd.gradcheck(plan.mix, x)
        assert torch.autograd.gradcheck(Weights(plan.matrix()).mix, x)


BOTH = pytest.mark.parametrize("plan", [Pairs([1, 0], 0.5), Weights(torch.eye(2))], ids=repr)
NAN = float("nan")


@pytest.mark.parametrize("lam", [0.3, np.float64(0.3), np.array([0.3]), torch.tensor([0.3], dtype=torch.float64)])
def test_lam_is_kept_to_the_last_digit(lam):
    assert Pairs([0], lam).lam == 0.3


@BOTH
def test_autocast_narrows_neither_inputs_nor_labels(plan):
    x = torch.rand(2, 40)
    expected = plan.mix(x), plan.mix_labels(torch.eye(2))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(plan.mix(x), expected[0]) and torch.equal(plan.mix_labels(torch.eye(2)), expected[1])


def test_split_does_one_thing_to_inputs_and_another_to_labels():
    inputs, labels, x = Pairs([1, 0], 0.5), Pairs([1, 0], 0.9), torch.rand(2, 3)
    for plan in (Split(inputs, labels), Split(inputs, Split(None, labels))):
        assert torch.equal(plan.mix(x), inputs.mix(x)) and len(plan) == 2
        assert torch.equal(plan.mix_labels(torch.eye(2)), labels.mix_labels(torch.eye(2)))
        assert torch.equal(plan.matrix(), labels.matrix()) and torch.equal(plan.partner, labels.partner)
        assert plan.to("meta").partner.device.type == "meta" and plan.partner.device.type == "cpu"


@BOTH
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_integer_images_are_refused_with_advice(plan, dtype):
    with pytest.raises(TypeError, match="convert to float first"):
        plan.mix(torch.zeros(2, 3, dtype=dtype))


@pytest.mark.parametrize("partner", [[0, 2], [0, -1], [], [0.0, 1.0], [True, False], [[0, 1]], 0], ids=str)
def test_a_bad_partner_is_named(partner):
    with pytest.raises(ValueError, match=r"^partner must"):
        Pairs(partner, 0.5)


@pytest.mark.parametrize("lam", [1.5, -0.1, 2, NAN, [0.5, NAN], [0.5, 1.1], [0.5] * 3, [[0.5, 0.5]]], ids=str)
def test_a_bad_lam_is_named(lam):
    with pytest.raises(ValueError, match=r"^lam must"):
        Pairs([0, 1], lam)


@pytest.mark.parametrize(
    "matrix",
    [
        torch.ones(2, 3) / 3,
        torch.zeros(0, 0),
        torch.eye(2, dtype=torch.int64),
        torch.full((2, 2), 0.4),
        torch.full((2, 2), NAN),
        torch.tensor([[1.5, -0.5], [0.0, 1.0]]),
    ],
)
def test_a_bad_matrix_is_named(matrix):
    with pytest.raises(ValueError, match="matrix"):
        Weights(matrix)


@BOTH
@pytest.mark.parametrize(
    "y", [[[0.5, 0.4], [1.0, 0.0]], [[1.5, -0.5], [1.0, 0.0]], [[NAN, 0.0], [1.0, 0.0]], [0, 1], [[1.0]]], ids=str
)
def test_bad_labels_are_named(plan, y):
    with pytest.raises(ValueError, match=r"\by\b"):
        plan.mix_labels(torch.tensor(y))


@pytest.mark.parametrize("shape", [(3, 2), (1, 2), ()])
def test_inputs_of_another_length_are_refused(shape):
    with pytest.raises(ValueError, match="x has shape"):
        Pairs([1, 0], 0.5).mix(torch.zeros(shape))


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0], [0.0, 1.0], [True, False]], ids=str)
def test_class_indices_that_are_none_are_named(labels):
    with pytest.raises(ValueError, match=r"^labels must"):
        one_hot(torch.tensor(labels), 3)


def test_soft_labels_pass_through_and_indices_become_rows():
    assert soft_labels(torch.tensor([1, 0]), 2).tolist() == [[0.0, 1.0], [1.0, 0.0]]
    rows = torch.tensor([[0.25, 0.75]])
    assert soft_labels(rows, 2) is rows
    with pytest.raises(ValueError, match="labels have 2"):
        soft_labels(rows, 3)


def test_on_another_device_no_value_is_looked_at():
    """On the meta device any look at a value raises, as a look at one on a GPU would wait."""
    x, lam = torch.zeros(2, 3, device="meta"), torch.tensor([0.2, 0.7])
    there = Pairs(torch.tensor([1, 0], device="meta"), lam.to("meta"))
    for plan in (there, Pairs([1, 0], lam).to("meta"), Weights(torch.eye(2)).to("meta")):
        assert plan.mix(x).device.type == "meta" and plan.mix_labels(x).shape == (2, 3)
