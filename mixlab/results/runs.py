"""Many runs in a row: what a run is, in text, in Python and in its record; doing what is missing; sharing the work.

    Run("shapes", "quick_resnet", "Mixup(alpha=1.0)", "quick", seed=0)

The same five words stand on the command line, in the record under data/runs and in the checkpoint.
"""

import ast
import fcntl
import hashlib
import inspect
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
import torch

import mixlab
from mixlab.data import subsets
from mixlab.mixup import Method
from mixlab.places import ROOT
from mixlab.results import papers, records
from mixlab.training.recipes import recipe

SUBSETS = {"fraction": subsets.fraction, "per_class": subsets.per_class, "long_tailed": subsets.long_tailed}
CHECKPOINTS = ROOT / "data" / "cache" / "checkpoints"
# printed names of data sets and networks, in the words of the module
DATASETS = {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "SVHN": "svhn", "MNIST": "mnist"}
DATASETS |= {"Fashion-MNIST": "fashion-mnist", "Tiny ImageNet": "tiny-imagenet"}
DATASETS |= {"Google Speech Commands": "speech-commands"}
MODELS = {"PreActResNet-18": "preact_resnet18", "ResNet-18": "resnet18", "ResNet-34": "resnet34", "LeNet": "lenet"}
MODELS |= {"ResNet-50": "resnet50", "DenseNet-121": "densenet_121", "WideResNet-28-10": "wrn_28_10"}
MODELS |= {"DenseNet-BC-190": "densenet_bc_190_40", "WideResNet-101": "wide_resnet_101"}


@dataclass(frozen=True)
class Run:
    """data by name, or as in "shapes(n_train=4000)"; model and recipe by name; method as in "Mixup(alpha=1.0)"."""

    data: str
    model: str
    method: str
    recipe: str
    seed: int

    @property
    def key(self) -> str:
        """A short name that no other run shares: for files."""
        text = json.dumps(asdict(self), sort_keys=True)
        words = "-".join("".join(c if c.isalnum() else "_" for c in w) for w in (self.data, self.model, self.method))
        return f"{words[:80]}-{self.recipe}-{self.seed}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def path(self, folder: Path | str = records.FOLDER) -> Path:
        """Where its record stands once it is done."""
        return Path(folder) / f"{self.key}.json"


def make_run(data: str, model: str, method: str, recipe_name: str, seed: int) -> Run:
    """A run with every word checked and the method in its canonical form, so that equal runs have equal keys."""
    from mixlab.training.models import names

    recipe(recipe_name)
    if model not in names():
        raise ValueError(f"model must be one of {', '.join(names())}, not {model!r}")
    return Run(data, model, describe(build_method(method, seed=0)), recipe_name, int(seed))


def methods() -> dict[str, type[Method]]:
    """Every method of the module, by name."""
    exported = {name: getattr(mixlab, name) for name in mixlab.__all__}
    return {n: c for n, c in exported.items() if inspect.isclass(c) and issubclass(c, Method) and c is not Method}


def build_method(expression: str, seed: int) -> Method:
    """The method that an expression such as "LabelSmoothing(0.1, Mixup(alpha=1.0))" describes; nothing is evaluated.

    Every part draws from a generator of its own, made from the seed and its place in the expression.
    """
    try:
        method = _build(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, TypeError) as problem:
        raise ValueError(f"method {expression!r} cannot be understood: {problem}") from None
    if not isinstance(method, Method):
        raise ValueError(f"method must be one of {', '.join(methods())}, with its parameters; not {expression!r}")
    for place, part in enumerate(m for m in method.modules() if isinstance(m, Method)):
        part.rng = np.random.default_rng([seed, 3, place])
    return method


def usual_methods() -> list[str]:
    """Every method of the module, at the parameters a comparison starts from: nobody keeps a list of them by hand."""
    return [describe(method(**method.usual)) for method in methods().values()]


def describe(method: Method) -> str:
    """The canonical expression of a method: its name and every parameter that is not at its default."""
    inside = [f"{k}={describe(v) if isinstance(v, Method) else repr(v)}" for k, v in parameters(method).items()]
    return f"{type(method).__name__}({', '.join(inside)})"


def parameters(method: Method) -> dict:
    """The parameters of a method that differ from their defaults; methods keep each under its own name."""
    stated = {}
    for name, parameter in inspect.signature(type(method)).parameters.items():
        if name != "rng" and getattr(method, name) != parameter.default:
            stated[name] = getattr(method, name)
    return stated


def do(runs: list[Run], folder=records.FOLDER, device=None, minutes=None, progress=True, compile=False) -> int:
    """Do what has no record yet, and return how many are still without one.

    Workers that share `folder` and `data/cache` never do a run twice: each holds a lock while it trains, which the
    system lets go when it dies, so that another takes up its checkpoint. Under torchrun each takes its own GPU and
    begins at its own place in the list. minutes: stop at the end of an epoch before that time is up. compile: train
    through torch.compile, which the record then says.
    """
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    rank = int(os.environ.get("RANK", 0))
    device = device or default_device()
    missing = [run for run in runs if not run.path(folder).exists()]
    missing = missing[rank:] + missing[:rank]
    while missing:
        others_at_work = False
        for run in missing:
            if deadline and time.monotonic() > deadline:
                return _count_missing(runs, folder)
            with _claim(run) as mine:
                if not mine:
                    others_at_work = True
                elif not run.path(folder).exists() and not _do_one(run, folder, device, deadline, progress, compile):
                    return _count_missing(runs, folder)
        if others_at_work:
            time.sleep(0.5)  # should one of them die, its run is taken up here
        missing = [run for run in missing if not run.path(folder).exists()]
    return 0


