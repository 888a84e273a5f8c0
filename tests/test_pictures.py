"""Pictures: colours of soft labels, and knobs that redraw."""

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from mixlab.course import pictures


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
