"""The published number beside ours: which records answer which printed cell, as text, Markdown or CSV."""

import csv
import io
import math
import statistics
import textwrap
from collections import Counter, defaultdict
from dataclasses import replace
from functools import cache

from mixlab.results.expressions import as_recorded, build_method, read_data
from mixlab.results.tables import Planned, method_of, plan_row, trainings, with_options


def compare(published: list[dict], runs: list[dict], dataset_as: dict[str, str] | None = None) -> list[dict]:
    """Each published row beside what was measured of it: one line per budget it was measured under, or "not run".

    published: from `papers.rows`. runs: from `records.read`. A record answers a row when data set, method and network
    are those of `tables.plan_row`, whatever its budget; without a plan, those printed. Where alpha is raised with k, a
    record may say under "row" which printed parameters it stands for. dataset_as: show runs on another set
    ({"CIFAR-10": "cifar10-jpeg"}), whose name the line then carries.
    """
    index = _index(runs)
    return [line for row in published for line in _lines(row, index, (dataset_as or {}).get(row["dataset"]))]


def count_cells(lines: list[dict]) -> tuple[int, int]:
    """How many printed cells the lines of `compare` are about, measured and in all: one may have several budgets."""
    cells: dict[tuple, bool] = {}
    for line in lines:
        key = tuple(str(line[k]) for k in ("paper", "table", "dataset", "model", "method", "params"))
        cells[key] = cells.get(key, False) or line["n"] > 0
    return sum(cells.values()), len(cells)


def _lines(row: dict, index: dict, dataset_as: str | None) -> list[dict]:
    plans = plan_row(row)
    why, plans = (plans, (None,)) if isinstance(plans, str) else ("", plans)
    found = [_measured(plan, row, index, dataset_as) for plan in plans]
    line = {key: row[key] for key in ("paper", "table", "dataset", "model", "method", "params", "error")}
    line |= {**dict.fromkeys(("ours", "std", "gap", "gap_se")), "n": 0, "note": plans[0].note if plans[0] else ""}
    lines = []
    for where in sorted(set(found[0]).intersection(*found[1:]), key=lambda where: where[:4]):
        errors = min((groups[where] for groups in found), key=statistics.fmean)  # of several in the best of a sweep
        names = dict(zip(("measured_on", "network", "budget", "device"), where[:4], strict=True))
        lines.append({**line, **_ours(row, errors), **names})
    missing = [plan for plan, groups in zip(plans, found, strict=True) if plan and not groups]
    return lines or [{**line, "budget": "not run", "why": why, "missing": missing}]


def _ours(row: dict, errors: list[float]) -> dict:
    """Mean, standard deviation, and the gap over the standard errors of both sides.

    The paper's is its std over its trials, or the worst one of the table; where it prints neither, our own spread
    stands in, over as many trials as it states, or one: a printed mean is not exact.
    """
    n, mean = len(errors), statistics.fmean(errors)
    std = statistics.stdev(errors) if n > 1 else None
    gap = None if row["error"] is None else mean - row["error"]
    found = {"ours": mean, "std": std, "n": n, "gap": gap, "gap_se": None}
    if gap is not None and std is not None:
        theirs = (row["std"] or std) / math.sqrt(row["trials"] or 1)
        theirs = row["se_worst"] if row["se_worst"] and not row["std"] else theirs
        spread = math.hypot(std / math.sqrt(n), theirs)
        found["gap_se"] = gap / spread if spread else None
    return found


def _measured(plan: Planned | None, row: dict, index: dict, dataset_as: str | None) -> dict[tuple, list[float]]:
    """The values that answer a row, by all that may not be pooled: data, network, budget, device, the whole recipe."""
    groups = defaultdict(list)
    measure, batch_size = (plan.measure, plan.batch_size) if plan else ("error", None)
    for run in _answers(plan, row, index, dataset_as):
        value = run["error"] if measure == "error" else _within(run, "measures").get(measure)
        content = {k: v for k, v in _within(run, "recipe").items() if k not in ("note", "test_every")}
        same = row["model"] is None or _same_model(run["model"], plan.model if plan else row["model"])
        if same and batch_size in (None, content.get("batch_size")) and is_percentage(value):
            groups[_set_name(run), run["model"], run["budget"], _device(run), _frozen(content)].append(float(value))
    return groups


