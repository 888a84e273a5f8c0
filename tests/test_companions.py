"""CutMix, manifold mixup, RegMixup, Remix: equations, oracles, reductions, and every method inside every other."""

import copy
import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import v2

from mixlab import (
    ERM,
    CutMix,
    LabelSmoothing,
    ManifoldMixup,
    Method,
    Mixup,
    Pairs,
    RegMixup,
    Remix,
    Split,
    one_hot,
    soft_cross_entropy,
)
from mixlab.companions import Boxes, cutmix_box, kept_area, remix_lambda
from mixlab.mixup import draws_alone, mixes_inputs, scored_by_cross_entropy, scored_by_targets
from mixlab.results.expressions import build_method, describe, methods, usual_methods
from mixlab.training.models import build


def images(n=6, channels=3, height=8, width=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, channels, height, width, generator=generator), torch.arange(n) % 3


def flat_net(x, classes=3, dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), classes)).to(dtype)


# --- CutMix ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 39), st.integers(0, 39))
def test_box_is_clipped_and_its_area_is_the_area_of_the_pixels_changed(height, width, lam, center_y, center_x):
    center_y, center_x = center_y % height, center_x % width
    box = cutmix_box(height, width, lam, center_y, center_x)
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
    assert cutmix_box(10, 6, 0.0, 5, 3) == (0, 0, 10, 6)
    assert cutmix_box(5, 5, 0.0, 2, 2) == (0, 0, 4, 4)  # an odd side loses a pixel
    assert cutmix_box(8, 8, 1.0, 4, 4) == (4, 4, 4, 4) and kept_area((4, 4, 4, 4), 8, 8) == 1.0


@pytest.mark.parametrize("lam, center_y, center_x", [(0.3, 4, 5), (0.8, 0, 9), (0.05, 7, 2)])
def test_torchvision_agrees_at_a_given_box(lam, center_y, center_x):
    """torchvision pairs row i with row i - 1; it is handed the box as (x1, y1, x2, y2) and the label weight."""
    x, labels = images()
    top, left, bottom, right = box = cutmix_box(8, 10, lam, center_y, center_x)
    theirs = v2.CutMix(num_classes=3)
    weight = float(1.0 - (right - left) * (bottom - top) / (10 * 8))
    theirs.make_params = lambda _: {
        "box": (left, top, right, bottom),
        "lam_adjusted": weight,
        "batch_size": 6,
        "labels": labels,
    }
    their_x, their_y = theirs(x, labels)
    plan = Boxes((torch.arange(6) - 1) % 6, box, 8, 10)
    assert torch.equal(plan.mix(x), their_x)
    assert torch.allclose(plan.mix_labels(one_hot(labels, 3)), their_y)


def test_torchvision_draws_the_same_boxes(monkeypatch):
    """Its own box at our lam and centre, through the draws it makes."""
    for lam, center_y, center_x in [(0.3, 4, 5), (0.8, 0, 9), (0.51, 7, 2)]:
        theirs = v2.CutMix(num_classes=3)
        theirs._dist = type("Fixed", (), {"sample": lambda self, size, lam=lam: torch.tensor([lam])})()
        draws = iter([torch.tensor([center_x]), torch.tensor([center_y])])
        monkeypatch.setattr(torch, "randint", lambda *_, draws=draws, **__: next(draws))
        params = theirs.make_params([torch.zeros(6, 3, 8, 10)])
        top, left, bottom, right = box = cutmix_box(8, 10, lam, center_y, center_x)
        assert tuple(params["box"]) == (left, top, right, bottom)
        assert params["lam_adjusted"] == pytest.approx(kept_area(box, 8, 10))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8, torch.int64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("per_sample", [False, True])
def test_cutmix_pastes_pixels_as_they_are_and_leaves_the_batch_alone(dtype, layout, per_sample):
    x, labels = images(7)
    x = (x * 20).to(dtype).to(memory_format=layout)
    before = x.clone()
    plan = CutMix(1.0, per_sample=per_sample, rng=1).draw(x, labels)
    mixed = plan.mix(x)
    assert torch.equal(x, before) and mixed.dtype == dtype and mixed.is_contiguous(memory_format=layout)
    boxes = [plan.box] * 7 if not per_sample else np.stack(plan.box, 1).tolist()
    lam = torch.as_tensor(plan.label_plan.lam).expand(7)
    for i, (top, left, bottom, right) in enumerate(boxes):
        expected = x[i].clone()
        expected[:, top:bottom, left:right] = x[plan.partner[i], :, top:bottom, left:right]
        assert torch.equal(mixed[i], expected)
        assert lam[i].item() == pytest.approx(1 - (bottom - top) * (right - left) / 80, abs=1e-6)
    if per_sample:
        assert len({tuple(box) for box in boxes}) > 3


