"""Pictures: colours of soft labels, marks where the numbers are, and knobs that redraw."""

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


@pytest.fixture
def ax():
    yield pictures.panels()[1]
    plt.close("all")


def test_a_soft_label_has_the_colour_between():
    ends = np.array([to_rgb(colour) for colour in pictures.COLOURS[:2]])
    found = pictures.colours(torch.tensor([[1.0, 0.0], [0.25, 0.75]]))
    assert np.allclose(found, [ends[0], 0.25 * ends[0] + 0.75 * ends[1]])
    with pytest.raises(ValueError, match=r"\by\b"):
        pictures.colours(torch.ones(1, 11))


def test_a_slider_draws_at_once_and_again_when_a_knob_is_turned():
    seen = []

    def draw(k, name):
        seen.append((k, name))
        return plt.figure(figsize=(1, 1 + k))

    *knobs, image = pictures.slider(draw, k=ipywidgets.IntSlider(1, 0, 5), name=["a", "b"]).children
    before = image.value
    assert seen == [(1, "a")] and bytes(before[:4]) == b"\x89PNG" and [k.description for k in knobs] == ["k", "name"]
    knobs[0].value = 3
    knobs[1].value = "b"
    assert seen == [(1, "a"), (3, "a"), (3, "b")] and image.value != before
    assert not plt.get_fignums(), "figures are closed"


def test_figures_are_shown_with_their_alternative_text_and_frames_two_in_a_row(monkeypatch):
    seen = []
    monkeypatch.setattr("IPython.display.display", lambda i: seen.append((Image.open(io.BytesIO(i.data)).size, i.alt)))
    pictures.show(pictures.panels(1, 2)[0], "two empty panels")
    for settings, alt in (([1, 2], "one and two"), ([1, 1, 2], "a third below")):
        pictures.frames(lambda k: pictures.panels(1, 1, k)[0], [{"k": k} for k in settings], alt)
    assert seen == [((660, 330), "two empty panels"), ((440, 220), "one and two"), ((440, 440), "a third below")]
    assert not plt.get_fignums()


def test_a_strip_has_an_image_and_a_bar_for_each(ax):
    images, y = torch.rand(3, 3, 8, 8), torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    axes = pictures.strip(images, y, ["a", "b", "c"], ["cat", "dog"]).axes
    assert [above.get_title() for above in axes[:3]] == ["a", "b", "c"]
    assert np.allclose(axes[1].images[0].get_array(), images[1].movedim(0, -1))
    assert [bar.get_width() for bar in axes[4].patches] == [0.5, 0.5]
    assert [[text.get_text() for text in below.texts] for below in axes[3:]] == [
        ["cat", ""],
        ["cat", "dog"],
        ["", "dog"],
    ]


def test_dots_stand_where_the_means_are_with_the_first_on_top_and_can_be_read(ax):
    pictures.dots(ax, {"ERM": (18.4, 0.5), "mixup": (11.4, 0.8)}, highlight="mixup")
    assert [float(line.get_xdata()[0]) for line in ax.lines[:: len(ax.lines) // 2]] == [18.4, 11.4]
    assert ax.yaxis_inverted() and [label.get_text() for label in ax.get_yticklabels()] == ["ERM", "mixup"]
    ax.figure.canvas.draw()
    assert min(text.get_fontsize() for text in ax.figure.findobj(plt.Text)) >= 8 and ax.figure.dpi == 110


def test_a_reliability_diagram_has_a_dot_for_every_bin_at_its_confidence_and_its_share_of_right_answers(ax):
    sure = torch.tensor([0.92, 0.94, 0.96, 0.98, 0.62, 0.68])
    pictures.reliability(ax, torch.stack([sure, 1 - sure], dim=1), torch.tensor([0, 1, 1, 1, 0, 0]))
    assert np.allclose(sorted(tuple(dot.get_offsets()[0]) for dot in ax.collections), [(0.65, 1.0), (0.95, 0.25)])
    sizes = {round(dot.get_offsets()[0][1], 4): dot.get_sizes()[0] for dot in ax.collections}
    assert sizes[0.25] > sizes[1.0] and len(ax.lines) == 1 + 2


def test_curves_have_a_tick_for_every_x_and_a_style_of_their_own(ax):
    pictures.curves(ax, (1, 4), {"a": [1.0, 2.0], "b": ([3.0, 4.0], {"color": "red"})}, xlabel="k")
    assert [line.get_ydata().tolist() for line in ax.lines] == [[1, 2], [3, 4]] and ax.lines[1].get_color() == "red"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "4"] and ax.get_xlabel() == "k"


def test_bridges_are_red_and_counted(ax):
    x, labels = torch.tensor([[0.0, 0], [1, 0], [4, 0], [6, 0]]), torch.tensor([0, 0, 1, 1])
    pictures.bridges(ax, x, labels, torch.tensor([0, 1]), torch.tensor([1, 3]))
    assert [line.get_color() for line in ax.lines] == ["0.55", "red"]
    _, right = pictures.panels()
    pictures.mixture(right, x, labels, Pairs([1, 2, 3, 0], 0.5))
    assert "50 %" in right.get_title() and "4.5" in right.get_title()
    assert right.lines[0].get_xdata().tolist() == [6, 0], "of two bridges, 3 and 6 long, the second"


def test_arrows_are_as_wide_as_their_weight_and_leave_the_diagonal_out(ax):
    pictures.arrows(ax, [[9.0, 1.0, 0.0], [0.5, 9.0, 0.0], [0.0, 0.0, 9.0]], ["cat", "dog", "car"], widest=6)
    drawn = [text for text in ax.texts if getattr(text, "arrow_patch", None)]
    assert [text.arrow_patch.get_linewidth() for text in drawn] == [6, 3]
    assert [text.get_text() for text in ax.texts if text not in drawn] == ["cat", "dog", "car"]
