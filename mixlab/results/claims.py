"""The claims of the five papers, from data/papers/claims.json, and what our stored runs say of each.

    read()[0]["verdict"]      "holds here", "does not", "not decided" or "not tried": it moves by itself as runs arrive

A comparison is method minus against, seed by seed, so that below zero is as the paper claims:

    {"folder": "…", "data": "…", "model": "…", "recipe": "…", "method": "KMixup(1.0, 16)", "against": "Mixup(1.0)"}

folder may be a list, where runs lie in several. method and against may be lists of settings: each seed takes the one
that is best on the other seeds, so none is chosen by the number that is reported. May be given: of, "error" if not, or
a measure of the record such as "noise_14" ("map_area" of kept networks) or two of them, "noise_14 - error"; against_of
and against_recipe, where the rival's differ; margin, how many points worse still counts as "at least as good"; minus,
what changes in a second comparison that is subtracted from this one (does the gain grow?).
"""

import json
from functools import cache
from pathlib import Path
from statistics import fmean

from mixlab.places import papers_folder
from mixlab.results import records
from mixlab.results.expressions import build_method, describe

VERDICTS = ("holds here", "does not", "not decided", "not tried")
LEAST = 0.5  # points: a gain that is surely smaller counts as none
PARTS = ("evidence", "controls", "beside")


@cache
def stated() -> dict:
    """The file itself: the rule in words, and the claims as they stand there."""
    return json.loads((papers_folder() / "claims.json").read_text(encoding="utf-8"))


def read(folder: Path | str = records.FOLDER) -> list[dict]:
    """Every claim with its verdict, and every comparison with its difference, standard error and number of seeds."""
    _experiment.cache_clear()
    found = []
    for claim in stated()["claims"]:
        claim = {**claim, **{part: [measure(c, folder) for c in claim[part]] for part in PARTS}}
        found.append({**claim, "verdict": decide(claim)})
    return found


def decide(claim: dict) -> str:
    """The verdict by the rule of the file; one that a notebook has reached stands until runs decide."""
    tried = [*claim["evidence"], *claim["controls"]]
    if any(c["n"] >= 3 and c["difference"] - 2 * c["error"] > c.get("margin", 0) - LEAST for c in tried):
        return "does not"
    beyond = [c["n"] >= 3 and c["difference"] + 2 * c["error"] < c.get("margin", 0) for c in tried]
    if claim["evidence"] and claim["controls"] and not claim["code"] and all(beyond):
        return "holds here"
    some = any(c["n"] for c in [*tried, *claim["beside"]])
    return claim["verdict"] or ("not decided" if some else "not tried")


def measure(comparison: dict, folder: Path | str = records.FOLDER) -> dict:
    """The comparison with difference and error, both in points and None without runs, and n, how many seeds."""
    found = list(gaps(comparison, folder).values())
    difference, error = records.mean_and_error(found) if found else (None, None)
    return {**comparison, "difference": difference, "error": error, "n": len(found)}


def gaps(comparison: dict, folder: Path | str = records.FOLDER) -> dict[int, float]:
    """method minus against for every seed that both have; with "minus", less the same of the second comparison."""
    own, other = _side("method", comparison, folder), _side("against", comparison, folder)
    found = {seed: own[seed] - other[seed] for seed in sorted(own.keys() & other.keys())}
    if "minus" not in comparison:
        return found
    second = gaps({**{k: v for k, v in comparison.items() if k != "minus"}, **comparison["minus"]}, folder)
    return {seed: gap - second[seed] for seed, gap in found.items() if seed in second}


def _side(side: str, comparison: dict, folder) -> dict[int, float]:
    """seed -> value; of several settings the one with the least mean over the other seeds."""
    settings = _listed(comparison[side])
    values = [_values(canonical(setting), side, comparison, folder) for setting in settings]
    if len(values) == 1:
        return values[0]
    seeds = set.intersection(*(set(v) for v in values))
    chosen = {s: min(values, key=lambda v: fmean(v[t] for t in seeds - {s})) for s in seeds if len(seeds) > 1}
    return {seed: v[seed] for seed, v in chosen.items()}


def _values(method: str, side: str, comparison: dict, folder) -> dict[int, float]:
    of, recipe = comparison.get("of", "error"), comparison["recipe"]
    if side == "against":
        of, recipe = comparison.get("against_of", of), comparison.get("against_recipe", recipe)
    wanted = (comparison["data"], comparison["model"], recipe)
    runs = [run for name in _listed(comparison["folder"]) for run in _experiment(name, str(folder)).get(method, [])]
    runs = [r for r in runs if (r.get("data", r["dataset"]), r["model"], r["budget"]) == wanted]
    runs = [{**run.get("looks", {}), **run.get("measures", {}), **run} for run in runs]
    first, _, second = of.partition(" - ")
    return {run["seed"]: run[first] - (run[second] if second else 0) for run in runs if first in run}


@cache
def _experiment(name: str, folder: str) -> dict[str, list[dict]]:
    return records.experiment(name, folder)


@cache
def canonical(method: str) -> str:
    """The spelling in which a record names the method."""
    return describe(build_method(method, seed=0))


def _listed(value) -> list:
    return value if isinstance(value, list) else [value]
