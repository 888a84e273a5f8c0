"""Pictures of lesson 06 and the lowest loss that any scores reach: what would fill its cells with plotting."""

import numpy as np
import torch
from matplotlib.patches import Rectangle
from torch import Tensor

from mixlab.course import pictures
from mixlab.course.pictures import COLOURS, panels
from mixlab.infinite import InfiniteClass, infinite_class_loss
from mixlab.mixup import Mixup
from mixlab.results import papers, records
from mixlab.results.expressions import describe

OURS = "shapes(size=16, n_train=4000, n_test=1000{})"
PLACES = {
    "a tail, 400 to 4": (", long_tailed=0.01", "short60"),
    "a tail, 400 to 40": (", long_tailed=0.1", "short60"),
    "50 per class": (", per_class=50", "short60"),
    "a quarter": (", fraction=0.25", "quick"),
    "a half": (", fraction=0.5", "quick"),
    "all 4,000": ("", "quick"),
}


def lowest(y: Tensor, axes: str) -> tuple[float, Tensor]:
    """The lowest loss that any scores reach on the mixed labels y (n, c), and those scores: a convex problem."""
    free = torch.zeros_like(y, requires_grad=True)
    solver = torch.optim.LBFGS([free], max_iter=300, line_search_fn="strong_wolfe", tolerance_change=1e-9)

    def closure():
        solver.zero_grad()
        value = infinite_class_loss(free, y, axes)
        value.backward()
        return value

    solver.step(closure)
    return closure().item(), free.detach()


