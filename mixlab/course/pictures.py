"""Pictures with one colour scheme: blue is class 0, orange class 1, and a soft label is the colour between them."""

import io
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from torch import Tensor

# Ten colours that stay apart for readers who do not tell red from green; the first two carry the two-class sets.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#7f7f7f", "#8c6d31", "#9467bd", "#b3b300")
DPI = 110


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


def bridges(ax, x: Tensor, labels: Tensor, own: Tensor, partner: Tensor):
    """A line from every point x[own] to x[partner], both (k,): grey within a class, wide and red between two."""
    for i, j in zip(own.tolist(), partner.tolist(), strict=True):
        look = ("red", 2.5) if labels[i] != labels[j] else ("0.55", 1.2)
        ax.plot(*x[[i, j]].T, color=look[0], linewidth=look[1], zorder=0)
    return _bare(ax)


def mixture(ax, x: Tensor, labels: Tensor, plan):
    """The points x (n, 2) mixed by a plan of pairs, a thin line between all partners, and one bridge wide and red.

    Of the bridges (partners of two classes) it is the one of median length; the title says how many there are.
    """
    y = torch.nn.functional.one_hot(labels).double()
    couplings(ax, x, plan.partner, linewidths=0.7, colors="0.75")
    points(ax, plan.mix(x), plan.mix_labels(y), 14)
    crossing = torch.where(labels != labels[plan.partner])[0]
    far = (x - x[plan.partner])[crossing].norm(dim=1)
    title = f"{100 * len(far) / len(x):.0f} % of the lines are bridges"
    if len(far):
        i = crossing[far.argsort()[len(far) // 2]]
        ax.plot(*torch.stack([x[i], x[plan.partner[i]]]).T, "o-", color="red", linewidth=2.5, markersize=5)
        title += f", {far.mean():.1f} long"
    ax.set_title(title)
    return ax


def decision_map(ax, predict, x: Tensor, resolution: int = 120):
    """The plane around the points x (n, 2) in the colours of predict(grid) (n, c); a line where two classes tie."""
    low, high = x.min(0).values, x.max(0).values
    low, high = low - 0.12 * (high - low), high + 0.12 * (high - low)
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
    ax.imshow(np.asarray(matrix), cmap="Purples", vmin=0, vmax=1)
    if numbers:
        for (row, column), value in np.ndenumerate(np.asarray(matrix)):
            if value:
                shade = "white" if value > 0.55 else "black"
                ax.text(column, row, f"{value:.2g}", ha="center", va="center", color=shade, fontsize=8)
    ax.set(xticks=range(len(matrix)), yticks=range(len(matrix)), xlabel="from sample", ylabel="new sample")
    return ax


def label_bars(ax, y: Tensor, names: Sequence[str] = ()):
    """Soft labels y (n, c) as stacked bars, the first row on top; names of the classes, written where there is room."""
    left = np.zeros(len(y))
    for c in range(y.shape[1]):
        bars = ax.barh(range(len(y)), y[:, c], left=left, color=COLOURS[c])
        shown = [names[c] if names and share > 0.14 else "" for share in y[:, c].tolist()]
        ax.bar_label(bars, shown, label_type="center", color="white", fontsize=9, fontweight="bold")
        left += y[:, c].numpy()
    ax.set(yticks=range(len(y)), ylim=(len(y) - 0.5, -0.5), xlim=(0, 1), xlabel="soft label")
    return ax


def reliability(ax, probabilities: Tensor, labels: Tensor):
    """How often answers are right (up) against how sure the network was (across): a dot for every tenth of confidence.

    probabilities (n, c), labels (n,). The area of a dot grows with the answers in it; red lines are the gaps to the
    diagonal, where a network would lie that is right as often as it says.
    """
    confidence, answer = probabilities.max(1)
    where = (confidence * 10).long().clamp(0, 9)
    ax.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1)
    for b in where.unique().tolist():
        sure, right = float(confidence[where == b].mean()), float((answer == labels)[where == b].double().mean())
        ax.plot([sure, sure], [right, sure], color="#c00000", linewidth=2.5, alpha=0.6)
        share = float((where == b).double().mean())
        ax.scatter(sure, right, s=20 + 600 * share, color=COLOURS[0], zorder=3)
    ax.set(xlim=(0, 1.03), ylim=(0, 1.03), aspect="equal", xlabel="how sure it was", ylabel="share that was right")
    return ax


def panels(rows: int = 1, columns: int = 1, width: float = 3.0, height: float | None = None, **options):
    """plt.subplots with one size per panel, tight spacing, and DPI dots an inch: three of these are 990 pixels wide."""
    size = (width * columns, (height or width) * rows)
    return plt.subplots(rows, columns, figsize=size, dpi=DPI, layout="constrained", **options)


def strip(images: Tensor, y: Tensor, titles: Sequence[str] = (), names: Sequence[str] = ()):
    """Images (n, 3 or 1, h, w) in [0, 1] side by side, under each a bar with its soft label y (n, c). A figure.

    names: of the classes, to be written into the bars.
    """
    ratios = {"height_ratios": [6 if names else 8, 1]}
    figure, axes = panels(2, len(images), 1.5, 0.9, squeeze=False, gridspec_kw=ratios)
    for column, (image, label) in enumerate(zip(images, y, strict=True)):
        above, below = axes[:, column]
        above.imshow(image.movedim(0, -1).clamp(0, 1).squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1)
        above.set_title(titles[column] if titles else "", fontsize=9)
        label_bars(below, label[None], names)
        for ax in (above, below):
            ax.set(xticks=[], yticks=[], xlabel="")
    return figure


def dots(ax, results: dict[str, tuple[float, float]], highlight: str | None = None):
    """Methods as dots with error bars, the first on top: name -> (mean, standard error). Any number of them."""
    for row, (name, (mean, error)) in enumerate(results.items()):
        ax.errorbar(mean, row, xerr=error, fmt="o", capsize=3, color=COLOURS[5 if name == highlight else 0])
    ax.set(yticks=range(len(results)), yticklabels=results, ylim=(len(results) - 0.5, -0.5))
    ax.grid(axis="x", alpha=0.3)
    return ax


def arrows(ax, matrix, names: list[str], widest: float = 8.0):
    """Classes on a circle and an arrow from i to j as wide as matrix[i, j]; the diagonal is left out."""
    matrix = np.where(np.eye(len(names), dtype=bool), 0.0, np.asarray(matrix, dtype=float))
    angles = np.pi / 2 - 2 * np.pi * np.arange(len(names)) / len(names)
    places = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    shape = {"arrowstyle": "-|>", "connectionstyle": "arc3,rad=0.15", "shrinkA": 16, "shrinkB": 16, "alpha": 0.7}
    for (i, j), width in np.ndenumerate(widest * (matrix / max(matrix.max(), 1e-12))):
        if width > 0.1:
            look = {"color": COLOURS[i % 10], "lw": width, "mutation_scale": 8 + 2 * width}
            ax.annotate("", places[j], places[i], arrowprops=shape | look)
    for place, name in zip(places, names, strict=True):
        ax.text(*place, name, ha="center", va="center", fontsize=9)
    ax.set(xlim=(-1.3, 1.3), ylim=(-1.3, 1.3))
    _bare(ax).set_axis_off()
    return ax


def curves(ax, x, lines: dict, **labels):
    """One line with markers for every name -> values over x, on a logarithmic axis that shows just these x.

    values: as many as x, or (values, style) with a style of its own. labels: for ax.set.
    """
    for number, (name, values) in enumerate(lines.items()):
        values, style = values if isinstance(values, tuple) else (values, {})
        ax.plot(x, values, **{"marker": "osD^v"[number % 5], "label": name, **line(number), **style})
    ax.set(xscale="log", xticks=x, xticklabels=[f"{value:g}" for value in x], **labels)
    ax.minorticks_off()
    ax.legend(fontsize=9)
    return ax


def show(figure, alt: str) -> None:
    """Display a figure with an alternative text that says what it shows, for readers who do not see it."""
    from IPython.display import Image, display

    display(Image(png(figure), alt=alt))


def frames(draw, settings: list[dict], alt: str) -> None:
    """The static picture beside a slider: what draw(**values) shows at each of the settings, two in a row."""
    from IPython.display import Image, display
    from PIL import Image as Picture

    drawn, buffer = [Picture.open(io.BytesIO(png(draw(**values)))) for values in settings], io.BytesIO()
    width, height = (max(sizes) for sizes in zip(*(picture.size for picture in drawn), strict=True))
    whole = Picture.new("RGB", (width * min(2, len(drawn)), height * -(-len(drawn) // 2)), "white")
    for i, picture in enumerate(drawn):
        whole.paste(picture, (i % 2 * width, i // 2 * height))
    whole.save(buffer, "PNG")
    display(Image(buffer.getvalue(), alt=alt))


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
        image.value = png(draw(**{name: knob.value for name, knob in knobs.items()}))

    for name, knob in knobs.items():
        knob.description = knob.description or name
        knob.observe(redraw, "value")
    redraw()
    return ipywidgets.VBox([*knobs.values(), image])


def png(figure) -> bytes:
    """A figure as the bytes of a PNG; the figure is closed."""
    from PIL import Image

    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    plt.close(figure)
    Image.open(drawn).convert("RGB").save(small, "PNG", optimize=True)  # the same pixels in a sixth less space
    return small.getvalue()


def _bare(ax):
    ax.set(xticks=[], yticks=[], aspect="equal")
    return ax
