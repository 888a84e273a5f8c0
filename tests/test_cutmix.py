"""CutMix: the box against torchvision's, the label's weight against the pixels that changed."""

import numpy as np
import pytest
import torch
from examples import batch, refuses
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import v2

from mixlab import CutMix, one_hot
from mixlab.cutmix import Boxes, cutmix_box, kept_area


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 39), st.integers(0, 39))
def test_box_is_clipped_and_its_area_is_the_area_of_the_pixels_changed(height, width, lam, center_y, center_x):
    box = cutmix_box(height, width, lam, center_y % height, center_x % width)
    top, left, bottom, right = box
    assert 0 <= top <= bottom <= height and 0 <= left <= right <= width
    assert bottom - top <= 2 * (int(height * (1 - lam) ** 0.5) // 2)
    x = torch.arange(2)[:, None, None].expand(2, height, width)
    plan = Boxes(torch.tensor([1, 0]), box, height, width)
    changed = (plan.mix(x)[0] == 1).double().mean().item()
    assert plan.label_plan.lam == pytest.approx(1 - changed) == pytest.approx(kept_area(box, height, width))


def test_box_by_hand():
    assert cutmix_box(8, 8, 0.75, 4, 4) == (2, 2, 6, 6)  # sqrt(1/4) * 8 = 4 pixels
    assert cutmix_box(8, 8, 0.75, 0, 7) == (0, 5, 2, 8)  # clipped at two sides
    assert cutmix_box(5, 5, 0.0, 2, 2) == (0, 0, 4, 4)  # an odd side loses a pixel
    both = cutmix_box(8, 8, np.array([0.75, 0.75]), np.array([4, 0]), np.array([4, 7]))
    assert np.stack(both, 1).tolist() == [[2, 2, 6, 6], [0, 5, 2, 8]]


@pytest.mark.parametrize("lam, center_y, center_x", [(0.3, 4, 5), (0.8, 0, 9)])
def test_torchvision_draws_the_same_box_and_mixes_the_same(monkeypatch, lam, center_y, center_x):
    """Its own box at our lam and centre, through the draws it makes; it pairs row i with row i - 1."""
    x, labels = batch(6, 3, 8, 10)
    theirs = v2.CutMix(num_classes=3)
    theirs._dist = type("Fixed", (), {"sample": lambda self, size: torch.tensor([lam])})()
    draws = iter([torch.tensor([center_x]), torch.tensor([center_y])])
    monkeypatch.setattr(torch, "randint", lambda *_, **__: next(draws))
    params = theirs.make_params([x])
    top, left, bottom, right = box = cutmix_box(8, 10, lam, center_y, center_x)
    assert tuple(params["box"]) == (left, top, right, bottom)
    theirs.make_params = lambda _: {**params, "labels": labels, "batch_size": 6}
    their_x, their_y = theirs(x, labels)
    plan = Boxes((torch.arange(6) - 1) % 6, box, 8, 10)
    assert torch.equal(plan.mix(x), their_x) and torch.allclose(plan.mix_labels(one_hot(labels, 3)), their_y)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("per_sample", [False, True])
def test_pixels_are_pasted_as_they_are_and_the_batch_is_left_alone(dtype, per_sample):
    x, labels = batch(7, 3, 8, 10)
    x, last = (x * 20).to(dtype).to(memory_format=torch.channels_last), torch.channels_last
    before, plan = x.clone(), CutMix(1.0, per_sample=per_sample, rng=1).draw(x, labels)
    mixed = plan.mix(x)
    assert torch.equal(x, before) and mixed.dtype == dtype and mixed.is_contiguous(memory_format=last)
    assert torch.equal(plan.mix(x.contiguous()), mixed) and plan.mix(x.contiguous()).is_contiguous()
    boxes = np.stack(plan.box, 1).tolist() if per_sample else [plan.box] * 7
    lam = torch.as_tensor(plan.label_plan.lam).expand(7)
    for i, (top, left, bottom, right) in enumerate(boxes):
        expected = x[i].clone()
        expected[:, top:bottom, left:right] = x[plan.partner[i], :, top:bottom, left:right]
        assert torch.equal(mixed[i], expected)
        assert lam[i].item() == pytest.approx(1 - (bottom - top) * (right - left) / 80, abs=1e-6)
    assert len({tuple(box) for box in boxes}) > 3 or not per_sample


def test_it_keeps_more_than_lam_says():
    """On 32 x 32 pixels at alpha = 1 the label weight is 0.70 on average, not 0.5: clipping. Four standard errors."""
    x, labels = torch.zeros(4000, 32, 32), torch.zeros(4000, dtype=torch.int64)
    kept = CutMix(1.0, per_sample=True, rng=0).draw(x, labels).label_plan.lam
    assert abs(kept.mean() - 0.70) < 0.01 + 4 * kept.std() / 4000**0.5


def test_what_makes_no_sense_is_refused_by_name():
    x, labels = batch(6, 3, 8, 10)
    refuses(lambda x: CutMix(1.0).draw(x, labels), "x", torch.zeros(6, 2))
    refuses(CutMix(1.0, rng=0).draw(x, labels).mix, "x", torch.zeros(6, 3, 8, 8), x[:5])
    refuses(lambda lam: cutmix_box(8, 8, lam, 0, 0), "lam", 1.5, float("nan"))
    refuses(lambda y: cutmix_box(8, 9, 0.5, y, 0), "center_y", 8, np.array([0, -1]))
    refuses(lambda x: cutmix_box(8, 9, 0.5, 0, x), "center_x", 9)