def tail(data):
    """Up to four training pictures of every digit, with how many there are."""
    figure, axes = panels(1, 10, width=1.0, height=2.3)
    for c, ax in enumerate(axes):
        every = data.train_x[data.train_y == c]
        own = every[:4].view(-1, 8)
        ax.imshow(torch.cat([own, torch.zeros(32 - len(own), 8)]), cmap="gray_r", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
        ax.set_title(str(len(every)), fontsize=10)
    title = f"{len(data.train_y)} training pictures, and how many of each digit (at most four shown)"
    figure.suptitle(title, fontsize=10)
    return figure


def lead(errors: dict, by_digit: dict):
    """errors: method -> (mean, standard error); by_digit: method -> ten error rates, three methods."""
    figure, (left, right) = panels(1, 2, width=4.6, height=3.0)
    pictures.dots(left, errors, "Infinite Class Mixup")
    left.set(xlabel="test error in %", title="It wins by a wide margin …")
    looks = zip((6, 0, 5), ("o:", "s--", "D-"), strict=True)
    for (name, values), (colour, style) in zip(by_digit.items(), looks, strict=True):
        right.plot(values, style, color=COLOURS[colour], label=name)
    right.set(xticks=range(10), xlabel="digit, from common to rare", ylabel="test error in %")
    right.set_title("… and it wins on the rare digits")
    right.legend(fontsize=8)
    return figure


def classifiers(W: Tensor, y: Tensor, feature: Tensor, names: list[str], one: int):
    """Classifiers W (2, 3), the mixed ones W y_j, and the features of picture `one`; beside it, their dot products."""
    figure, (left, right) = panels(1, 2, width=4.6, height=3.6)
    far = float(W.abs().max())
    left.fill(*W, facecolor="0.95", edgecolor="0.7")
    pictures.points(left, y @ W.T, y, size=70)
    for c in range(3):
        left.text(*(1.22 * W[:, c]), "ABC"[c], fontsize=13, ha="center", va="center", color=COLOURS[c])
    left.annotate("", 1.3 * far * feature / feature.norm(), (0, 0), arrowprops={"arrowstyle": "->", "lw": 2})
    left.scatter(*(W @ y[one]), s=170, facecolors="none", edgecolors=COLOURS[5], linewidths=2)
    left.set(xlim=(-1.6 * far, 1.6 * far), ylim=(-1.6 * far, 1.6 * far))
    left.set_title(f"Mixed classifiers lie between A, B and C;\nthe arrow is the features of {names[one]}", fontsize=10)
    right.barh(names, feature @ W @ y.T, color=pictures.colours(y))
    right.get_yticklabels()[one].set_color(COLOURS[5])
    right.set(xlabel="dot product with the arrow: the score")
    right.set_title("Who reaches farthest along the arrow\nhas the highest score", fontsize=10)
    right.invert_yaxis()
    return figure


def matrices(shown: dict[str, Tensor], names: list[str]):
    """Probabilities of n pictures (rows) and n classifiers (columns), the diagonal framed and written out."""
    figure, axes = panels(1, len(shown), width=3.5, height=3.7)
    for ax, (title, matrix) in zip(axes, shown.items(), strict=True):
        pictures.weights(ax, matrix, numbers=False)
        for i, value in enumerate(matrix.diagonal().tolist()):
            ax.add_patch(Rectangle((i - 0.5, i - 0.5), 1, 1, fill=False, edgecolor=COLOURS[5], linewidth=2))
            shade = "white" if value > 0.55 else "black"
            ax.text(i, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color=shade)
        ax.set(xticklabels=names, yticklabels=names, xlabel="classifier", ylabel="picture")
        ax.tick_params(axis="x", rotation=90)
        ax.set_title(title, fontsize=10)
    return figure


def repeated(sizes, unique: dict, floor: dict):
    """name -> percent of unique classes, and name -> floor in nats, over the batch sizes."""
    figure, axes = panels(1, 2, width=4.4, height=2.8)
    for ax, values in zip(axes, (unique, floor), strict=True):
        for (name, line), style in zip(values.items(), ("o-", "s--", "D:"), strict=True):
            ax.semilogx(sizes, line, style, base=2, label=name)
        ax.set(xlabel="batch size", xticks=sizes, xticklabels=sizes)
    axes[0].set(ylabel="unique classes in %", ylim=(0, 105), title="Large batches repeat their classes …")
    axes[1].set(ylabel="floor in nats", title="… and every copy has its price")
    axes[1].legend(fontsize=8)
    return figure


def floors(lows: dict):
    """(alpha, one lambda per batch or picture, axis) -> lowest loss."""
    figure, axes = panels(1, 2, width=4.6, height=3.0, sharex=True, sharey=True)
    kinds = ("per batch", "per picture")
    for ax, alpha in zip(axes, (1.0, 0.2), strict=True):
        for j, axis in enumerate(("class", "pair", "both")):
            place = np.arange(2) + 0.25 * (j - 1)
            ax.barh(place, [lows[alpha, kind, axis] for kind in kinds], 0.22, color=COLOURS[j], label=axis)
        ax.set(yticks=(0, 1), yticklabels=kinds, xlabel="lowest possible loss in nats", title=f"alpha = {alpha}")
    axes[1].legend(title="axis", fontsize=8)
    figure.suptitle("One lambda per picture mends the pair axis, and not the class axis", fontsize=11)
    return figure


def best_answers(y: Tensor):
    """The two softmaxes at the best scores for the mixed labels y (n, c)."""
    n = len(y)
    y = y[(y @ torch.arange(y.shape[1]).to(y) ** 1.1).argsort()]
    figure, axes = panels(1, 2, width=2.6, height=2.9)
    for ax, which, dim in zip(axes, ("class", "pair"), (1, 0), strict=True):
        value, best = lowest(y, which)
        ax.imshow((best @ y.T).softmax(dim), cmap="Purples", vmin=0, vmax=1)
        ax.plot(range(n), range(n), "s", markersize=60 / n, fillstyle="none", color=COLOURS[5])
        ax.set(xticks=[], yticks=[], xlabel="classifier", ylabel="picture", title=f"{which} axis: {value:.2f} nats")
    return figure


def curves(derived: dict, trained: dict, d):
    """name -> lambda at every score difference d, as thick lines; name -> (lambda, d) of a network, as dots."""
    figure, ax = panels(1, 1, width=7, height=4.2)
    for (name, lam), colour in zip(derived.items(), (0, 5), strict=True):
        ax.plot(lam, d, color=COLOURS[colour], linewidth=7, alpha=0.35, label=f"derived: {name}")
    for (name, (lam, seen)), colour, style in zip(trained.items(), (0, 5, 2), "os^", strict=True):
        ax.plot(lam, seen, style, markersize=4, color=COLOURS[colour], label=f"trained: {name}")
    ax.set(ylim=(-15, 15), xlabel="lambda", ylabel="score difference d")
    ax.set_title("The networks sit on the curves that were derived for them", fontsize=11)
    ax.legend(fontsize=9)
    return figure


def one_curve(lam, d, title: str):
    """The best lambda at every score difference d, beside mixup's logit."""
    figure, ax = panels(1, 1, width=3.4, height=3.0)
    ax.plot(lam, d, color=COLOURS[5])
    ax.plot(1 / (1 + np.exp(-d)), d, "--", color=COLOURS[0])
    ax.set(ylim=(-15, 15), xlabel="lambda", ylabel="score difference d")
    ax.set_title(title, fontsize=10)
    return figure


def rates(over: dict, at):
    """place -> method -> (mean, standard error) at every learning rate; a title per place."""
    figure, axes = panels(1, len(over), width=4.4, height=3.0, sharey=True)
    for ax, (title, methods) in zip(axes, over.items(), strict=True):
        for (name, values), colour, style in zip(methods.items(), (0, 5), ("s--", "D-"), strict=True):
            mean, error = np.transpose(values)
            ax.errorbar(at, mean, error, fmt=style, capsize=3, color=COLOURS[colour], label=name)
        ax.set(xscale="log", xticks=at, xticklabels=at, xlabel="learning rate")
        ax.set_title(title, fontsize=10)
        ax.minorticks_off()
    axes[0].set(ylabel="test error in %", ylim=(0, None))
    axes[0].legend(fontsize=8)
    return figure


def gap_of(stored: list[dict], data: str, budget: str, plain, other) -> list[float]:
    """The error of the method `other` minus that of `plain`, seed by seed, where both are stored."""
    runs = [run for run in stored if (run.get("data"), run["budget"]) == (data, budget)]
    words = describe(plain), describe(other)
    first, second = ({r["seed"]: r["error"] for r in runs if r.get("expression") == word} for word in words)
    return [second[seed] - first[seed] for seed in first if seed in second]


def stored_gaps() -> dict[str, list[float]]:
    """Infinite Class Mixup's error minus mixup's in the stored runs, seed by seed, for every place asked for."""
    stored, _ = records.read()
    published = Mixup(0.2), InfiniteClass(Mixup(0.2))
    gaps = {place: gap_of(stored, OURS.format(extra), how, *published) for place, (extra, how) in PLACES.items()}
    photos = Mixup(1.0, per_sample=True), InfiniteClass(Mixup(1.0, per_sample=True))
    return gaps | {"CIFAR-10, a twentieth": gap_of(stored, "cifar10-jpeg(fraction=0.05)", "twentieth", *photos)}


def published_gaps() -> dict[str, float]:
    """The same from the paper's tables, on CIFAR-100; the paper prints no spreads."""
    rows = [row for row in papers.rows("infinite") if row["params"].get("batch_size", 128) == 128]
    error = {(r["method"], *map(r["params"].get, ("fraction", "imbalance_ratio"))): r["error"] for r in rows}
    cells = {f"{100 * share:.0f} % of CIFAR-100": (share, None) for share in (1.0, 0.5, 0.25, 0.1)}
    cells["a tail of CIFAR-100, 100 to 1"] = None, 0.01
    return {name: error["IC-Mixup", *cell] - error["mixup", *cell] for name, cell in cells.items()}


def gaps(ours: dict[str, list[float]], theirs: dict[str, float]):
    """Both as dots: ours with the standard error over the seeds, where there are two runs at least."""
    figure, (left, right) = panels(1, 2, width=4.9, height=3.0)
    means = {f"{k} (n = {len(g)})": (np.mean(g), np.std(g, ddof=1) / len(g) ** 0.5) for k, g in ours.items() if g[1:]}
    for ax, values in ((left, means), (right, {name: (value, 0) for name, value in theirs.items()})):
        pictures.dots(ax, values).set(xlabel="error minus mixup's, in points")
        ax.axvline(0, color="0.4", linewidth=0.8)
    left.set_title("Ours: the lead is largest in the steep tail", fontsize=10)
    right.set_title("The paper prints no spreads", fontsize=10)
    return figure
