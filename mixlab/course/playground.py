"""The playground: pick a mixing or two, turn their knobs, and see at once what becomes of points and pictures.

A mixing is an expression such as "KMixup(alpha=1.0, k=16)": pick one that the module has, or type one, also one inside
another. Every number in it becomes a knob.
"""

import io
import re
import textwrap
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import pad

from mixlab.course import pictures
from mixlab.data import toys
from mixlab.data.subsets import random_labels
from mixlab.plans import one_hot
from mixlab.results.expressions import build_method, usual_methods
from mixlab.training.sweeps import fit_many

SETS = ("one_ring", "four_bars", "swiss_roll", "half_moons", "digits")
BATCH, SHOWN = 64, 9  # samples mixed at a time; of them shown with their labels
ADAM = partial(torch.optim.Adam, lr=4e-3, fused=True)
NUMBER = re.compile(r"(\w+)=(\d+(?:\.\d+)?)")


def load(name: str, noise: float = 0.0) -> toys.ToySet:
    """A small set by name, with that share of its training labels drawn at random."""
    if name not in SETS:
        raise ValueError(f"name must be one of {', '.join(SETS)}, not {name!r}")
    data = toys.digits(1000) if name == "digits" else toys.TOYS[name](512, 1000)
    return random_labels(data, noise, 0) if noise else data


def mix(data: toys.ToySet, expression: str) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The training set in a random order, mixed batch by batch: x (n, …) and labels (n,) as they were, x (n, …) and
    soft labels (n, c) as they came out, and W of the first batch."""
    method, classes = build_method(expression, 0), len(data.classes)
    method.prepare(torch.nn.Linear(data.train_x.shape[1], classes), data.train_y)
    order = torch.randperm(len(data.train_x), generator=torch.Generator().manual_seed(0))
    x, labels = data.train_x[order], data.train_y[order]
    x = x.view(-1, 1, 8, 8) if x.shape[1] > 2 else x
    batches = list(zip(x.split(BATCH), labels.split(BATCH), strict=True))
    plans = [method.draw(*batch) for batch in batches]
    mixed = torch.cat([plan.mix(rows) for plan, (rows, _) in zip(plans, batches, strict=True)])
    y = torch.cat([method.targets(plan, rows, classes) for plan, (_, rows) in zip(plans, batches, strict=True)])
    return x, labels, mixed, y, plans[0].matrix()


def look(data: str = "one_ring", noise: float = 0.0, first: str = "Mixup(alpha=1.0)", second: str = ""):
    """A figure, a row for each mixing: the samples as they are and mixed, some soft labels, and W."""
    wanted, chosen = [*filter(None, (first, second))] or ["ERM()"], load(data, noise)
    n = len(wanted)  # laid out by hand, which is faster
    figure, rows = pictures.plt.subplots(n, 4, figsize=(11.6, 2.9 * n), dpi=pictures.DPI, squeeze=False)
    figure.subplots_adjust(left=0.02, right=0.98, bottom=0.17 / n, top=1 - 0.09 / n, hspace=0.35, wspace=0.12)
    for axes, expression in zip(rows, wanted, strict=True):
        try:
            _show_mix(axes, chosen, expression, *mix(chosen, expression))
        except ValueError as problem:
            _say(axes[0], expression, problem)
    return figure


def train(data: str = "one_ring", noise: float = 0.0, first: str = "Mixup(alpha=1.0)", second: str = ""):
    """A figure: what small networks learn with each mixing, beside ERM: maps of the plane, or errors on digits."""
    wanted, chosen = ["ERM()", *filter(None, (first, second))], load(data, noise)
    figure, axes = pictures.panels(1, len(wanted), 3.4, squeeze=False)
    for ax, expression in zip(axes[0], wanted, strict=True):
        try:
            began = time.perf_counter()
            how = {"epochs": 40, "batch_size": BATCH, "optimizer": ADAM, "progress": False}
            nets = fit_many(chosen, [build_method(expression, 0)], [0], **how)
            error = float(nets.error(chosen.test_x, chosen.test_y))
            _show_learnt(ax, chosen, lambda x, nets=nets: nets.predict(x)[0])
            ax.set_title(f"{expression}\n{error:.1f}% wrong, {time.perf_counter() - began:.1f} s", fontsize=9)
        except ValueError as problem:
            _say(ax, expression, problem)
    return figure


def panel():
    """The knobs and the picture, for a notebook."""
    import ipywidgets as widgets

    menus = [_Mixing("first", "Mixup(alpha=1.0)"), _Mixing("second", "KMixup(alpha=1.0, k=16)")]
    data = widgets.Dropdown(options=SETS, description="set")
    noise = widgets.FloatSlider(value=0, min=0, max=0.6, step=0.1, description="noise", readout_format=".0%")
    button = widgets.Button(description="train", tooltip="small networks, a second or two each")
    image, learnt = widgets.Image(format="png"), widgets.Image(format="png")

    def chosen() -> dict:
        return {"data": data.value, "noise": noise.value, **{menu.name: menu.expression() for menu in menus}}

    def redraw(_=None):
        image.value, learnt.value = _at_once(look(**chosen())), b""

    def learn(_=None):
        learnt.value = pictures.png(train(**chosen()))

    for knob in (data, noise):
        knob.observe(redraw, "value")
    for menu in menus:
        menu.changed = redraw
    button.on_click(learn)
    redraw()
    return widgets.VBox([widgets.HBox([data, noise, button]), *(menu.box for menu in menus), image, learnt])


class _Mixing:
    """A field for an expression, and a slider for every number in it."""

    def __init__(self, name: str, expression: str):
        import ipywidgets as widgets

        self.name, self.changed = name, lambda: None
        look = {"options": usual_methods(), "description": name, "continuous_update": False}
        self.field, self.knobs, self.box = widgets.Combobox(value=expression, **look), [], widgets.HBox()
        self.field.observe(self._refill, "value")
        self._refill()

    def expression(self) -> str:
        """The field's expression with the numbers that the knobs show."""
        values = iter(self.knobs)
        return NUMBER.sub(lambda found: f"{found[1]}={next(values).value:.4g}", self.field.value)

    def _refill(self, _=None):
        self.knobs = [_knob(*found) for found in NUMBER.findall(self.field.value)]
        for knob in self.knobs:
            knob.observe(lambda change: self.changed(), "value")
        self.box.children = [self.field, *self.knobs]
        self.changed()


