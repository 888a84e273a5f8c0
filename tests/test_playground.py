"""The playground: every mixing shows something or says why not, and its knobs do what they say."""

import pytest
import torch
from examples import refuses

from mixlab.course import playground
from mixlab.results.expressions import build_method, usual_methods


@pytest.mark.parametrize("data", ["one_ring", "digits"])
def test_every_mixing_shows_something_or_says_why_not(data):
    for expression in usual_methods():
        figure = playground.look(data, 0.2, expression, "no such mixing")
        first, *_, refused = figure.axes[:5]
        assert first.collections or first.images or first.texts, expression
        assert "no such mixing" in refused.texts[0].get_text()
        playground.pictures.plt.close(figure)


def test_what_is_mixed_is_what_the_method_mixes():
    x, labels, mixed, y, W = playground.mix(playground.load("one_ring"), "Mixup(alpha=1.0)")
    plan = build_method("Mixup(alpha=1.0)", 0).draw(x[:64], labels[:64])
    assert torch.equal(mixed[:64], plan.mix(x[:64])) and torch.equal(W, plan.matrix())
    assert torch.allclose(y.sum(1), torch.ones(len(x)))


def test_a_knob_for_every_number_and_a_picture_that_changes():
    panel = playground.panel()
    first, image = panel.children[1], panel.children[-2]
    field, alpha = first.children
    before = image.value
    alpha.value = 0.1
    assert alpha.description == "alpha" and image.value != before
    field.value = "RegMixup(KMixup(alpha=2.0, k=4))"
    assert [knob.description for knob in first.children[1:]] == ["alpha", "k"]
    field.value = panel.children[2].children[0].value = ""
    assert len(image.value) > 1000, "with both fields empty, the samples as they are"
    field.value = "nonsense("
    assert len(image.value) > 1000, "an expression that is no method is said in the picture"


def test_training_says_how_wrong_each_network_is():
    figure = playground.train("digits", 0.4, "Mixup(alpha=8.0)", "CutMix(alpha=1.0)")
    erm, mixup, refused = figure.axes
    errors = [float(ax.get_title().split("\n")[1].split("%")[0]) for ax in (erm, mixup)]
    assert errors[1] < errors[0] - 5 and "CutMix" in refused.texts[0].get_text()
    playground.pictures.plt.close(figure)


def test_an_unknown_set_is_refused():
    refuses(playground.load, "name", "mnist")
