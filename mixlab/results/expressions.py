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
from mixlab.data import subsets
from mixlab.method import Method
from mixlab.places import data_folder

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


def methods() -> dict[str, type[Method]]:
    """Every method of the module, by name."""
    exported = {name: getattr(mixlab, name) for name in mixlab.__all__}
    return {n: c for n, c in exported.items() if inspect.isclass(c) and issubclass(c, Method) and c is not Method}


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


def describe(method: Method) -> str:
    """The canonical expression of a method: its name and every parameter that is not at its default."""
    return _spell(type(method).__name__, {k: _Spelled(v) for k, v in parameters(method).items()})


def parameters(method: Method) -> dict:
    """The parameters of a method that differ from their defaults; methods keep each under its own name."""
    stated = {}
    for name, parameter in inspect.signature(type(method)).parameters.items():
        if name != "rng" and getattr(method, name) != parameter.default:
            stated[name] = getattr(method, name)
    return stated


def describe_data(expression: str) -> str:
    """The canonical expression of a data set; a folder of images is named by its path, brackets and all."""
    name, options = read_data(expression)
    return _spell(name, options)


def read_data(expression: str) -> tuple[str, dict]:
    """The name of a set or folder, and its options in canonical order, without those that change nothing."""
    if _is_path(expression):  # a folder may be called "photos (copy)"
        return expression, {}
    name, options = _call("data", expression)
    allowed = {**dict.fromkeys(OPTIONS.get(name, {"size": None}), int), **{k: kind for k, (_, kind) in SUBSETS.items()}}
    unknown = options.keys() - allowed.keys()
    if unknown:
        raise ValueError(f"data {expression!r}: {', '.join(sorted(unknown))} is not among {', '.join(allowed)}")
    options = {key: _number("data", key, options[key], kind) for key, kind in allowed.items() if key in options}
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


def describe_model(expression: str) -> str:
    """The canonical expression of a network: its name, and stem_stride where it is not 1."""
    return _spell(*read_model(expression))


def read_model(expression: str) -> tuple[str, dict]:
    """The name of a network and its options."""
    from mixlab.training.models import names

    name, options = _call("model", expression)
    if name not in names() or options.keys() - {"stem_stride"}:
        raise ValueError(f"model must be one of {', '.join(names())}, perhaps with stem_stride, not {expression!r}")
    return name, {key: value for key, value in options.items() if value != 1}


class _Spelled:
    """A parameter as it is spelled inside an expression: methods by their own expression."""

    def __init__(self, value):
        self.text = describe(value) if isinstance(value, Method) else repr(value)

    def __repr__(self):
        return self.text


def _spell(name: str, options: dict) -> str:
    inside = ", ".join(f"{key}={value!r}" for key, value in options.items())
    return f"{name}({inside})" if inside or name in methods() else name


def is_folder(expression: str) -> bool:
    """Is this data set a folder of images, whose content may change?"""
    from mixlab.data.originals import READERS

    return _is_path(expression) or read_data(expression)[0] not in ("shapes", "digits", "tiny-imagenet", *READERS)


def _is_path(expression: str) -> bool:
    return bool(expression) and any(p.is_dir() for p in (Path(expression).expanduser(), data_folder() / expression))


def _call(what: str, expression: str) -> tuple[str, dict]:
    """'name(key=1)' as ('name', {'key': 1}); names may hold dashes and dots."""
    name, bracket, rest = expression.strip().partition("(")
    try:
        call = ast.parse(f"f({rest if bracket else ')'}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("options have names, as in size=32")
        return name.strip(), {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError) as problem:
        raise ValueError(f"{what} {expression!r} cannot be understood: {problem}") from None


def _number(what: str, name: str, value, kind: type):
    if isinstance(value, bool) or not isinstance(value, int | float) or kind(value) != value:
        raise ValueError(f"{what}: {name} must be a {'whole number' if kind is int else 'number'}, not {value!r}")
    return kind(value)


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