def default_device() -> str:
    """This worker's GPU if there is one."""
    return f"cuda:{int(os.environ.get('LOCAL_RANK', 0))}" if torch.cuda.is_available() else "cpu"


def _count_missing(runs: list[Run], folder) -> int:
    return sum(not run.path(folder).exists() for run in runs)


def from_table(table: str, recipe_name: str, seeds: Iterable[int], data_as: str | None = None) -> list[Run]:
    """The runs that would answer a published table such as "kmixup/table10", as far as the module has their parts.

    data_as: the data set to train on in place of the printed one (a JPEG copy, or shapes for a rehearsal).
    """
    found = []
    for row in papers.rows(*table.split("/")):
        name, params = papers.same_method(row)
        if name not in methods() or row["model"] not in MODELS or (data_as is None and row["dataset"] not in DATASETS):
            continue
        method = f"{name}({', '.join(f'{k}={v!r}' for k, v in params.items())})"
        data = data_as or DATASETS[row["dataset"]]
        try:
            build_method(method, seed=0)
        except ValueError:
            continue  # the row has parameters of another kind, such as a fraction of the data
        found += [make_run(data, MODELS[row["model"]], method, recipe_name, seed) for seed in seeds]
    if not found:
        raise ValueError(f"table {table!r} has no row whose data set, network and method are all in the module")
    return list(dict.fromkeys(found))


def from_grid(path: Path | str) -> list[Run]:
    """A JSON file {"data": […], "model": […], "method": […], "recipe": […], "seeds": 5}: every combination."""
    grid = json.loads(Path(path).read_text(encoding="utf-8"))
    axes = ("data", "model", "method", "recipe")
    lacking = {*axes, "seeds"} - set(grid)
    if lacking:
        raise ValueError(f"grid {Path(path).name} lacks {', '.join(sorted(lacking))}")
    seeds = range(grid["seeds"])
    return [make_run(*words, seed) for seed in seeds for words in product(*(grid[axis] for axis in axes))]


def estimate(run: Run, device: str, measured: list[dict]) -> float | None:
    """About how many seconds a run takes, by records of the same data and network on this device; None if none."""
    here = records.circumstances(device)["device"]
    alike = [r for r in measured if (r.get("data"), r["model"], r.get("device")) == (run.data, run.model, here)]
    speeds = [r["seconds"] / len(r["curve"]) for r in alike if r.get("curve")]
    return float(np.median(speeds)) * recipe(run.recipe).epochs if speeds else None


def _do_one(run: Run, folder, device: str, deadline, progress: bool, compile: bool) -> bool:
    """Train, write the record, drop the checkpoint: True. Or stop at the deadline, the checkpoint in place: False."""
    from mixlab.training.loop import fit
    from mixlab.training.models import build

    data = load_data(run.data)
    channels, *size = data.train_x.shape[1:]
    model = build(run.model, len(data.classes), in_channels=channels, image_size=tuple(size), seed=run.seed)
    method = build_method(run.method, run.seed)
    checkpoint = CHECKPOINTS / f"{run.key}.pt"
    if progress:
        print(f"{run.method}, seed {run.seed}: {run.model} on {run.data}, {run.recipe}", flush=True)
    how = {"checkpoint": checkpoint, "run": run.key, "deadline": deadline, "progress": progress, "compile": compile}
    result = fit(data, model, method, recipe(run.recipe), run.seed, device, **how)
    if result is None:
        return False
    facts = {
        "dataset": data.name,
        "data": run.data,
        "model": run.model,
        "method": type(method).__name__,
        "expression": run.method,
    }
    facts |= {"params": {k: v if not isinstance(v, Method) else describe(v) for k, v in parameters(method).items()}}
    facts |= {"budget": run.recipe, "recipe": asdict(recipe(run.recipe)), "seed": run.seed}
    facts |= {"compiled": True} if compile else {}
    facts |= {"train_images": len(data.train_x), "test_images": len(data.test_x)}
    records.write({**facts, **records.circumstances(device), **result}, run.path(folder))
    checkpoint.unlink(missing_ok=True)
    return True


@lru_cache(maxsize=2)
def load_data(expression: str):
    """A data set by name, or with options: "shapes(n_train=4000)", "cifar100(fraction=0.25)"."""
    from mixlab.data.sets import load

    name, _, options = expression.partition("(")
    try:
        call = ast.parse(f"load({options or ')'}", mode="eval").body
        keywords = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError, AttributeError) as problem:
        raise ValueError(f"data {expression!r} cannot be understood: {problem}") from None
    parts = {word: keywords.pop(word) for word in SUBSETS if word in keywords}
    data = load(name.strip(), **keywords)
    for word, amount in parts.items():
        data = SUBSETS[word](data, amount, rng=0)  # the same part of the set in every run
    return data


@contextmanager
def _claim(run: Run) -> Iterator[bool]:
    """Hold the run's lock, or learn that another worker does. The system frees the lock of a process that dies."""
    CHECKPOINTS.mkdir(parents=True, exist_ok=True)
    with open(CHECKPOINTS / f"{run.key}.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


def _build(node: ast.expr):
    """A call of a method's class with literals and further methods as arguments."""
    if not isinstance(node, ast.Call):
        try:
            return ast.literal_eval(node)
        except ValueError:
            raise TypeError(f"{ast.unparse(node)} is neither a number nor a method with its brackets") from None
    if not isinstance(node.func, ast.Name) or node.func.id not in methods():
        raise ValueError(f"method must be one of {', '.join(methods())}, not {ast.unparse(node.func)!r}")
    keywords = {keyword.arg: _build(keyword.value) for keyword in node.keywords}
    return methods()[node.func.id](*(_build(argument) for argument in node.args), **keywords)