def _at_once(figure) -> bytes:
    """A figure as a PNG in a hurry: coarser and less compressed than what is stored."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=80, pil_kwargs={"compress_level": 1})
    pictures.plt.close(figure)
    return drawn.getvalue()


def _knob(name: str, value: str):
    import ipywidgets as widgets

    if "." not in value:
        return widgets.IntSlider(value=int(value), min=1, max=max(BATCH, int(value)), description=name)
    return widgets.FloatLogSlider(value=float(value), min=-2, max=2, step=0.05, description=name)


def _show_mix(axes, data, expression: str, x, labels, mixed, y, W) -> None:
    before, after, bars, matrix = axes
    if x.dim() == 2:
        pictures.points(before, x, one_hot(labels, len(data.classes)))
        pictures.points(after, mixed, y)
        after.set(xlim=before.get_xlim(), ylim=before.get_ylim())
    else:
        for ax, images in ((before, x), (after, mixed)):
            tiles = pad(images[:SHOWN, 0], (1, 1, 1, 1)).view(3, 3, 10, 10)  # three rows, with white between
            ax.imshow(tiles.movedim(1, 2).reshape(30, 30).numpy(), cmap="gray_r", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
    xi = (mixed - x).flatten(1).square().sum(1).mean().sqrt()  # how far mixing moves a sample, root mean square
    pictures.label_bars(bars, y[:SHOWN], data.classes if len(data.classes) > 2 else ())
    pictures.weights(matrix, W, numbers=False).set(xticks=[], yticks=[])
    titles = (expression, f"mixed: a sample moves by {xi:.2f} (xi)", f"the labels of {SHOWN} of them")
    for ax, title in zip(axes, (*titles, f"W of a batch of {len(W)}"), strict=True):
        ax.set_title(title, fontsize=9)


def _show_learnt(ax, data, predict: Callable[[Tensor], Tensor]) -> None:
    if data.train_x.shape[1] > 2:
        answers = predict(data.test_x).argmax(1)
        confused = torch.bincount(10 * data.test_y + answers, minlength=100).view(10, 10)
        ax.imshow(confused.fill_diagonal_(0).numpy(), cmap="Reds", vmin=0, vmax=20)
        ax.set(xlabel="answer", ylabel="digit", xticks=range(10), yticks=range(10))
        return
    pictures.decision_map(ax, predict, data.train_x)
    pictures.points(ax, data.train_x, one_hot(data.train_y, len(data.classes)), 4)


def _say(ax, expression: str, problem: ValueError) -> None:
    """Why a mixing has nothing to show here, in its place."""
    ax.text(0, 0.5, "\n".join(textwrap.wrap(f"{expression}: {problem}", 45)), va="center", fontsize=9)
    ax.set_axis_off()