def test_cutmix_keeps_more_than_lam_says():
    """On 32 x 32 pixels at alpha = 1 the label weight is 0.70 on average, not 0.5: clipping. Four standard errors."""
    x, labels = torch.zeros(4000, 32, 32), torch.zeros(4000, dtype=torch.int64)
    kept = CutMix(1.0, per_sample=True, rng=0).draw(x, labels).label_plan.lam
    assert abs(kept.mean() - 0.70) < 0.01 + 4 * kept.std() / 4000**0.5


@given(st.integers(1, 5), st.booleans())
def test_cutmix_with_alpha_zero_changes_nothing(n, per_sample):
    x, labels = images(n)
    plan = CutMix(0.0, per_sample=per_sample, rng=0).draw(x, labels)
    assert torch.equal(plan.mix(x), x) and torch.equal(plan.mix_labels(one_hot(labels, 3)), one_hot(labels, 3))


def test_cutmix_loss_is_cross_entropy_at_the_area():
    x, labels = images()
    net = flat_net(x)
    plan = CutMix(1.0, rng=4).draw(x, labels)
    kept = plan.label_plan.lam
    assert 0 < kept < 1
    logits = net(plan.mix(x))
    by_hand = kept * F.cross_entropy(logits, labels) + (1 - kept) * F.cross_entropy(logits, labels[plan.partner])
    assert torch.allclose(CutMix(1.0, rng=4).loss(net, x, labels), by_hand)


def test_cutmix_refuses_what_has_no_pixels():
    with pytest.raises(ValueError, match="x must be images"):
        CutMix(1.0).draw(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64))
    plan = CutMix(1.0, rng=0).draw(*images())
    with pytest.raises(ValueError, match="the plan is for 6 images"):
        plan.mix(torch.zeros(6, 3, 8, 8))
    with pytest.raises(ValueError, match=r"lam must lie in \[0, 1\]"):
        cutmix_box(8, 8, 1.5, 0, 0)


# --- manifold mixup --------------------------------------------------------------------------------------------------


def test_stage_zero_is_plain_mixup():
    x, labels = images(height=16, width=16)
    net = build("quick_resnet", 3, seed=0)
    manifold = ManifoldMixup(Mixup(1.0, rng=7), stages=(0,))
    assert torch.equal(manifold.loss(net, x, labels), Mixup(1.0, rng=7).loss(net, x, labels))


def test_mixing_after_a_lone_convolution_is_mixing_images_and_later_is_not():
    """Why stage 1 of a PreActResNet is no place of its own, and 2 is the default."""
    x, labels = images(height=16, width=16)
    net = build("quick_resnet", 3, seed=0)
    logits = [ManifoldMixup(Mixup(1.0, rng=7), stages=(place,)).answers(net, x, labels)[1] for place in (0, 1, 2)]
    assert (logits[0] - logits[1]).abs().max() < 1e-4 < 1e-3 < (logits[0] - logits[2]).abs().max()
    assert ManifoldMixup(Mixup(1.0)).stages == (0, 2)


@pytest.mark.parametrize("stage", [0, 1, 2, 3, 4, 5])
def test_manifold_mixup_by_hand_at_every_stage(stage):
    x, labels = images(height=16, width=16)
    net = build("quick_resnet", 3, seed=0)
    plan = Mixup(1.0, rng=7).draw(x, labels)
    h = x
    for part in net.stages[:stage]:
        h = part(h)
    h = plan.lam * h + (1 - plan.lam) * h[plan.partner]
    for part in net.stages[stage:]:
        h = part(h)
    logits = net.head(h.mean((2, 3)))
    by_hand = soft_cross_entropy(logits, plan.mix_labels(one_hot(labels, 3)))
    assert torch.allclose(ManifoldMixup(Mixup(1.0, rng=7), (stage,)).loss(net, x, labels), by_hand, atol=1e-6)


