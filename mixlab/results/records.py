"""Measured results: small JSON files under data/runs, and the published number beside ours.

A record says what was run and what came out: dataset (its true name), model, method, params, budget, seed, error in
percent after the last epoch, seconds, device, versions. A file holds one record, or several that share fields:

    {"dataset": "one_ring", "budget": "…", "runs": [{"method": "Mixup", "params": {"alpha": 1.0}, "seed": 0, …}, …]}
"""

import json
import math
import platform
import statistics
import subprocess
from pathlib import Path

import numpy as np
import torch

from mixlab.data.downloads import atomic_write
from mixlab.places import ROOT
from mixlab.results.papers import same_method

FOLDER = ROOT / "data" / "runs"
NEEDED = ("dataset", "model", "method", "params", "budget", "seed", "error")


def write(record: dict, path: Path | str) -> Path:
    """Write one record, or one with "runs", whole or not at all: a killed run leaves no half file."""
    path = Path(path)
    for run in _expand(record):
        _check(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as temporary:
        Path(temporary).write_text(text + "\n", encoding="utf-8")
    return path


def read(folder: Path | str = FOLDER) -> tuple[list[dict], list[str]]:
    """All runs under a folder, and a sentence for each file that could not be used: a bad one never hides the rest.

    A run that failed is among the sentences. The grid.json of an experiment lies beside its records and is none.
    """
    runs, complaints = [], []
    for path in sorted(p for p in Path(folder).rglob("*.json") if p.name != "grid.json" and p.is_file()):
        try:
            found = _expand(json.loads(path.read_text(encoding="utf-8")))
            for run in found:
                _check(run)
            good = [run for run in found if "failed" not in run]
            runs += [{**run, "file": path.relative_to(folder).as_posix()} for run in good]
            complaints += [f"{path.name}: failed, {run['failed']}" for run in found if "failed" in run]
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as problem:
            complaints.append(f"{path.name}: {problem}")
    return runs, complaints


def _check(run: dict) -> None:
    """Refuse a record whose numbers say nothing."""
    if not isinstance(run, dict):
        raise ValueError(f"a record is an object, not {type(run).__name__}")
    needed = [key for key in NEEDED if key != "error" or "failed" not in run]
    lacking = [key for key in needed if key not in run]
    if lacking:
        raise ValueError(f"record lacks {', '.join(lacking)}: a number without these says nothing")
    words = ("dataset", "model", "method", "budget")
    if not all(isinstance(run[key], str) for key in words) or not isinstance(run["params"], dict):
        raise ValueError(f"{', '.join(words)} must be words and params an object")
    error = run.get("error", 0)
    if isinstance(error, bool) or not isinstance(error, int | float) or not 0 <= error <= 100:
        raise ValueError(f"error must be a percentage, not {error!r}")


def folder_of(grid: Path | str) -> Path:
    """Where the records of a grid lie: beside it if it is called grid.json, else in a folder of its name."""
    grid = Path(grid)
    return grid.parent if grid.name == "grid.json" else FOLDER / grid.stem


def circumstances(device: str = "cpu") -> dict:
    """What a number depends on besides the method: device, threads, versions, commit."""
    name = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else _cpu_name()
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    return {"device": name, "threads": torch.get_num_threads(), "versions": versions, "commit": _commit()}


def compare(published: list[dict], runs: list[dict], dataset_as: dict[str, str] | None = None) -> list[dict]:
    """Each published row beside what was measured of it: one line per budget it was measured under, or "not run".

    published: rows from `papers.rows`. runs: from `read`. A run answers a row when data set, method, parameters and,
    where the paper names one, the model agree. A run whose own parameters are not those the row is labelled with (alpha
    raised with k to keep the perturbation) says under "row" which ones it stands for. dataset_as: show runs on another
    set ({"CIFAR-10": "cifar10-jpeg"}); the line then carries that set's own name.
    """
    lines = []
    for row in published:
        wanted = (dataset_as or {}).get(row["dataset"], row["dataset"])
        answers = [run for run in runs if _answers(run, row, wanted)]
        groups: dict[tuple, list[float]] = {}
        for run in answers:
            groups.setdefault((_set_name(run), run["budget"], run.get("device", "?")), []).append(run["error"])
        for (dataset, budget, device), errors in sorted(groups.items()):
            where = {"measured_on": dataset, "budget": budget, "device": device}
            lines.append({**_line(row), **_ours(row, errors), **where})
        if not groups:
            lines.append(_line(row))
    return lines


def count_cells(lines: list[dict]) -> tuple[int, int]:
    """How many printed cells the lines of `compare` are about, measured and in all: one may have several budgets."""
    cells: dict[tuple, bool] = {}
    for line in lines:
        key = (line["table"], line["dataset"], line["model"], line["method"], str(line["params"]))
        cells[key] = cells.get(key, False) or line["n"] > 0
    return sum(cells.values()), len(cells)


def as_markdown(lines: list[dict]) -> str:
    """The lines of `compare` as a Markdown table."""
    head = ("data set", "method", "paper", "ours (mean ± std)", "n", "gap", "gap / s.e.", "budget")
    body = [[_cell(line, column) for column in head] for line in lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *body])


