"""Pictures with one colour scheme: blue is class 0, orange class 1, and a soft label is the colour between them."""

import io

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from torch import Tensor

# Ten colours that stay apart for readers who do not tell red from green; the first two carry the two-class sets.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#7f7f7f", "#8c6d31", "#9467bd", "#b3b300")


def colours(y: Tensor) -> np.ndarray:
    """y (…, c) soft labels -> (…, 3) RGB: the class colours averaged with the label's weights."""
    classes = y.shape[-1]
    if classes > len(COLOURS):
        raise ValueError(f"y has {classes} classes, there are {len(COLOURS)} colours")
    palette = np.array([to_rgb(colour) for colour in COLOURS[:classes]])
    return np.clip(y.detach().cpu().double().numpy() @ palette, 0, 1)


def points(ax, x: Tensor, y: Tensor, size: float = 8, **style):
    """x (n, 2) as dots in the colour of their soft label y (n, c)."""
    ax.scatter(x[:, 0], x[:, 1], s=size, c=colours(y), linewidths=0, **style)
    return _bare(ax)


def couplings(ax, x: Tensor, partner: Tensor, **style):
    """A thin line from every point x (n, 2) to its partner: where mixed samples may land."""
    lines = torch.stack([x, x[partner]], dim=1).numpy()
    ax.add_collection(LineCollection(lines, **{"colors": "0.6", "linewidths": 0.4, "zorder": 0, **style}))
    return _bare(ax)


def decision_map(ax, predict, x: Tensor, resolution: int = 120, margin: float = 0.12):
    """The plane around the points x (n, 2) in the colours of predict(grid) (n, c); a line where two classes tie."""
    low, high = x.min(0).values, x.max(0).values
    low, high = low - margin * (high - low), high + margin * (high - low)
    across, up = (torch.linspace(float(low[d]), float(high[d]), resolution) for d in (0, 1))
    grid = torch.cartesian_prod(across, up)
    y = predict(grid).reshape(resolution, resolution, -1).transpose(0, 1)
    extent = (float(low[0]), float(high[0]), float(low[1]), float(high[1]))
    ax.imshow(colours(y), origin="lower", extent=extent, interpolation="bilinear", alpha=0.75)
    if y.shape[-1] == 2 and bool((y[..., 0] > 0.5).any()) and bool((y[..., 0] < 0.5).any()):
        ax.contour(across, up, y[..., 0], levels=[0.5], colors="0.15", linewidths=0.8)
    return _bare(ax)


def weights(ax, matrix: Tensor, numbers: bool = True):
    """The matrix W of a plan: row i says what the new sample i is made of; white is 0."""
    ax.imshow(matrix, cmap="Purples", vmin=0, vmax=1)
    if numbers:
        for (row, column), value in np.ndenumerate(np.asarray(matrix)):
            if value:
                shade = "white" if value > 0.55 else "black"
                ax.text(column, row, f"{value:.2g}", ha="center", va="center", color=shade, fontsize=8)
    ax.set(xticks=range(len(matrix)), yticks=range(len(matrix)), xlabel="from sample", ylabel="new sample")
    return ax


def label_bars(ax, y: Tensor):
    """Soft labels y (n, c) as stacked bars, the first row on top."""
    left = np.zeros(len(y))
    for c in range(y.shape[1]):
        ax.barh(range(len(y)), y[:, c], left=left, color=COLOURS[c])
        left += y[:, c].numpy()
    ax.set(yticks=range(len(y)), ylim=(len(y) - 0.5, -0.5), xlim=(0, 1), xlabel="soft label")
    return ax


def panels(rows: int = 1, columns: int = 1, width: float = 3.0, height: float | None = None, **options):
    """plt.subplots with one size per panel and tight spacing."""
    size = (width * columns, (height or width) * rows)
    return plt.subplots(rows, columns, figsize=size, layout="constrained", **options)


def line(number: int) -> dict:
    """The style of curve number 0, 1, 2 …: ten colours drawn through, then the same dashed, then dotted."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": ("-", "--", ":")[number // len(COLOURS) % 3]}


def slider(draw, **controls):
    """Knobs beside a picture: draw(**values) returns a figure and is called again whenever a knob is turned.

    controls: an ipywidgets widget each, or what `interact` would make one of (a list: a menu). The picture is an image
    widget: output captured by `interact` can stop a notebook that is executed without a browser for good.
    """
    import ipywidgets

    knobs = {name: ipywidgets.interactive.widget_from_abbrev(control) for name, control in controls.items()}
    image = ipywidgets.Image(format="png")

    def redraw(_=None):
        figure, buffer = draw(**{name: knob.value for name, knob in knobs.items()}), io.BytesIO()
        figure.savefig(buffer, format="png", dpi=80)
        plt.close(figure)
        image.value = buffer.getvalue()

    for name, knob in knobs.items():
        knob.description = knob.description or name
        knob.observe(redraw, "value")
    redraw()
    return ipywidgets.VBox([*knobs.values(), image])


def _bare(ax):
    ax.set(xticks=[], yticks=[], aspect="equal")
    return ax