def test_the_plan_is_drawn_from_the_features_and_stages_are_uniform():
    seen = []

    class Looking(Mixup):
        def draw(self, x, labels):
            seen.append(x.shape[1])
            return super().draw(x, labels)

    x, labels = images(2, height=8, width=8)
    net = build("quick_resnet", 3, seed=0)
    method = ManifoldMixup(Looking(1.0, rng=0), stages=(0, 2, 4), rng=0)
    for _ in range(300):
        method.answers(net, x, labels)
    counts = {channels: seen.count(channels) for channels in set(seen)}
    assert set(counts) == {3, 16, 64}  # the images, and what stages 2 and 4 are given
    assert all(abs(count - 100) < 4 * (300 * 1 / 3 * 2 / 3) ** 0.5 for count in counts.values())


def test_manifold_mixup_refuses_what_it_cannot_do():
    x, labels = images()
    with pytest.raises(ValueError, match="model Sequential has no stages to mix at"):
        ManifoldMixup(Mixup(1.0)).loss(flat_net(x), x, labels)
    with pytest.raises(ValueError, match="this network has places 0 to 5"):
        ManifoldMixup(Mixup(1.0), stages=(9,)).loss(build("quick_resnet", 3), x, labels)
    for stages in ((), (-1,), (0.5,)):
        with pytest.raises(ValueError, match="stages must be whole numbers"):
            ManifoldMixup(Mixup(1.0), stages=stages)
    with pytest.raises(ValueError, match="mixing RegMixup has a loss of its own"):
        ManifoldMixup(RegMixup(Mixup(1.0)))
    with pytest.raises(ValueError, match="mixing ManifoldMixup looks at the images"):
        ManifoldMixup(ManifoldMixup(Mixup(1.0)))


# --- RegMixup --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("inner", [lambda: Mixup(20, rng=3), lambda: CutMix(1, rng=3)], ids=["mixup", "cutmix"])
def test_regmixup_is_clean_loss_plus_eta_times_the_methods(eta, inner):
    x, labels = images()
    x = x.double()
    net = flat_net(x, dtype=torch.float64)
    expected = F.cross_entropy(net(x), labels) + (eta * inner().loss(net, x, labels) if eta else 0)
    (there,) = torch.autograd.grad(expected, net[1].weight)
    loss = RegMixup(inner(), eta=eta).loss(net, x, labels)
    (here,) = torch.autograd.grad(loss, net[1].weight)
    assert torch.allclose(loss, expected) and torch.allclose(here, there)


def test_regmixup_is_one_forward_pass_of_clean_and_mixed_together():
    x, labels = images(height=16, width=16)
    net, sizes = build("quick_resnet", 3, seed=0), []
    net.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
    RegMixup(Mixup(20, rng=0)).loss(net, x, labels)
    RegMixup(Mixup(20, rng=0), eta=0).loss(net, x, labels)
    assert sizes == [12, 6]
    assert net.stages[-1][1].num_batches_tracked == 2


def test_regmixup_refuses_what_runs_the_network_in_its_own_way():
    for inner in (RegMixup(Mixup(1.0)), ManifoldMixup(Mixup(1.0)), LabelSmoothing(0.1, ManifoldMixup(Mixup(1.0)))):
        with pytest.raises(ValueError, match="runs the network in its own way"):
            RegMixup(inner)
    for eta in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="eta must be a finite number"):
            RegMixup(Mixup(1.0), eta)


# --- Remix -----------------------------------------------------------------------------------------------------------


@given(st.floats(0, 1), st.integers(0, 50), st.integers(1, 50), st.sampled_from([1.5, 2.0, 3.0]), st.floats(0, 1))
def test_remix_lambda_is_the_rule_with_ratios(lam, own, partner, kappa, tau):
    """Written with divisions, as it is printed; own may be an empty class."""
    ratio, expected = own / partner, lam
    if ratio >= kappa and lam < tau:
        expected = 0.0
    elif ratio <= 1 / kappa and 1 - lam < tau:
        expected = 1.0
    number = torch.tensor([lam], dtype=torch.float64)
    assert remix_lambda(number, own, partner, kappa, tau).item() == expected


def test_remix_lambda_at_its_edges():
    lam = torch.tensor([0.4, 0.5, 0.6, 0.4, 0.4])
    own, partner = torch.tensor([30, 30, 10, 29, 0]), torch.tensor([10, 10, 30, 10, 0])
    assert remix_lambda(lam, own, partner, 3.0, 0.5).tolist() == pytest.approx([0.0, 0.5, 1.0, 0.4, 0.4])
    swapped = remix_lambda(1 - lam, partner, own, 3.0, 0.5)
    assert torch.allclose(1 - swapped, remix_lambda(lam, own, partner, 3.0, 0.5))


