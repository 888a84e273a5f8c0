"""Exercises of 09 side by side."""

import numpy as np

from mixlab.course.exercises import Check

GUIDED = (-2.2, -2.7, 0.8, -1.0, 0.9)  # guided minus mixup on drawn shapes, seeds 0 to 4: data/runs/side_by_side


def _mean_and_error(gaps):
    gaps = np.asarray(gaps, dtype=float)
    return float(gaps.mean()), float(gaps.std(ddof=1) / len(gaps) ** 0.5)


def _gap(own, rival):
    seeds = sorted(own.keys() & rival.keys())
    return _mean_and_error([own[seed] - rival[seed] for seed in seeds])


def _runs(rng):
    yield {0: 16.0, 1: 14.0, 2: 18.0}, {0: 17.0, 1: 17.0, 2: 20.0}
    yield {0: 16.0, 1: 14.0, 2: 18.0, 7: 90.0}, {2: 20.0, 1: 17.0, 0: 17.0}
    base = rng.normal(20, 3, 5)
    yield dict(enumerate(base + rng.normal(1, 1, 5))), dict(enumerate(base))


def _turned(own, rival):
    mean, error = _gap(own, rival)
    return -mean, error


def _apart(own, rival):
    values = [np.array([run[seed] for seed in sorted(own.keys() & rival.keys())]) for run in (own, rival)]
    errors = [_mean_and_error(side)[1] for side in values]
    return float(values[0].mean() - values[1].mean()), float(np.hypot(*errors))


def _spread(own, rival):
    mean, error = _gap(own, rival)
    return mean, error * len(own.keys() & rival.keys()) ** 0.5


gap = Check(
    _gap,
    cases=_runs,
    mistakes={
        "the rival is taken off, so that a lower error of your method is below zero": _turned,
        "take the differences first: what two runs of a seed share cancels there": _apart,
        "that is the standard deviation of one seed; a mean of n varies less, by the root of n": _spread,
    },
)


def _three_seeds():
    return "C"


def _judge_letter(answer):
    if answer not in ("A", "B", "C"):
        return 'the answer is a letter, "A", "B" or "C"'
    return (
        None if answer == "C" else f"{answer} is too low: the standard error itself is only guessed from three numbers"
    )


three_seeds = Check(
    _three_seeds,
    cases=lambda rng: [()],
    judge=_judge_letter,
    mistakes={
        "that would be right for many seeds": lambda: "A",
        "nearer, and that is the share of a single direction": lambda: "B",
    },
)


def _by_luck(p, tries):
    return 1 - (1 - p) ** tries


by_luck = Check(
    _by_luck,
    cases=lambda rng: [(0.05, 1), (0.05, 18), (0.5, 2), (float(rng.uniform(0.01, 0.2)), int(rng.integers(3, 30)))],
    mistakes={
        "a sum of chances can exceed one: ask for the chance that none passes": lambda p, tries: p * tries,
        "that is the chance that all of them pass": lambda p, tries: p**tries,
        "that is the chance that none passes": lambda p, tries: (1 - p) ** tries,
    },
)


def _cherry():
    return 0, 1, 3


def _judge_cherry(answer):
    if len(set(answer)) != 3 or not set(answer) <= set(range(5)):
        return "three different seeds from 0 to 4 are wanted"
    mean, error = _mean_and_error([GUIDED[seed] for seed in answer])
    said = f"seeds {tuple(answer)} give {mean:+.1f} ± {error:.1f}"
    return None if mean + 2 * error < 0 else f"{said}, which is not beyond two standard errors below zero"


cherry = Check(
    _cherry,
    cases=lambda rng: [()],
    judge=_judge_cherry,
    mistakes={
        "the first three will not do: who takes seeds as they come cannot cheat": lambda: (0, 1, 2),
        "with seed 4 the sign turns round": lambda: (2, 3, 4),
    },
)


def _unfair(recipes):
    alike = [sum(_content(one) == _content(other) for other in recipes) for one in recipes]
    return alike.index(1)


def _content(recipe):
    return {key: value for key, value in recipe.items() if key != "note"}


def _recipes(rng):
    changes = [("weight_decay", 1e-4), ("augment", False), ("epochs", 200), ("lr", 0.2), ("nesterov", False)]
    usual = {"epochs": 100, "lr": 0.1, "weight_decay": 5e-4, "nesterov": True, "augment": True}
    for key, value in (changes[0], changes[1], changes[int(rng.integers(2, 5))]):
        recipes = [{**usual, "note": "a tenth of CIFAR-10"} for _ in range(5)]
        odd, noted = rng.integers(3), 3 + rng.integers(2)
        recipes[odd][key], recipes[noted]["note"] = value, "the same, written by somebody else"
        yield (recipes,)


def _usual(recipes):
    alike = [sum(_content(one) == _content(other) for other in recipes) for one in recipes]
    return alike.index(4)


def _odd_note(recipes):
    return [sum(one["note"] == other["note"] for other in recipes) for one in recipes].index(1)


unfair = Check(
    _unfair,
    cases=_recipes,
    mistakes={
        "a note changes nothing in the training; leave it out of the comparison": _odd_note,
        "that one is trained as most are: look for the one that equals no other": _usual,
    },
)
