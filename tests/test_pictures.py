"""Pictures: colours of soft labels, and knobs that redraw."""

import io

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from mixlab.course import pictures
from mixlab.plans import Pairs


def test_a_soft_label_has_the_colour_between():
    y = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    ends = np.array([to_rgb(colour) for colour in pictures.COLOURS[:2]])
    assert np.allclose(pictures.colours(y), [ends[0], 0.25 * ends[0] + 0.75 * ends[1]])
    with pytest.raises(ValueError, match="11 classes, there are 10 colours"):
        pictures.colours(torch.ones(1, 11))


def test_a_slider_draws_at_once_and_again_when_a_knob_is_turned():
    seen = []

    def draw(k, name):
        seen.append((k, name))
        return plt.figure(figsize=(1, 1 + k))

    box = pictures.slider(draw, k=ipywidgets.IntSlider(1, 0, 5), name=["a", "b"])
    *knobs, image = box.children
    before = image.value
    assert seen == [(1, "a")] and bytes(before[:4]) == b"\x89PNG" and [k.description for k in knobs] == ["k", "name"]
    knobs[0].value = 3
    knobs[1].value = "b"
    assert seen == [(1, "a"), (3, "a"), (3, "b")] and image.value != before
    assert not plt.get_fignums(), "figures are closed"


def shown(monkeypatch):
    """What is displayed, as (picture, alternative text)."""
    import IPython.display

    seen = []

    def display(image):
        seen.append((Image.open(io.BytesIO(image.data)), image.alt))

    monkeypatch.setattr(IPython.display, "display", display)
    return seen


def test_a_figure_is_shown_sharp_with_its_alternative_text(monkeypatch):
    seen = shown(monkeypatch)
    figure, _ = pictures.panels(1, 2)
    pictures.show(figure, "two empty panels")
    ((picture, alt),) = seen
    assert alt == "two empty panels" and picture.size == (660, 330) and not plt.get_fignums()


def test_frames_stand_in_a_row(monkeypatch):
    seen = shown(monkeypatch)
    pictures.frames(lambda k: pictures.panels(1, 1, k)[0], [{"k": 1}, {"k": 2}], "one and two")
    ((picture, alt),) = seen
    assert alt == "one and two" and picture.size == (330, 220)


def test_a_strip_has_an_image_and_a_bar_for_each():
    images, y = torch.rand(3, 3, 8, 8), torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    figure = pictures.strip(images, y, ["a", "b", "c"])
    above, below = figure.axes[:3], figure.axes[3:]
    assert [ax.get_title() for ax in above] == ["a", "b", "c"] and np.allclose(
        above[1].images[0].get_array(), images[1].movedim(0, -1)
    )
    assert [bar.get_width() for bar in below[1].patches] == [0.5, 0.5]
    plt.close(figure)
    named = pictures.strip(images, y, names=["cat", "dog"])
    assert [[text.get_text() for text in ax.texts] for ax in named.axes[3:]] == [
        ["cat", ""],
        ["cat", "dog"],
        ["", "dog"],
    ]
    plt.close(named)


def test_dots_stand_where_the_means_are_with_the_first_on_top():
    figure, ax = pictures.panels()
    pictures.dots(ax, {"ERM": (18.4, 0.5), "mixup": (11.4, 0.8)}, highlight="mixup")
    assert [float(line.get_xdata()[0]) for line in ax.lines[:: len(ax.lines) // 2]] == [
        18.4,
        11.4,
    ] and ax.yaxis_inverted()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["ERM", "mixup"]
    plt.close(figure)


def test_a_reliability_diagram_has_a_dot_for_every_bin_at_its_confidence_and_its_share_of_right_answers():
    _, ax = plt.subplots()
    sure = torch.tensor([0.92, 0.94, 0.96, 0.98, 0.62, 0.68])
    pictures.reliability(ax, torch.stack([sure, 1 - sure], dim=1), torch.tensor([0, 1, 1, 1, 0, 0]))
    found = sorted(tuple(np.round(dot.get_offsets()[0], 4)) for dot in ax.collections)
    assert np.allclose(found, [(0.65, 1.0), (0.95, 0.25)])
    sizes = {dot.get_offsets()[0][1]: dot.get_sizes()[0] for dot in ax.collections}
    assert sizes[0.25] > sizes[1.0] and len(ax.lines) == 1 + 2
    plt.close("all")


def test_curves_have_a_tick_for_every_x_and_a_style_of_their_own():
    figure, ax = pictures.panels()
    pictures.curves(ax, (1, 4), {"a": [1.0, 2.0], "b": ([3.0, 4.0], {"color": "red"})}, xlabel="k")
    assert [line.get_ydata().tolist() for line in ax.lines] == [[1, 2], [3, 4]] and ax.lines[1].get_color() == "red"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "4"] and ax.get_xlabel() == "k"
    plt.close(figure)


def test_bridges_are_red_and_counted():
    x, labels = torch.tensor([[0.0, 0], [1, 0], [4, 0], [6, 0]]), torch.tensor([0, 0, 1, 1])
    figure, (left, right) = pictures.panels(1, 2)
    pictures.bridges(left, x, labels, torch.tensor([0, 1]), torch.tensor([1, 3]))
    assert [line.get_color() for line in left.lines] == ["0.55", "red"]
    pictures.mixture(right, x, labels, Pairs([1, 2, 3, 0], 0.5))
    assert right.get_title() == "50 % of the lines are bridges, 4.5 long"
    assert right.lines[0].get_xdata().tolist() == [6, 0], "of two bridges, 3 and 6 long, the second"
    plt.close(figure)


def test_arrows_are_as_wide_as_their_weight_and_leave_the_diagonal_out():
    figure, ax = pictures.panels()
    pictures.arrows(ax, [[9.0, 1.0, 0.0], [0.5, 9.0, 0.0], [0.0, 0.0, 9.0]], ["cat", "dog", "car"], widest=6)
    drawn = [text for text in ax.texts if getattr(text, "arrow_patch", None)]
    assert [text.arrow_patch.get_linewidth() for text in drawn] == [6, 3]
    assert [text.get_text() for text in ax.texts if text not in drawn] == ["cat", "dog", "car"]
    plt.close(figure)


def test_text_in_the_pictures_can_be_read():
    figure, ax = pictures.panels()
    pictures.dots(ax, {"ERM": (1, 1)})
    pictures.weights(ax, torch.eye(2))
    figure.canvas.draw()
    assert min(text.get_fontsize() for text in figure.findobj(plt.Text)) >= 8 and figure.dpi == 110
    plt.close(figure)
