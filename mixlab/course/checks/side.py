"""Exercises of 09 side by side."""

import numpy as np

from mixlab.course.exercises import check

GUIDED = (-2.2, -2.7, 0.8, -1.0, 0.9)  # guided minus mixup on drawn shapes, seeds 0 to 4: data/runs/side_by_side


def _mean_and_error(gaps):
    return float(np.mean(gaps)), float(np.std(gaps, ddof=1) / len(gaps) ** 0.5)


def _runs(rng):
    yield {0: 16.0, 1: 14.0, 2: 18.0}, {0: 17.0, 1: 17.0, 2: 20.0}
    yield {0: 16.0, 1: 14.0, 2: 18.0, 7: 90.0}, {2: 20.0, 1: 17.0, 0: 17.0}
    base = rng.normal(20, 3, 5)
    yield dict(enumerate(base + rng.normal(1, 1, 5))), dict(enumerate(base))


def _shared(own, rival):
    """The values of both, at the seeds that both have."""
    seeds = sorted(own.keys() & rival.keys())
    return np.array([[own[seed], rival[seed]] for seed in seeds]).T


def _of_one_seed(own, rival):
    mean, error = gap(own, rival)
    return mean, error * len(own.keys() & rival.keys()) ** 0.5


def _apart(own, rival):
    errors = [_mean_and_error(side)[1] for side in _shared(own, rival)]
    return gap(own, rival)[0], float(np.hypot(*errors))


@check(
    cases=_runs,
    mistakes={
        "the rival is taken off, so that a lower error of your method is below zero": lambda a, b: gap(b, a),
        "take the differences first: what two runs of a seed share cancels there": _apart,
        "that is the standard deviation of one seed; a mean of n varies less, by the root of n": _of_one_seed,
    },
)
def gap(own, rival):
    return _mean_and_error(np.subtract(*_shared(own, rival)))


@check(
    judge=lambda answer: None if answer == "C" else "the standard error itself is only guessed from three numbers",
    mistakes={
        "that would be right for many seeds": lambda: "A",
        "nearer, and that is the share of a single direction": lambda: "B",
    },
)
def three_seeds():
    return "C"


@check(
    cases=lambda rng: [(0.05, 1), (0.05, 18), (0.5, 2), (float(rng.uniform(0.01, 0.2)), int(rng.integers(3, 30)))],
    mistakes={
        "a sum of chances can exceed one: ask for the chance that none passes": lambda p, tries: p * tries,
        "that is the chance that all of them pass": lambda p, tries: p**tries,
        "that is the chance that none passes": lambda p, tries: (1 - p) ** tries,
    },
)
def by_luck(p, tries):
    return 1 - (1 - p) ** tries


def _looks_better(answer):
    if len(set(answer)) != 3 or not set(answer) <= set(range(5)):
        return "three different seeds from 0 to 4 are wanted"
    mean, error = _mean_and_error([GUIDED[seed] for seed in answer])
    said = f"seeds {tuple(answer)} give {mean:+.1f} ± {error:.1f}"
    return None if mean + 2 * error < 0 else f"{said}, which is not beyond two standard errors below zero"


@check(
    judge=_looks_better,
    mistakes={
        "the first three will not do: who takes seeds as they come cannot cheat": lambda: (0, 1, 2),
        "with seed 4 the sign turns round": lambda: (2, 3, 4),
    },
)
def cherry():
    return 0, 1, 3


def _recipes(rng):
    changes = [("weight_decay", 1e-4), ("augment", False), ("epochs", 200), ("lr", 0.2), ("nesterov", False)]
    usual = {"epochs": 100, "lr": 0.1, "weight_decay": 5e-4, "nesterov": True, "augment": True}
    for key, value in (changes[0], changes[1], changes[int(rng.integers(2, 5))]):
        recipes = [{**usual, "note": "a tenth of CIFAR-10"} for _ in range(5)]
        odd, noted = rng.integers(3), 3 + rng.integers(2)
        recipes[odd][key], recipes[noted]["note"] = value, "the same, written by somebody else"
        yield (recipes,)


def _first_with(count, values):
    """The place of the first value that stands there `count` times."""
    return [values.count(value) for value in values].index(count)


def _contents(recipes):
    return [{key: value for key, value in recipe.items() if key != "note"} for recipe in recipes]


@check(
    cases=_recipes,
    mistakes={
        "a note changes nothing in the training; leave it out": lambda all: _first_with(1, [r["note"] for r in all]),
        "that one is trained as most are: which equals no other?": lambda all: _first_with(4, _contents(all)),
    },
)
def unfair(recipes):
    return _first_with(1, _contents(recipes))
