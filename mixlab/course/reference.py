"""Pages made of the code and of the records, in MyST's Markdown: what each name does, and what was measured."""

import ast
import re
import statistics
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from mixlab.places import PACKAGE, ROOT

PAPERS = ("mixup", "kmixup", "zeta", "confusion", "lamix", "infinite")
FIRST = ("method", "plans", *PAPERS)
OTHERS = tuple(sorted({path.stem for path in PACKAGE.glob("[!_]*.py")} - {*FIRST}))
METHODS = (*FIRST, *OTHERS)  # a page each, with the whole file; rooms have one page for all files
ROOMS = {"data": "Data sets", "training": "Training", "results": "Results", "course": "The course's own tools"}
BESIDE = ("method", "paper", "ours", "n", "gap", "gap / s.e.")
GAPS = {"error": ".2f", "gap": "+.2f", "gap_se": "+.1f"}
DOCTEST = re.compile(r"^>>> .*?(?=\n\n|\Z)", re.S | re.M)


def toctree(pages: list[str], caption: str = "") -> str:
    """A table of contents."""
    return "\n".join(["```{toctree}", ":maxdepth: 1", f":caption: {caption}" * bool(caption), "", *pages, "```", ""])


def code_pages() -> dict[str, str]:
    """A page for every file of a method, and one for every room."""
    pages = {f"code/{name}.md": _file_page(PACKAGE / f"{name}.py") for name in METHODS}
    for room, title in ROOMS.items():
        parts = [_names(path, "##") for path in sorted((PACKAGE / room).glob("[!_]*.py"))]
        pages[f"code/{room}.md"] = "\n\n".join([f"# {title}", *parts])
    words = "Every method is a file that can be read in one sitting; what its docstrings say, and the whole of it."
    contents = (("The idea", FIRST[:2]), ("The papers", PAPERS), ("What they compare with", OTHERS), ("Rooms", ROOMS))
    trees = [f"## {title}\n\n{toctree(list(names))}" for title, names in contents]
    pages["code/index.md"] = "\n\n".join(["# The code", words, *trees])
    return pages


def _file_page(path: Path) -> str:
    source = path.read_text(encoding="utf-8")
    return f"{_names(path, '#')}\n\n## The whole file\n\n`````python\n{source}`````\n"


def _names(path: Path, level: str) -> str:
    """What a module says of itself, and all of its names that have a docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    head = [f"{level} `{path.name}`", f"```{{py:module}} {module}\n```", _markdown(tree)]
    return "\n\n".join([*head, *_members(tree.body)])


def _members(nodes: list, kind: str = "function") -> list[str]:
    named = [node for node in nodes if not getattr(node, "name", "_").startswith("_")]
    return [_member(node, kind) for node in named if _markdown(node)]


def _member(node, kind: str) -> str:
    """One class, method or function: its signature as written, and its docstring."""
    if isinstance(node, ast.ClassDef):
        made = [_signature(child) for child in node.body if getattr(child, "name", "") == "__init__"]
        inner = "\n\n".join([_markdown(node), *_members(node.body, "method")])
        return f"::::{{py:class}} {node.name}{''.join(made)}\n\n{inner}\n::::"
    if any(ast.unparse(word) == "property" for word in node.decorator_list):
        return f":::{{py:property}} {node.name}\n\n{_markdown(node)}\n:::"
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f":::{{py:{kind}}} {node.name}{_signature(node)}{returns}\n\n{_markdown(node)}\n:::"


def _signature(node: ast.FunctionDef) -> str:
    words = re.sub(r"^(self|cls)(, )?", "", ast.unparse(node.args))
    return f"({words})"


def _markdown(node) -> str:
    """The docstring, which reads as Markdown but for its examples; equations stand indented in it, and stay so."""
    is_code = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    text = (ast.get_docstring(node) if is_code else "") or ""
    text = re.sub(r"^(?!    ).*", lambda line: line[0].replace("](", "]\\("), text, flags=re.M)  # E[x](y) is no link
    return DOCTEST.sub(lambda example: f"```pycon\n{example[0]}\n```", text)


def results_pages() -> dict[str, str]:
    """A page for every paper, its numbers beside ours, and one for the experiments of our own."""
    from mixlab.results import papers, records, report

    runs, _ = records.read()
    lines = report.compare(papers.rows_of(None), runs)
    pages = {"results/experiments.md": _experiments_page(runs)}
    for name in papers.names():
        pages[f"results/{name}.md"] = _paper_page(name, [line for line in lines if line["paper"] == name])
    words = "Errors are in percent. *gap*: ours less the printed one; *gap / s.e.*: over the standard errors of both."
    summary = f"```text\n{report.summary(lines, len(runs), [])}\n```"
    contents = toctree(["experiments", *papers.names()])
    pages["results/index.md"] = "\n\n".join(["# Results", words, summary, contents])
    return pages


def _paper_page(name: str, lines: list[dict]) -> str:
    """Table by table, what was measured; of the other tables the size only."""
    from mixlab.results.report import count_cells

    parts = [f"# {name}: published and measured"]
    for title, table in groupby(lines, lambda line: line["table"]):
        rows = list(table)
        measured = sorted((line for line in rows if line["n"]), key=_circumstances)
        parts.append("## {}\n\n{} of {} printed numbers have been measured.".format(title, *count_cells(rows)))
        parts += [head + _rows(BESIDE, map(_cells, group)) for head, group in groupby(measured, _circumstances)]
    return "\n\n".join(parts)


def _circumstances(line: dict) -> str:
    head = f"### {line['dataset']}, {line['model'] or 'no network named'}\n\n"
    return f"{head}Measured on {line['measured_on']} with {line['network']}: {line['budget']}. {line['device']}.\n\n"


def _cells(line: dict) -> tuple[str, ...]:
    method = " ".join([line["method"], *(f"{key}={value}" for key, value in line["params"].items())])
    ours = " ± ".join(f"{line[key]:.2f}" for key in ("ours", "std") if line[key] is not None)
    printed, gap, share = ("" if line[key] is None else format(line[key], form) for key, form in GAPS.items())
    return method, printed, ours, str(line["n"]), gap, share


def _experiments_page(runs: list[dict]) -> str:
    """What was run beside the papers' tables, one folder of records a section: mean ± standard deviation over seeds."""
    parts = ["# Experiments", "One section is one folder of `data/runs`. Error in percent after the last epoch."]
    stated = []
    for run in (run for run in runs if "expression" in run):
        place = f"{run.get('data') or run['dataset']}, {run['model']}, {run['budget']}"
        stated.append((run["file"].split("/")[0], place, run["expression"], run["error"]))
    for folder, group in groupby(sorted(stated), itemgetter(0)):
        parts.append(f"## {folder}")
        for place, same in groupby(group, itemgetter(1)):
            errors = {name: [run[3] for run in runs] for name, runs in groupby(same, itemgetter(2))}
            rows = [(name, _spread(values), str(len(values))) for name, values in errors.items()]
            parts.append(f"{place}\n\n" + _rows(("method", "error", "n"), rows))
    return "\n\n".join(parts)


def _spread(values: list[float]) -> str:
    return f"{statistics.fmean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


def _rows(head: tuple[str, ...], rows) -> str:
    """A Markdown table: words in the first column, numbers in the others."""
    lines = [head, ("---", *["--:"] * (len(head) - 1)), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