def _answers(plan: Planned | None, row: dict, index: dict, dataset_as: str | None) -> list[dict]:
    """The records of the right data set, method and parameters, whatever their network."""
    plan = _moved(plan, dataset_as) if plan and dataset_as else plan
    name, params = _stated(plan.method if plan else method_of(row))
    labels = [("row", _frozen(params))] if plan is None or plan.held else []
    if plan and plan.held:
        _, params = _stated(plan.trained())  # None if nobody has measured how far apart these images are
    labels += [("params", _frozen(params))] if params is not None else []
    word = plan.data if plan else dataset_as or row["dataset"]
    sets = [("data", word), ("name", _plain(word)), *([("true", word)] if dataset_as or plan is None else [])]
    found = [run for key in sets for label in labels for run in index.get((key, _plain(name), label), ())]
    return list({id(run): run for run in found}.values())


def _index(runs: list[dict]) -> dict[tuple, list[dict]]:
    """Records by data set, method and parameters, so that each is looked at once and not once for every row."""
    index = defaultdict(list)
    for run in runs:
        label = ("row", _frozen(run["row"])) if "row" in run else ("params", _frozen(run["params"]))
        data = run["data"] if isinstance(run.get("data"), str) else ""
        keys = [("data", data or None), ("true", run["dataset"])]
        keys += [("name", _plain(run["dataset"]))] if "(" not in run["dataset"] + data else []
        for key in keys:
            index[key, _plain(run["method"]), label].append(run)
    return index


def _moved(plan: Planned, dataset_as: str) -> Planned:
    """The same plan on another set; a name that is no expression, such as "cifar10-jpeg (10%)", is taken as it is."""
    options = read_data(plan.data)[1]
    try:
        return replace(plan, data=with_options(dataset_as, options) if options else dataset_as)
    except ValueError:
        return replace(plan, data=f"{dataset_as} {options}")  # a part of a part, which no record is named


@cache
def _stated(expression: str | None) -> tuple[str, dict | None]:
    """The method and params of a record of this expression."""
    return tuple(as_recorded(build_method(expression, seed=0)).values()) if expression else ("", None)


def _frozen(params) -> frozenset | None:
    """Parameters as something that can be looked up; None for what no run would hold."""
    try:
        return frozenset((k, tuple(v) if isinstance(v, list) else v) for k, v in params.items())
    except (TypeError, AttributeError):
        return None


def is_percentage(value) -> bool:
    """Is it a number from 0 to 100?"""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100


def _within(run: dict, group: str) -> dict:
    return run[group] if isinstance(run.get(group), dict) else {}


def _device(run: dict) -> str:
    device = run["device"] if isinstance(run.get("device"), str) else "?"
    return device + ", bf16" * (run.get("precision") == "bf16")


def _set_name(run: dict) -> str:
    """The data set, with its options where it has any: shapes of 16 and of 32 pixels are not one set."""
    return run["data"] if isinstance(run.get("data"), str) and "(" in run["data"] else run["dataset"]


def _same_model(ours: str, wanted: str) -> bool:
    """Names agree letter by letter, or ours is a list of hidden widths that the printed description holds."""
    return _plain(ours) == _plain(wanted) or (ours.startswith("fc") and _plain(ours[2:]) in _plain(wanted))


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


HEAD = ("data set", "method", "paper", "ours (mean ± std)", "n", "gap", "gap / s.e.", "budget")
CSV = ("paper", "table", "dataset", "model", "method", "params", "error", "ours", "std", "n", "gap", "gap_se")
CSV += ("measured_on", "network", "budget", "device", "why", "note")


