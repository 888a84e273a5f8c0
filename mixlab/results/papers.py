"""The published tables, as rows: every number of the five papers, from data/papers/*.json.

rows("kmixup", "table9a")[0]["value"]      the printed number, in the table's unit
rows("kmixup", "table9a")[0]["error"]      the same as an error in percent, or None (an F1 score is not an error)
"""

import json
from functools import cache

from mixlab.checks import check_choice
from mixlab.places import papers_folder

FOLDER = papers_folder()


def names() -> list[str]:
    """The papers, by the word that also names their notebook and module."""
    return sorted(path.stem for path in FOLDER.glob("*.json") if path.stem != "claims")  # those have claims.py


@cache
def read(paper: str) -> dict:
    """A paper's file: its "tables", and its training "protocols", in which None stands where the paper is silent."""
    check_choice("paper", paper, names())
    return json.loads((FOLDER / f"{paper}.json").read_text(encoding="utf-8"))


def tables(paper: str, usable_only: bool = True) -> list[dict]:
    """The tables of a paper; those whose text came through too damaged to trust only when asked for."""
    return [table for table in read(paper)["tables"] if table["usable"] or not usable_only]


def rows(paper: str, table: str | None = None) -> list[dict]:
    """One dict per printed number: dataset, model, method, params, value, std, error, trials and where it stands."""
    chosen = tables(paper, usable_only=table is None)
    if table is not None:
        check_choice("table", table, [each["id"] for each in chosen])
    return [_flat(paper, each, row) for each in chosen if table in (None, each["id"]) for row in each["rows"]]


def rows_of(words: str | None) -> list[dict]:
    """The rows of "paper/table", or of all usable tables of "paper", or, for None, of all papers."""
    if words is None:
        return [row for paper in names() for row in rows(paper)]
    paper, bar, table = words.partition("/")
    return rows(paper, table if bar else None)


def _flat(paper: str, table: dict, row: dict) -> dict:
    protocol = row.get("protocol", table["protocol"])
    stated = read(paper)["protocols"].get(protocol) or {}
    return {
        "paper": paper,
        "table": table["id"],
        **{key: row[key] for key in ("dataset", "model", "method", "params", "value", "printed", "std")},
        "se_worst": row.get("se_worst", table["se_worst"]),
        "trials": stated.get("trials"),
        "error": _as_error(row["value"], table),
        "epochs": stated.get("epochs"),
        "protocol": protocol,
    }


def _as_error(value: float, table: dict) -> float | None:
    percent = value * 100 if table["unit"] == "fraction" else value
    if "error" in table["metric"]:
        return percent
    return 100 - percent if "accuracy" in table["metric"] else None
