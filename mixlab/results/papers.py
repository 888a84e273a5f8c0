"""The published tables, as rows: every number of the five papers, from data/papers/*.json.

rows("kmixup", "table9a")[0]["value"]      the printed number, in the table's unit
rows("kmixup", "table9a")[0]["error"]      the same as an error in percent, or None (an F1 score is not an error)
"""

import json
from functools import cache

from mixlab.places import ROOT

FOLDER = ROOT / "data" / "papers"


def names() -> list[str]:
    """The papers, by the word that also names their notebook and module."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def tables(paper: str, usable_only: bool = True) -> list[dict]:
    """The tables of a paper; those whose text came through too damaged to trust only when asked for."""
    return [table for table in _read(paper)["tables"] if table["usable"] or not usable_only]


def protocol(paper: str, name: str) -> dict:
    """A training protocol as the paper states it; None stands where the paper is silent."""
    protocols = _read(paper)["protocols"]
    if name not in protocols:
        raise ValueError(f"protocol must be one of {', '.join(protocols)}, not {name!r}")
    return protocols[name]


def rows(paper: str, table: str | None = None) -> list[dict]:
    """One dict per printed number: dataset, model, method, params, value, std, error, trials and where it stands."""
    if table is not None and table not in {t["id"] for t in tables(paper, usable_only=False)}:
        known = ", ".join(t["id"] for t in tables(paper, usable_only=False))
        raise ValueError(f"table must be one of {known}, not {table!r}")
    chosen = tables(paper, usable_only=table is None)
    return [_flat(paper, t, row) for t in chosen if table in (None, t["id"]) for row in t["rows"]]


def same_method(row: dict) -> tuple[str, dict]:
    """A printed method in the words of the module: the class name and the parameters that tell its runs apart."""
    method, params = row["method"], {k: v for k, v in row["params"].items() if k not in ("xi", "column")}
    if row.get("paper") == "infinite":  # names the whole set and its recipe's batch size where it varies them
        params = {k: v for k, v in params.items() if (k, v) not in (("fraction", 1.0), ("batch_size", 128))}
    if method == "ERM":
        return "ERM", {k: v for k, v in params.items() if k != "batch_size"}
    if method == "mixup":  # LaMix draws lambda uniformly for every mixing method, which is alpha = 1
        return "Mixup", {"alpha": 1.0, **params} if row.get("paper") == "lamix" else params
    if method == "k-mixup" and params.get("k") == 1:  # one point per block leaves nothing to match: plain mixup
        return "Mixup", {k: v for k, v in params.items() if k != "k"}
    if method in ("k-mixup", "confusion-mixup"):
        return {"k-mixup": "KMixup", "confusion-mixup": "ConfusionMixup"}[method], params
    return _companion(row.get("paper"), method, params)


class Expression(str):
    """A method inside another one, spelled as on the command line, where text would stand in quotes."""

    __repr__ = str.__str__


def _companion(paper: str | None, method: str, params: dict) -> tuple[str, dict]:
    """What the papers compare with, and LaMix and Infinite Class Mixup; what has no counterpart stays as printed."""
    params, alpha = dict(params), float(params.get("alpha", 1.0))
    if method == "k-manifold-mixup":
        inside = f"Mixup(alpha={alpha})" if params["k"] == 1 else f"KMixup(alpha={alpha}, k={params['k']})"
        return "ManifoldMixup", {"mixing": Expression(inside)}
    partners = {"mixing": Expression("Mixup(alpha=1.0, per_sample=True)")}
    if paper == "lamix" and method == "CutMix":  # lambda is uniform in all its comparisons
        return "CutMix", {"alpha": 1.0, **params}
    if method == "LaMix" and params == {"beta": 0.5}:
        return "LaMix", partners
    if paper == "lamix" and method == "PuzzleMix":
        return "PuzzleMix", {"alpha": 1.0, **params}
    if params.pop("input", None) == "PuzzleMix at lambda=0.5":
        return "LaMix", {"mixing": Expression("PuzzleMix(alpha=1.0)"), **params}
    if method == "LaMix without original samples":
        return "LaMix", {**partners, "originals": False}
    if method == "LaMix without global soft label":
        return "LaMix", {"beta": 1.0, **partners, **params}
    if method == "mixup + uniform label smoothing":
        return "LabelSmoothing", {"eps": params["smoothing"], "method": Expression("Mixup(alpha=1.0)")}
    if method in ("RegMixup", "IC-RegMixup") or method.startswith("IC-Mixup"):
        axes, inside = params.pop("axis", "both"), f"Mixup(alpha={alpha})"
        name = "RegMixup" if "RegMixup" in method else "InfiniteClass"
        inside = f"InfiniteClass(method={inside})" if method == "IC-RegMixup" else inside
        del params["alpha"]
        return name, {"method": Expression(inside), **({"axes": axes} if axes != "both" else {}), **params}
    return method, params


def _flat(paper: str, table: dict, row: dict) -> dict:
    stated = _read(paper)["protocols"].get(row.get("protocol", table["protocol"])) or {}
    return {
        "paper": paper,
        "table": table["id"],
        **{key: row[key] for key in ("dataset", "model", "method", "params", "value", "printed")},
        "std": row["std"],
        "se_worst": row.get("se_worst", table["se_worst"]),
        "trials": stated.get("trials"),
        "error": _as_error(row["value"], table),
        "epochs": stated.get("epochs"),
    }


def _as_error(value: float, table: dict) -> float | None:
    percent = value * 100 if table["unit"] == "fraction" else value
    if "error" in table["metric"]:
        return percent
    return 100 - percent if "accuracy" in table["metric"] else None


@cache
def _read(paper: str) -> dict:
    path = FOLDER / f"{paper}.json"
    if not path.is_file():
        raise ValueError(f"paper must be one of {', '.join(names())}, not {paper!r} (looked in data/papers)")
    return json.loads(path.read_text(encoding="utf-8"))
