"""Plans: the arithmetic of a mix, held to the matrix W and to the bugs this field had."""

import numpy as np
import pytest
import torch
from examples import refuses
from hypothesis import given
from hypothesis import strategies as st

from mixlab import Pairs, Split, Weights, one_hot, soft_labels

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}
LAYOUTS = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.to(memory_format=torch.channels_last) if x.dim() == 4 else x,
    "transposed": lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
    "strided": lambda x: torch.stack([x, x], dim=-1)[..., 0],
    "expanded": lambda x: x[:, :1].expand_as(x) if x.dim() > 1 else x,
}
BOTH = [Pairs([1, 0], 0.5), Weights(torch.eye(2))]
NAN = float("nan")


@st.composite
def mixes(draw):
    n = draw(st.integers(1, 9))
    shape = (n, *draw(st.lists(st.integers(1, 4), max_size=3)))
    partner = draw(st.lists(st.integers(0, n - 1), min_size=n, max_size=n))
    lam = draw(st.floats(0, 1) | st.lists(st.floats(0, 1), min_size=n, max_size=n))
    x = torch.from_numpy(np.random.default_rng(draw(st.integers(0, 99))).uniform(-1, 1, shape))
    return LAYOUTS[draw(st.sampled_from(list(LAYOUTS)))](x.to(draw(st.sampled_from(list(TOLERANCE))))), Pairs(
        partner, lam
    )


@given(mixes())
def test_pairs_and_weights_mix_as_the_matrix_says_and_leave_the_batch_alone(mix):
    x, pairs = mix
    before, W = x.clone(), pairs.matrix()
    by_matrix = (W @ x.double().reshape(len(x), -1)).reshape(x.shape)
    for plan in (pairs, Weights(W)):
        mixed = plan.mix(x)
        assert mixed.dtype == x.dtype and mixed.data_ptr() != x.data_ptr()
        assert torch.allclose(mixed.double(), by_matrix, rtol=0, atol=TOLERANCE[x.dtype])
        assert torch.equal(x, before), "the caller's batch was changed"
        y = plan.mix_labels(one_hot(torch.arange(len(x)) % 3, 3))
        assert torch.allclose(y.sum(1), torch.ones(len(x))) and bool((y >= 0).all())
    assert torch.allclose(W.sum(1), torch.ones(len(x), dtype=torch.float64))


def test_lam_belongs_to_the_own_sample():
    for lam in (0.75, [0.75, 0.75]):
        plan = Pairs(partner=[1, 0], lam=lam)
        assert plan.mix(torch.tensor([[0.0], [4.0]])).tolist() == [[1.0], [3.0]]
        assert plan.mix_labels(torch.eye(2)).tolist() == plan.matrix().tolist() == [[0.75, 0.25], [0.25, 0.75]]


def test_memory_layout_is_kept():
    x = torch.randn(4, 3, 6, 5).to(memory_format=torch.channels_last)
    for plan in (Pairs([1, 0, 3, 2], 0.3), Weights(torch.full((4, 4), 0.25))):
        assert plan.mix(x).stride() == x.stride() and plan.mix(x.contiguous()).is_contiguous()


def test_half_precision_is_mixed_in_float32_and_rounded_once():
    x = torch.linspace(0, 1, 2000).to(torch.bfloat16)[:, None]
    plan = Pairs(torch.arange(1999, -1, -1), 0.3)
    exact = 0.3 * x.double() + 0.7 * x.double().flip(0)
    assert torch.equal(plan.mix(x), exact.to(torch.float32).to(torch.bfloat16))
    per_sample = Pairs(plan.partner, torch.full((2000,), 0.3))
    assert torch.equal(per_sample.mix(x), plan.mix(x)), "lam was rounded to bfloat16"


def test_lam_is_kept_to_the_last_digit():
    for lam in (0.3, np.float64(0.3), np.array([0.3]), torch.tensor([0.3], dtype=torch.float64)):
        assert Pairs([0], lam).lam == 0.3