def _line(row: dict) -> dict:
    kept = {key: row[key] for key in ("paper", "table", "dataset", "model", "method", "params", "error")}
    return {**kept, "ours": None, "std": None, "n": 0, "gap": None, "gap_se": None, "budget": "not run"}


def _ours(row: dict, errors: list[float]) -> dict:
    n, mean = len(errors), statistics.fmean(errors)
    std = statistics.stdev(errors) if n > 1 else None
    gap = None if row["error"] is None else mean - row["error"]
    spread = math.hypot(0 if std is None else std / math.sqrt(n), _published_standard_error(row))
    gap_se = gap / spread if gap is not None and std and spread else None
    return {"ours": mean, "std": std, "n": n, "gap": gap, "gap_se": gap_se}


def _published_standard_error(row: dict) -> float:
    """As far as the paper says: its std over its trials, or the worst standard error of the table, or nothing."""
    if row["std"] and row["trials"]:
        return row["std"] / math.sqrt(row["trials"])
    return row["se_worst"] or 0.0


def _answers(run: dict, row: dict, dataset: str) -> bool:
    method, params = same_method(row)
    same = _plain(run["dataset"]) == _plain(dataset) and _plain(run["method"]) == _plain(method)
    return (
        same
        and run.get("row", run["params"]) == params
        and (row["model"] is None or _same_model(run["model"], row["model"]))
    )


def _set_name(run: dict) -> str:
    """The data set, with its options where it has any: shapes of 16 and of 32 pixels are not one set."""
    return run["data"] if "(" in (run.get("data") or "") else run["dataset"]


def _same_model(ours: str, printed: str) -> bool:
    """Names agree letter by letter, or ours is a list of hidden widths that the printed description holds."""
    return _plain(ours) == _plain(printed) or (ours.startswith("fc") and _plain(ours[2:]) in _plain(printed))


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _expand(record: dict) -> list[dict]:
    shared = {key: value for key, value in record.items() if key != "runs"}
    return [{**shared, **run} for run in record["runs"]] if "runs" in record else [shared]


def _cell(line: dict, column: str) -> str:
    if column == "data set":
        on = line.get("measured_on")
        return line["dataset"] + (f" (ours: {on})" if on and _plain(on) != _plain(line["dataset"]) else "")
    if column == "method":
        return " ".join([line["method"], *(f"{key}={value}" for key, value in line["params"].items())])
    if column == "ours (mean ± std)":
        spread = "" if line["std"] is None else f" ± {line['std']:.2f}"
        return "" if line["ours"] is None else f"{line['ours']:.2f}{spread}"
    forms = {"paper": ("error", ".2f"), "gap": ("gap", "+.2f"), "gap / s.e.": ("gap_se", "+.1f")}
    key, form = forms.get(column, (column, ""))
    return "" if line[key] is None or (key == "n" and not line[key]) else format(line[key], form)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of this checkout, marked when files differ from it; None outside a checkout."""
    git = ("git", "-C", str(ROOT))
    try:
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True).returncode != 0
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+changes" if changed else "")