def as_markdown(lines: list[dict]) -> str:
    """The lines of `compare` as a Markdown table."""
    rows = [HEAD, ["---"] * len(HEAD), *(list(_cells(line).values()) for line in lines)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def as_csv(lines: list[dict]) -> str:
    """The lines of `compare` as CSV, its params as words."""
    writer = csv.DictWriter(written := io.StringIO(), CSV, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({**line, "params": _words(line["params"])} for line in lines)
    return written.getvalue()


def as_text(lines: list[dict]) -> str:
    """The lines of `compare` in 80 columns: every budget once, numbered, and then table by table."""
    numbers = {budget: k for k, budget in enumerate(dict.fromkeys(_budget(line) for line in lines if line["n"]), 1)}
    told = ["Errors in percent. gap/se: over the standard errors of both sides."]
    told += [text for budget, k in numbers.items() for text in _wrapped(f"[{k}] {', '.join(budget)}")]
    for table, part in _by_table(lines).items():
        told += ["", f"{table:36} paper   ours    std   n    gap gap/se"]
        place = None
        for line in part:
            if place != (place := f"  {line['dataset']}, {line['model'] or 'no network named'}"):
                told.append(_cut(place, 79))
            told.append(_told(line, numbers))
        told += [text for note in sorted({line["note"] for line in part} - {""}) for text in _wrapped(f"  {note}")]
    return "\n".join(told)


def summary(lines: list[dict], records: int, failed: list[str]) -> str:
    """Cells measured of all, for every paper and each of its tables that has any; and the runs that failed."""
    told = ["{} of {} printed cells measured, by {:,} records".format(*count_cells(lines), records)]
    for paper in dict.fromkeys(line["paper"] for line in lines):
        own = [line for line in lines if line["paper"] == paper]
        counts = {table.split("/")[1]: count_cells(part) for table, part in _by_table(own).items()}
        some = ", ".join(f"{table} {done}/{total}" for table, (done, total) in counts.items() if done)
        told += _wrapped("  {:10} {:3} of {:3}   ".format(paper, *count_cells(own)) + some)
    told += _wrapped(f"failed, not counted: {len(failed)} ({', '.join(failed)})") if failed else []
    return "\n".join(told)


def todo(lines: list[dict], budget: str | None = None, seconds=None) -> str:
    """Table by table: the runs that would fill empty cells and their command; and what cannot be run, and why.

    budget: a recipe in place of each row's own. seconds: a call that says how long a plan takes here, or None.
    """
    told = []
    for table, part in _by_table(lines).items():
        empty = [line for line in part if not line["n"]]
        plans = trainings((plan for line in empty for plan in line["missing"]), budget)
        known = [s for s in map(seconds, plans) if s is not None] if seconds else []
        time = f"about {len(plans) * statistics.fmean(known) / 60:,.0f} min" if known else "time unknown here"
        title = f"{table}: {len(empty)} of {count_cells(part)[1]} cells empty"
        title += f", {len(plans)} run{'s' * (len(plans) > 1)} a seed" if plans else ""
        told += _wrapped(title + (f", {time}" if plans and seconds else "")) if empty else []
        if plans:
            told.append(f"  python -m mixlab run --table {table}" + (f" --recipe '{budget}'" if budget else ""))
            told += _wrapped("  " + ", ".join(sorted({plan.recipe for plan in plans})))
        whys = Counter(line["why"] for line in empty if line["why"])
        told += [text for why, n in whys.items() for text in _wrapped(f"  {n} not to be run: {why}")]
        told += [text for note in sorted({plan.note for plan in plans} - {""}) for text in _wrapped(f"  {note}")]
    return "\n".join(told)


def _told(line: dict, numbers: dict) -> str:
    cells = _cells(line)
    told = f"    {_cut(cells['method'], 32):32} {cells['paper']:>5}"
    if not line["n"]:
        return f"{told} {_cut(line['why'] or 'not run', 35)}"
    std = "" if line["std"] is None else f"{line['std']:.2f}"
    told += f" {line['ours']:6.2f} {std:>6} {line['n']:3} {cells['gap']:>6} {cells['gap / s.e.']:>6}"
    return f"{told} [{numbers[_budget(line)]}]"


def _budget(line: dict) -> tuple:
    """What a line was measured under; the data and the network too, where the paper's words differ."""
    data = () if _plain(line["measured_on"]) == _plain(line["dataset"]) else (line["measured_on"],)
    return (line["budget"], *(() if line["model"] else (line["network"],)), *data, line["device"])


def _cells(line: dict) -> dict[str, str]:
    def number(key: str, form: str) -> str:
        return "" if line[key] is None else format(line[key], form)

    on = line.get("measured_on")
    dataset = line["dataset"] + (f" (ours: {on})" if on and _plain(on) != _plain(line["dataset"]) else "")
    ours = " ± ".join(f"{line[key]:.2f}" for key in ("ours", "std") if line[key] is not None)
    cells = (dataset, f"{line['method']} {_words(line['params'])}".strip(), number("error", ".2f"), ours)
    cells += (str(line["n"] or ""), number("gap", "+.2f"), number("gap_se", "+.1f"), line["budget"])
    return dict(zip(HEAD, cells, strict=True))


def _words(params: dict) -> str:
    return " ".join(f"{key}={value}" for key, value in params.items())


def _by_table(lines: list[dict]) -> dict[str, list[dict]]:
    grouped = defaultdict(list)
    for line in lines:
        grouped[f"{line['paper']}/{line['table']}"].append(line)
    return grouped


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 79, subsequent_indent="    ")