def test_remix_mixes_inputs_by_lam_and_labels_by_lam_y():
    x, labels = images(12)
    plan = Remix(1.0, [90, 9, 30], rng=0).draw(x, labels)
    assert type(plan) is Split and plan.partner is plan.inputs.partner
    lam = plan.inputs.lam
    sizes = torch.tensor([90, 9, 30])[labels]
    lam_y = remix_lambda(lam, sizes, sizes[plan.partner], 3.0, 0.5)
    assert torch.equal(plan.label_plan.lam, lam_y) and not torch.equal(lam, lam_y)
    assert torch.equal(plan.mix(x), Pairs(plan.partner, lam).mix(x))
    assert torch.equal(plan.mix_labels(one_hot(labels, 3)), Pairs(plan.partner, lam_y).mix(one_hot(labels, 3)))
    assert torch.allclose(plan.matrix() @ one_hot(labels, 3).double(), plan.mix_labels(one_hot(labels, 3)).double())


def test_remix_never_gives_a_frequent_class_more_than_its_share():
    x, labels = images(600)
    plan = Remix(1.0, [900, 9, 90], rng=0).draw(x, labels)
    own, partner = (torch.tensor([900, 9, 90])[part] for part in (labels, labels[plan.partner]))
    assert (plan.label_plan.lam <= plan.inputs.lam)[own > partner].all()
    assert (plan.label_plan.lam >= plan.inputs.lam)[own < partner].all()
    assert (plan.label_plan.lam != plan.inputs.lam).float().mean() > 0.2


@pytest.mark.parametrize("parameters", [{"kappa": 1e9}, {"tau": 0.0}, {"counts": [7, 7, 7]}], ids=str)
def test_remix_becomes_mixup(parameters):
    """At kappa without bound, at tau = 0, at equal counts."""
    x, labels = images()
    net = flat_net(x)
    remix = Remix(**{"alpha": 1.0, "counts": [90, 9, 30], **parameters}, rng=5)
    draws = np.random.default_rng(5)  # Remix draws partners first, mixup lam first: the same pairs by hand
    plan = Pairs(draws.permutation(6), draws.beta(1.0, 1.0, 6))
    by_hand = soft_cross_entropy(net(plan.mix(x)), plan.mix_labels(one_hot(labels, 3).double()).float())
    assert torch.allclose(remix.loss(net, x, labels), by_hand, atol=1e-6)
    assert not torch.allclose(Remix(1.0, [90, 9, 30], rng=5).loss(net, x, labels), by_hand, atol=1e-6)


def test_remix_counts_the_training_set_if_it_is_not_told():
    x, labels = images(12)
    train_y = torch.tensor([0] * 90 + [1] * 9 + [2] * 30)
    told, counting = Remix(1.0, [90, 9, 30, 0], rng=0), LabelSmoothing(0.0, Remix(1.0, rng=0))
    counting.prepare(build("quick_resnet", 4), train_y)
    assert torch.equal(told.draw(x, labels).label_plan.lam, counting.draw(x, labels).label_plan.lam)
    assert describe(counting.method) == "Remix(alpha=1.0)"
    told.prepare(build("quick_resnet", 4), train_y)
    assert torch.equal(told._sizes, counting.method._sizes)


def test_remix_refuses_what_makes_no_sense():
    x, labels = images()
    for name, parameters in {
        "kappa": {"kappa": 1.0},
        "tau": {"tau": 1.5},
        "alpha": {"alpha": -1.0},
        "counts must be one number": {"counts": [-1, 2]},
    }.items():
        with pytest.raises(ValueError, match=name):
            Remix(**{"alpha": 1.0, "counts": [1, 1, 1], **parameters})
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.1"):
        Remix(1.0, [5, 5]).loss(flat_net(x), x, labels)
    with pytest.raises(ValueError, match="counts are of 4 classes, the model has 3"):
        Remix(1.0, [5, 5, 5, 5]).prepare(build("quick_resnet", 3))
    with pytest.raises(ValueError, match=r"counts are unknown: give them, or call prepare"):
        Remix(1.0).loss(flat_net(x), x, labels)
    with pytest.raises(ValueError, match="labels must be class indices"):
        Remix(1.0, [5, 5, 5]).draw(x, one_hot(labels, 3))


# --- all together ----------------------------------------------------------------------------------------------------

