"""Which runs answer a printed number: one mapping of the papers' words to the module's, for running and for reporting.

plan_row(papers.rows("kmixup", "table10")[0])     what to run for one number, or a word why it cannot be run
trainings(plans)                                  the different networks among many plans
"""

import json
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from mixlab.data.downloads import atomic_write
from mixlab.kmixup import matched_alpha, mean_square
from mixlab.places import runs_folder
from mixlab.results import papers
from mixlab.results.expressions import build_method, describe, describe_data, load_data, read_data, spell
from mixlab.training.recipes import recipe

DATASETS = {
    **{"CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "SVHN": "svhn", "MNIST": "mnist", "ciFAIR-10": "cifar10"},
    **{"Fashion-MNIST": "fashion-mnist", "Tiny ImageNet": "tiny-imagenet", "LT-CIFAR-100": "cifar100"},
    "Google Speech Commands": "speech-commands",
}
MODELS = {
    **{"PreActResNet-18": "preact_resnet18", "ResNet-18": "resnet18", "ResNet-34": "resnet34", "ResNet-50": "resnet50"},
    **{"DenseNet-121": "densenet_121", "DenseNet-BC-190": "densenet_bc_190_40", "LeNet": "lenet"},
    **{"WideResNet-16-8": "wrn_16_8", "WideResNet-28-10": "wrn_28_10", "WideResNet-101": "wide_resnet_101"},
}
# where a table names no network: the one that its paper uses elsewhere
USUAL_MODELS = {"CIFAR-10": "PreActResNet-18", "MNIST": "LeNet", "LT-CIFAR-100": "ResNet-34"}
# by protocol; those without a recipe are not stated, or belong to small networks
RECIPES = {
    **dict.fromkeys(("image_default", "noise", "fgsm"), "kmixup"),
    **{"speech": "kmixup-speech", "manifold": "kmixup-manifold"},
    **{"cifar10": "confusion-cifar10", "cifar100": "confusion-cifar100"},
    **{"random_mixing": "lamix", "puzzlemix": "lamix-puzzlemix"},
    **dict.fromkeys(("default", "regmixup", "cifair_tuned"), "infinite"),
}
# a printed method in the words of the module: {alpha} stands for a parameter of the row, {mixup} for that method
METHODS = {
    "ERM": "ERM()",
    "mixup": "{mixup}",
    "k-mixup": "{kmixup}",
    "k-manifold-mixup": "ManifoldMixup({kmixup})",
    "confusion-mixup": "ConfusionMixup({alpha}, {gamma})",
    "CutMix": "CutMix({alpha})",
    "PuzzleMix": "PuzzleMix({alpha})",
    "LaMix": "LaMix({beta}, {half})",
    "LaMix without original samples": "LaMix({beta}, {half}, originals=False)",
    "LaMix without global soft label": "LaMix(1.0, {half})",
    "mixup + uniform label smoothing": "LabelSmoothing({smoothing}, {mixup})",
    "RegMixup": "RegMixup({mixup})",
    "Remix": "{remix}",
    "IC-Mixup": "InfiniteClass({mixup})",
    "IC-Mixup (class axis)": "InfiniteClass({mixup}, 'class')",
    "IC-Mixup (pair axis)": "InfiniteClass({mixup}, 'pair')",
    "IC-RegMixup": "RegMixup(InfiniteClass({mixup}))",
    "IC-Remix": "InfiniteClass({remix})",
}
MEDICAL = ("ISIC 2016", "ISIC 2017", "ISIC 2018", "DermoFit")
# what a reader should know of a row, by its protocol or data set
NOTES = dict.fromkeys(("noise", "fgsm"), "the text does not say whether alpha is raised with k: here it is not")
NOTES["ciFAIR-10"] = "CIFAR-10's own test set: ciFAIR's replaced images are not here, nor the tuned recipe"
NOTES["LT-CIFAR-100"] = "the text names no network: ResNet-34, as elsewhere in the paper"
DISTANCES = runs_folder().parent / "distances"  # a file a data set: {k: mean squared distance of partners}


@dataclass(frozen=True)
class Planned:
    """A run without its seed, and what to read off its record.

    measure: "error", or one of the record's measures, such as "noise_8". held: `method` has the alpha that labels the
    column, and a larger one is trained, by Algorithm 1. batch_size: where rows differ in it.
    """

    data: str
    model: str
    method: str
    recipe: str
    measure: str = "error"
    held: bool = False
    batch_size: int | None = None
    note: str = ""

    def trained(self, measure: bool = False) -> str | None:
        """The method as it is trained; None if that takes distances that nobody has measured (measure: do it now)."""
        if not self.held:
            return self.method
        label = build_method(self.method, seed=0)
        ratio = distance_ratio(self.data, label.k, measure)
        with warnings.catch_warnings():  # a xi out of reach: the largest alpha, as Algorithm 1 has it
            warnings.simplefilter("ignore")
            return ratio and f"KMixup(alpha={float(f'{matched_alpha(label.alpha, ratio):.4g}')}, k={label.k})"

    def under(self, budget: str | None) -> "Planned":
        """The same plan under another budget, though with the batch size where the row is about that."""
        if budget is None or self.batch_size in (None, recipe(budget).batch_size):
            return replace(self, recipe=budget or self.recipe)
        name, _, changes = budget.rstrip(") ").partition("(")
        return replace(self, recipe=f"{name}({changes}{', ' * bool(changes)}batch_size={self.batch_size})")


def plan_row(row: dict, data_as: str | None = None) -> tuple[Planned, ...] | str:
    """The runs that answer a row of `papers.rows`, or a word why there are none.

    One, as a rule; the best of a sweep has them all, and is the least of their means. data_as: another set to train on.
    """
    params, protocol, method = row["params"], row.get("protocol"), method_of(row)
    if row["dataset"] in MEDICAL:
        return "medical images: no access"
    if protocol in ("toy", "uci"):
        return "small networks, many at once: the k-mixup notebook trains them"
    if protocol not in RECIPES or row["dataset"] not in DATASETS:
        return "no protocol printed"
    if _model(row) is None:
        return "no such network here"
    if "selection" in params:
        return tuple(plan for cell in _sweep(row) for plan in plan_row(cell, data_as))
    if method is None:
        return "no such method here"
    held = row["method"] == "k-mixup" and "xi" in params and params["k"] > 1
    measures = [f"{kind}_{params[f'{kind}_eps']:g}" for kind in ("noise", "fgsm") if f"{kind}_eps" in params]
    about = {"held": held, "batch_size": params.get("batch_size")}
    about |= {"note": NOTES.get(row["dataset"]) or NOTES.get(protocol, "")}
    return (Planned(_data(row, data_as), _model(row), method, _recipe(row), *measures, **about),)


def trainings(plans: Iterable[Planned], budget: str | None = None) -> list[Planned]:
    """The different networks to train, under another budget if there is one; one may answer cells of all strengths."""
    return list(dict.fromkeys(replace(p.under(budget), measure="error", batch_size=None) for p in plans))


def method_of(row: dict) -> str | None:
    """A printed method in the words of the module; None if it has no such method, or the row lacks a parameter."""
    given = row["params"]
    values = {**dict.fromkeys(("k", "beta", "gamma", "kappa", "tau", "smoothing")), **given}  # None: not given
    values["alpha"] = given.get("alpha", 1.0 if row.get("paper") == "lamix" else None)  # there lambda is uniform
    values["mixup"] = "Mixup({alpha})".format(**values)
    values["kmixup"] = values["mixup"] if values["k"] == 1 else "KMixup({alpha}, {k})".format(**values)
    values["remix"] = "Remix({alpha}, kappa={kappa}, tau={tau})".format(**values)
    values["half"] = "PuzzleMix(1.0)" if "input" in given else "Mixup(1.0, per_sample=True)"
    return _canonical(METHODS[row["method"]].format(**values)) if row["method"] in METHODS else None


@cache
def _canonical(expression: str) -> str | None:
    try:
        return describe(build_method(expression, seed=0))
    except ValueError:
        return None


def _model(row: dict) -> str | None:
    """The network or None. LaMix's text points to code that halves Tiny-ImageNet at the stem; k-mixup's is silent."""
    model = MODELS.get(row["model"] or USUAL_MODELS.get(row["dataset"]))
    halved = row.get("paper") == "lamix" and row["dataset"] == "Tiny ImageNet"
    return f"{model}(stem_stride=2)" if model and halved else model


def _data(row: dict, data_as: str | None) -> str:
    """The set with what the row does to it: a share, a long tail, 50 a class, or LaMix's MNIST at 32 pixels."""
    renamed = {"fraction": "fraction", "imbalance_ratio": "long_tailed"}
    options = {renamed[key]: value for key, value in row["params"].items() if key in renamed}
    options |= {"size": 32} if row["paper"] == "lamix" and "MNIST" in row["dataset"] else {}
    options |= {"per_class": 50} if row["dataset"] == "ciFAIR-10" else {}
    return with_options(data_as or DATASETS[row["dataset"]], options)


def with_options(data: str, options: dict) -> str:
    """The data set with these options, except where it has chosen its own."""
    name, own = read_data(data)
    return describe_data(spell(name, {**options, **own}))


def _recipe(row: dict) -> str:
    """The protocol's recipe with the batch size of the row; digits are not augmented, since a flipped one is none."""
    changes = ["augment=False"] if row["dataset"] in ("MNIST", "SVHN") else []
    size = row["params"].get("batch_size", 128)
    changes += [f"batch_size={size}"] if size != 128 else []
    return RECIPES[row["protocol"]] + (f"({', '.join(changes)})" if changes else "")


def _sweep(row: dict) -> list[dict]:
    """The cells that a "best over" cell is the best of; ERM is among them, as alpha = 0 (the paper's footnote 6)."""
    alike = [cell for cell in papers.rows(row["paper"]) if cell["table"] != row["table"]]
    alike = [cell for cell in alike if all(cell[key] == row[key] for key in ("dataset", "model", "protocol"))]
    k = row["params"].get("k")
    return [cell for cell in alike if k is None or cell["params"].get("k", k) == k]


def distance_ratio(data: str, k: int, measure: bool = False) -> float | None:
    """Mean squared distance of random pairs of training images over that of pairs matched in blocks of k.

    Kept in data/distances, so that a report tells which alpha was trained without the images. None if that has no
    answer and it is not to be measured now.
    """
    path = DISTANCES / f"{''.join(c if c.isalnum() or c in '.=-' else '_' for c in data)}.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    lacking = [block for block in (1, k) if str(block) not in found]
    if lacking and not measure:
        return None
    if lacking:
        found |= {str(block): _distance(data, block) for block in lacking}
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            Path(temporary).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return max(1.0, found["1"] / found[str(k)])


def _distance(data: str, k: int) -> float:
    """The mean squared distance of matched partners, in 4,000 training images normalised as the network gets them."""
    loaded, rng = load_data(data), np.random.default_rng(0)
    chosen = rng.permutation(len(loaded.train_x))[:4000]
    x = (loaded.train_x[chosen].float() / 255 - loaded.mean[:, None, None]) / loaded.std[:, None, None]
    return float(f"{np.mean([mean_square(x, k, rng, pairs=1000) for _ in range(10)]):.6g}")
