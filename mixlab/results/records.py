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
from mixlab.places import ROOT, runs_folder
from mixlab.results.report import as_markdown, compare, count_cells, is_percentage  # noqa: F401

FOLDER = runs_folder()
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
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as problem:
            complaints.append(f"{path.name}: {problem}")
            continue
        file = path.relative_to(folder).as_posix()
        runs += [{**run, "file": file} for run in found if "failed" not in run]
        complaints += [f"{path.name}: failed, {run['failed']}" for run in found if "failed" in run]
    return runs, complaints


def experiment(name: str, folder: Path | str = FOLDER) -> dict[str, list[dict]]:
    """The runs of one experiment, data/runs/name, by method: {"Mixup(alpha=1.0)": [seed 0, seed 1, …], …}."""
    runs, by_method = read(Path(folder) / name)[0], {}
    for run in sorted(runs, key=lambda run: run["seed"]):
        by_method.setdefault(run["expression"], []).append({**run, "file": f"{name}/{run['file']}"})
    return by_method


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """The mean and its standard error; of a single value the error is unknown, nan."""
    spread = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else math.nan
    return statistics.fmean(values), spread


def difference(runs: list[dict], base: list[dict], of: str = "error") -> tuple[float, float, int]:
    """runs minus base, seed by seed: mean, standard error and the number of seeds that both have. Below 0 is better."""
    own, other = ({run["seed"]: run[of] for run in side} for side in (runs, base))
    gaps = [own[seed] - other[seed] for seed in sorted(own.keys() & other.keys())]
    if not gaps:
        raise ValueError("runs and base have no seed in common, so nothing can be compared")
    return *mean_and_error(gaps), len(gaps)


def _check(run: dict) -> None:
    """Refuse a record whose numbers say nothing."""
    if not isinstance(run, dict):
        raise ValueError(f"a record is an object, not {type(run).__name__}")
    lacking = [key for key in NEEDED if key not in run and not (key == "error" and "failed" in run)]
    if lacking:
        raise ValueError(f"record lacks {', '.join(lacking)}: a number without these says nothing")
    words = ("dataset", "model", "method", "budget")
    if not all(isinstance(run[key], str) for key in words) or not isinstance(run["params"], dict):
        raise ValueError(f"{', '.join(words)} must be words and params an object")
    if not is_percentage(run.get("error", 0)):
        raise ValueError(f"error must be a percentage, not {run['error']!r}")


def folder_of(grid: Path | str) -> Path:
    """Where the records of a grid lie: beside it if it is called grid.json, else in a folder of its name."""
    grid = Path(grid)
    return grid.parent if grid.name == "grid.json" else FOLDER / grid.stem


def circumstances(device: str = "cpu") -> dict:
    """What a number depends on besides the method: device, threads, versions, commit."""
    name = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else _cpu_name()
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    return {"device": name, "threads": torch.get_num_threads(), "versions": versions, "commit": _commit()}


def _expand(record: dict) -> list[dict]:
    shared = {key: value for key, value in record.items() if key != "runs"}
    return [{**shared, **run} for run in record["runs"]] if "runs" in record else [shared]


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
