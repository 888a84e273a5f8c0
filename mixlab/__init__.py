"""mixlab: a course on mixup that you can run. Start with notebooks/00_start_here.ipynb.

Names are imported when they are first used, so that `mixlab doctor` can say what is missing where PyTorch is. What lies
in the rooms is imported from there: `from mixlab.data import load`, `from mixlab.course import pictures`.
"""

from importlib import import_module

__version__ = "0.2.0"

_HOME = {
    "ERM": "mixup",
    "ConfusionMixup": "confusion",
    "CutMix": "cutmix",
    "InfiniteClass": "infinite",
    "KMixup": "kmixup",
    "LaMix": "lamix",
    "LabelSmoothing": "smoothing",
    "ManifoldMixup": "manifold",
    "Method": "method",
    "Mixup": "mixup",
    "Pairs": "plans",
    "PuzzleMix": "puzzlemix",
    "RegMixup": "regmixup",
    "Remix": "remix",
    "Split": "plans",
    "Weights": "plans",
    "ZetaMixup": "zeta",
    "draw_lambda": "method",
    "infinite_class_loss": "infinite",
    "lamix_loss": "lamix",
    "one_hot": "plans",
    "scale": "course.scales",
    "soft_cross_entropy": "method",
    "soft_labels": "plans",
}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'mixlab' has no attribute {name!r}")
    globals()[name] = getattr(import_module(f"mixlab.{_HOME[name]}"), name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