PAIRINGS = ["ERM()", "Mixup(1.0)", "Mixup(1.0, per_sample=True)", "CutMix(1.0)", "CutMix(1.0, per_sample=True)"]
PAIRINGS += ["Remix(1.0, [40, 20, 10, 5])", "ManifoldMixup(Mixup(1.0))", "ManifoldMixup(CutMix(1.0), (1, 3))"]
PAIRINGS += ["KMixup(1.0, 3)", "ZetaMixup(2.8)", "ManifoldMixup(KMixup(1.0, 2))", "ManifoldMixup(ZetaMixup(2.8))"]
SCORINGS = ["{}", "LabelSmoothing(0.1, {})", "RegMixup({})", "RegMixup(LabelSmoothing(0.1, {}), eta=0.5)"]


def combinations():
    for scoring in SCORINGS:
        for pairing in PAIRINGS:
            if not ("RegMixup" in scoring and "Manifold" in pairing):  # refused, see above
                yield scoring.format(pairing)


@pytest.mark.parametrize("expression", list(combinations()))
def test_every_pairing_goes_with_every_scoring(expression):
    """A few steps of a small network: finite, every weight moved, and after a restart the same losses again."""
    x, labels = images(7, height=8, width=8)
    labels = labels + (torch.arange(7) == 6)  # four classes
    method, net = build_method(expression, seed=0), build("quick_resnet", 4, seed=0)
    assert describe(build_method(describe(method), seed=0)) == describe(method)
    method.prepare(net)
    optimiser = torch.optim.SGD([*net.parameters(), *method.parameters()], lr=0.01)

    def step():
        optimiser.zero_grad()
        loss = method.loss(net, x, labels)
        loss.backward()
        optimiser.step()
        return loss.item()

    assert all(np.isfinite(step()) for _ in range(3))
    for name, parameter in [*net.named_parameters(), *method.named_parameters()]:
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name
    file = io.BytesIO()
    torch.save([net.state_dict(), method.state_dict()], file)
    expected = [step(), step()]
    file.seek(0)
    of_net, of_method = torch.load(file, weights_only=True)
    net.load_state_dict(of_net)
    method.load_state_dict(of_method)
    assert [step(), step()] == expected
    method.end_epoch()


@pytest.mark.parametrize("expression", usual_methods())
def test_usual_methods_have_one_spelling_and_take_a_batch_of_one(expression):
    method = build_method(expression, seed=0)
    assert describe(method) == expression and type(method).__name__ in repr(method)
    x, labels = images(1, height=16, width=16)
    net = build("quick_resnet", 10, seed=0)
    method.prepare(net, labels)
    assert method.loss(net, x, labels).isfinite()
    state = copy.deepcopy(method.state_dict())
    method.load_state_dict(state)


def test_what_a_method_is_scored_by_is_seen_through_what_is_around_it():
    plain = [ERM(), Mixup(1.0), CutMix(1.0), Remix(1.0, [1, 1]), LabelSmoothing(0.1, CutMix(1.0))]
    assert all(scored_by_cross_entropy(method) for method in plain)
    manifold = LabelSmoothing(0.1, ManifoldMixup(Mixup(1.0)))
    assert scored_by_targets(manifold) and not scored_by_cross_entropy(manifold) and not mixes_inputs(manifold)
    assert draws_alone(manifold) and not scored_by_targets(RegMixup(Mixup(1.0)))
    with pytest.raises(ValueError, match="method RegMixup has a loss of its own"):
        LabelSmoothing(0.1, RegMixup(Mixup(1.0)))


def test_end_of_epoch_and_preparation_reach_the_innermost_method():
    calls = []

    class Noting(Mixup):
        def end_epoch(self):
            calls.append("epoch")

        def prepare(self, model, labels=None):
            calls.append((model, labels))

    method = LabelSmoothing(0.1, ManifoldMixup(Noting(1.0)))
    method.prepare("model", "labels")
    method.end_epoch()
    assert calls == [("model", "labels"), "epoch"]


def test_a_split_plan_moves_whole():
    x, labels = images()
    for method in (Remix(1.0, [3, 2, 1], rng=0), CutMix(1.0, rng=0)):
        plan = method.draw(x, labels)
        moved = plan.to("cpu")
        assert torch.equal(moved.mix(x), plan.mix(x)) and len(moved) == 6
        assert torch.equal(moved.matrix(), plan.matrix()) and "labels by Pairs" in repr(moved)
        assert plan.to("meta").partner.device.type == "meta"


def test_all_methods_are_methods():
    assert {"CutMix", "ManifoldMixup", "RegMixup", "Remix"} <= set(methods())
    assert all(issubclass(method, Method) for method in methods().values())
