"""Words that name a method, a data set or a network, read without evaluating anything, each in one canonical spelling.

LabelSmoothing(0.1, Mixup(1))       LabelSmoothing(eps=0.1, method=Mixup(alpha=1.0))
cifar10(fraction=0.10)              cifar10(fraction=0.1)
preact_resnet18(stem_stride=2)      the same
"""

import ast
import inspect
from functools import lru_cache
from pathlib import Path

import numpy as np

import mixlab
import mixlab.controls
from mixlab.data import subsets
from mixlab.method import Method
from mixlab.places import data_folder
from mixlab.training.models import names
from mixlab.training.recipes import name_and_options

# What may be done to a set, in this order; every part of chance has seed 0, so that all runs see the same part.
SUBSETS = {
    "classes": (subsets.first_classes, int),
    "held_out": (subsets.hold_out, float),
    "fraction": (subsets.fraction, float),
    "per_class": (subsets.per_class, int),
    "long_tailed": (subsets.long_tailed, float),
    "random_labels": (subsets.random_labels, float),
}
OPTIONS = {"shapes": {"size": 32, "n_train": 6000, "n_test": 2000, "seed": 0}}  # and their defaults
NOTHING_DONE = {"fraction": 1.0, "long_tailed": 1.0, "random_labels": 0.0}


def methods(controls: bool = False) -> dict[str, type[Method]]:
    """Every method of the module, by name; with the controls, too, if told."""
    named = {name: getattr(mixlab, name) for name in mixlab.__all__} | (vars(mixlab.controls) if controls else {})
    return {n: c for n, c in named.items() if inspect.isclass(c) and issubclass(c, Method) and c is not Method}


def build_method(expression: str, seed: int) -> Method:
    """The method that an expression such as "LabelSmoothing(0.1, Mixup(alpha=1.0))" describes.

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
    return [describe(method(**method.defaults)) for method in methods().values()]


def parameters(method: Method) -> dict:
    """The parameters of a method that differ from their defaults; methods keep each under its own name."""
    return method.settings()


def describe(method: Method) -> str:
    """The canonical expression of a method: its name and every parameter that is not at its default."""
    words = {k: describe(v) if isinstance(v, Method) else repr(v) for k, v in parameters(method).items()}
    return f"{type(method).__name__}({', '.join(f'{key}={word}' for key, word in words.items())})"


def as_recorded(method: Method) -> dict:
    """What a record says of a method: its name, and its parameters with methods among them as expressions."""
    stated = {k: describe(v) if isinstance(v, Method) else v for k, v in parameters(method).items()}
    return {"method": type(method).__name__, "params": stated}


def spell(name: str, options: dict) -> str:
    """A data set or a network in words, with its options in brackets."""
    inside = ", ".join(f"{key}={value!r}" for key, value in options.items())
    return f"{name}({inside})" if inside else name


def describe_data(expression: str) -> str:
    """The canonical expression of a data set; a folder of images is named by its path, brackets and all."""
    return spell(*read_data(expression))


def read_data(expression: str) -> tuple[str, dict]:
    """The name of a set or folder, and its options in canonical order, without those that change nothing."""
    if _is_path(expression):  # a folder may be called "photos (copy)"
        return expression, {}
    name, options = name_and_options("data", expression)
    kinds = dict.fromkeys(OPTIONS.get(name, {"size": None}), int) | {word: kind for word, (_, kind) in SUBSETS.items()}
    if unknown := sorted(options.keys() - kinds.keys()):
        raise ValueError(f"data {expression!r}: {', '.join(unknown)} is not among {', '.join(kinds)}")
    options = {key: _number(key, options[key], kind) for key, kind in kinds.items() if key in options}
    unchanged = {**OPTIONS.get(name, {}), **NOTHING_DONE}
    return name, {key: value for key, value in options.items() if unchanged.get(key) != value}


@lru_cache(maxsize=2)
def load_data(expression: str):
    """A data set by name, or with options: "shapes(n_train=4000)", "cifar100(fraction=0.25)"."""
    from mixlab.data import load

    name, options = read_data(expression)
    data = load(name, **{key: value for key, value in options.items() if key not in SUBSETS})
    for word, (change, _) in SUBSETS.items():
        if word in options:
            data = change(data, options[word], rng=0)
    return data


def read_model(expression: str) -> tuple[str, dict]:
    """The name of a network, and its options: stem_stride where it is not 1."""
    name, options = name_and_options("model", expression)
    if name not in names() or options.keys() - {"stem_stride"}:
        raise ValueError(f"model must be one of {', '.join(names())}, perhaps with stem_stride, not {expression!r}")
    return name, {key: value for key, value in options.items() if value != 1}


def is_folder(expression: str) -> bool:
    """Is this data set a folder of images, whose content may change?"""
    from mixlab.data.originals import READERS

    return _is_path(expression) or read_data(expression)[0] not in ("shapes", "digits", "tiny-imagenet", *READERS)


def _is_path(expression: str) -> bool:
    return bool(expression) and any(p.is_dir() for p in (Path(expression).expanduser(), data_folder() / expression))


def _number(name: str, value, kind: type):
    if isinstance(value, bool) or not isinstance(value, int | float) or kind(value) != value:
        raise ValueError(f"data: {name} must be a {'whole number' if kind is int else 'number'}, not {value!r}")
    return kind(value)


def _build(node: ast.expr):
    """A call of a method's class with literals and further methods as arguments."""
    if not isinstance(node, ast.Call):
        try:
            return ast.literal_eval(node)
        except ValueError:
            raise TypeError(f"{ast.unparse(node)} is neither a number nor a method with its brackets") from None
    if not isinstance(node.func, ast.Name) or node.func.id not in methods(controls=True):
        raise ValueError(f"method must be one of {', '.join(methods())}, not {ast.unparse(node.func)!r}")
    keywords = {keyword.arg: _build(keyword.value) for keyword in node.keywords}
    return methods(controls=True)[node.func.id](*(_build(argument) for argument in node.args), **keywords)