def test_gradients_are_those_of_a_linear_map():
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    for plan in (Pairs([2, 2, 0, 3], 0.3), Pairs([1, 0, 0, 1], [0.1, 0.5, 0.9, 1.0])):
        assert torch.autograd.gradcheck(plan.mix, x)
        assert torch.autograd.gradcheck(Weights(plan.matrix()).mix, x)


def test_autocast_narrows_neither_inputs_nor_labels():
    x, y = torch.rand(2, 40), torch.eye(2)
    for plan in BOTH:
        expected = plan.mix(x), plan.mix_labels(y)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(plan.mix(x), expected[0]) and torch.equal(plan.mix_labels(y), expected[1])


def test_split_does_one_thing_to_inputs_and_another_to_labels():
    inputs, labels, x = Pairs([1, 0], 0.5), Pairs([1, 0], 0.9), torch.rand(2, 3)
    for plan in (Split(inputs, labels), Split(inputs, Split(None, labels))):
        assert torch.equal(plan.mix(x), inputs.mix(x)) and len(plan) == 2
        assert torch.equal(plan.mix_labels(torch.eye(2)), labels.mix_labels(torch.eye(2)))
        assert torch.equal(plan.matrix(), labels.matrix()) and torch.equal(plan.partner, labels.partner)
        assert plan.to("meta").partner.device.type == "meta" and plan.partner.device.type == "cpu"


def test_a_copy_to_the_cpu_is_waited_for():
    """Without waiting, what comes from a GPU could be read before it is there."""

    class Part:
        def to(self, device, non_blocking):
            return non_blocking

    plan = Split(Part(), Pairs([0], 1.0))
    assert plan.to("meta").inputs and not plan.to("cpu").inputs


def test_on_another_device_no_value_is_looked_at():
    """On the meta device any look at a value raises, as a look at one on a GPU would wait."""
    x, lam = torch.zeros(2, 3, device="meta"), torch.tensor([0.2, 0.7])
    there = Pairs(torch.tensor([1, 0], device="meta"), lam.to("meta"))
    for plan in (there, Pairs([1, 0], lam).to("meta"), Weights(torch.eye(2)).to("meta")):
        assert plan.mix(x).device.type == "meta" and plan.mix_labels(x).shape == (2, 3)


def test_soft_labels_pass_through_and_indices_become_rows():
    rows = torch.tensor([[0.25, 0.75]])
    assert soft_labels(torch.tensor([1, 0]), 2).tolist() == [[0.0, 1.0], [1.0, 0.0]] and soft_labels(rows, 2) is rows
    refuses(lambda classes: soft_labels(rows, classes), "labels", 3)


WRONG = {
    "partner": [[0, 2], [0, -1], [], [0.0, 1.0], [True, False], [[0, 1]], 0],
    "lam": [1.5, -0.1, 2, NAN, [0.5, NAN], [0.5, 1.1], [0.5] * 3, [[0.5, 0.5]]],
    "matrix": [[[0.4, 0.4]] * 2, [[NAN, NAN]] * 2, [[1.5, -0.5], [0.0, 1.0]], [[0.5, 0.5]], [[1, 0], [0, 1]], []],
    "y": [[[0.5, 0.4], [1.0, 0.0]], [[1.5, -0.5], [1.0, 0.0]], [[NAN, 0.0], [1.0, 0.0]], [0, 1], [[1.0]]],
    "x": [torch.zeros(3, 2), torch.zeros(()), *(torch.zeros(2, 3, dtype=kind) for kind in (torch.uint8, torch.bool))],
    "labels": [[0, 3], [-1, 0], [0.0, 1.0], [True, False]],
}
CALLS = {
    "partner": [lambda partner: Pairs(partner, 0.5)],
    "lam": [lambda lam: Pairs([0, 1], lam)],
    "matrix": [Weights],
    "y": [lambda y, plan=plan: plan.mix_labels(torch.tensor(y)) for plan in BOTH],
    "x": [plan.mix for plan in BOTH],
    "labels": [lambda labels: one_hot(torch.tensor(labels), 3)],
}


@pytest.mark.parametrize("name", WRONG)
def test_what_makes_no_sense_is_refused_by_name(name):
    for call in CALLS[name]:
        refuses(call, name, *WRONG[name])
