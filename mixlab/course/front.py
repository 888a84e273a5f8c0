"""The front door: the README's badges, results and picture, and each notebook's first cell, made from what they say.

`python -m mixlab.course.front` writes them anew after new runs; tests/test_front.py holds the README to them.
"""

import json
import re
import tomllib
from pathlib import Path

import numpy as np

from mixlab.course import pictures
from mixlab.course.build import find
from mixlab.places import ROOT
from mixlab.results.records import experiment, mean_and_error

README, PICTURE = ROOT / "README.md", ROOT / "notebooks" / "what_mixing_buys.png"
PLACEHOLDER = "https://example.org/mixlab"  # until the repository has an address: [project.urls] in pyproject.toml
NAMES = {
    "ERM()": "no mixing (ERM)",
    "LabelSmoothing(eps=0.1, method=ERM())": "label smoothing",
    "Mixup(alpha=1.0)": "mixup",
    "Mixup(alpha=8.0)": "mixup, alpha 8",
    "KMixup(alpha=1.0, k=16)": "16-mixup",
    "ZetaMixup(gamma=2.8)": "zeta-mixup",
    "CutMix(alpha=1.0)": "CutMix",
    "RegMixup(method=Mixup(alpha=20.0))": "RegMixup",
    "ManifoldMixup(mixing=Mixup(alpha=1.0))": "manifold mixup",
    "ConfusionMixup(alpha=1.0, gamma=0.25)": "guided mixup",
    "LaMix(mixing=Mixup(alpha=1.0, per_sample=True))": "LaMix",
    "InfiniteClass(method=Mixup(alpha=1.0, per_sample=True))": "Infinite Class",
    "PuzzleMix(alpha=1.0)": "PuzzleMix",
}
BASE = "ERM()"
SETUP = "remove-cell"  # the tag of the setup cell, which pages leave out


def address() -> str:
    """Where the repository lies: the one place that says so is pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["urls"]["Repository"].rstrip("/")


def badges() -> str:
    """Links that need the repository's address; none as long as it is not known."""
    url = address()
    if url == PLACEHOLDER:
        return "*(No badges yet: this copy does not know its address, see `[project.urls]` in pyproject.toml.)*"
    path = url.removeprefix("https://github.com/")
    colab = f"https://colab.research.google.com/github/{path}/blob/main/notebooks/"
    links = [f"[{p.stem.partition('_')[0]}]({colab}{p.name})" for p in find() if p.parent == PICTURE.parent]
    tests = f"[![tests]({url}/actions/workflows/test.yml/badge.svg)]({url}/actions)"
    codespaces = f"[![Codespaces](https://github.com/codespaces/badge.svg)](https://codespaces.new/{path})"
    return f"{tests} {codespaces} in Colab: {' '.join(links)}"


def results() -> str:
    """Test errors of the two experiments on real pictures, of every method that one of them has run."""
    wrong, clean = experiment("wrong_labels"), experiment("twentieth")
    sides = "5,000 pictures, 40% of the labels random", "2,500 pictures, all labels right"
    lines = [f"| percent wrong on the test set | {' | '.join(sides)} |", "|---|---|---|"]
    for expression, name in NAMES.items():
        if expression in wrong or expression in clean:
            lines.append(f"| {name} | {_cell(wrong, expression)} | {_cell(clean, expression)} |")
    return "\n".join(lines)


def _cell(runs: dict, expression: str) -> str:
    if expression not in runs:
        return "not run"
    mean, spread = mean_and_error([run["error"] for run in runs[expression]])
    n = len(runs[expression])
    return f"{mean:.1f} ± {spread:.1f} (n = {n})" if n > 1 else f"{mean:.1f} (n = 1)"


def picture():
    """Left, wrong labels: test error over the epochs, without mixing and with. Right: every method, and its runs."""
    runs = experiment("wrong_labels")
    figure, (left, right) = pictures.panels(1, 2, 4.7, 3.3)
    for expression, colour in ((BASE, pictures.COLOURS[5]), ("Mixup(alpha=1.0)", pictures.COLOURS[0])):
        tested = [[line for line in run["curve"] if "error" in line] for run in runs[expression]]
        errors = np.array([[line["error"] for line in curve] for curve in tested])
        epochs = [line["epoch"] for line in tested[0]]
        left.plot(epochs, errors.mean(0), color=colour, linewidth=2.5, label=NAMES[expression])
        left.fill_between(epochs, errors.min(0), errors.max(0), color=colour, alpha=0.2)
    left.set(xlabel="epoch", ylabel="% of the test pictures wrong", ylim=(35, 65))
    left.set_title("40% random labels: mixup keeps getting better", fontsize=10)
    left.legend()
    label = {key: f"{name}, n = {len(runs[key])}" for key, name in NAMES.items() if key in runs}
    dots = {words: mean_and_error([run["error"] for run in runs[key]]) for key, words in label.items()}
    pictures.dots(right, dict(sorted(dots.items(), key=lambda item: item[1])), highlight=label[BASE])
    right.set(xlabel="% of the test pictures wrong")
    right.set_title("after the last epoch (bar: standard error)", fontsize=10)
    return figure


def filled(text: str) -> str:
    """The README's text with its made parts made anew: between <!-- name --> and <!-- end -->."""
    for name, part in {"badges": badges(), "results": results()}.items():
        between = rf"(?<=<!-- {name} -->\n).*?(?=<!-- end -->)"
        text, found = re.subn(between, lambda _, part=part: f"{part}\n", text, flags=re.S)
        if found != 1:
            raise ValueError(f"README.md needs one part <!-- {name} -->, not {found}")
    return text


def fetching() -> list[Path]:
    """The notebooks that begin with the setup cell: all but the solutions."""
    return [path for path in find() if path.parent.name != "solutions"]


def setup_cell() -> dict:
    """The first cell of a notebook: it does nothing where the course is installed, and fetches it elsewhere."""
    source = f"""import importlib.util

if importlib.util.find_spec("mixlab") is None:  # a machine that has only this page, such as Colab
    !git clone -q {address()} course && pip install -q -e "./course[jupyter]"
    %cd -q course"""
    cell = {"cell_type": "code", "execution_count": None, "id": "setup", "metadata": {"tags": [SETUP]}, "outputs": []}
    return {**cell, "source": source.splitlines(keepends=True)}


def stamped(notebook: dict) -> dict:
    """The notebook with its setup cell, after the title."""
    title, *others = [cell for cell in notebook["cells"] if SETUP not in cell["metadata"].get("tags", [])]
    cells = [title, setup_cell(), *others]
    for number, cell in enumerate((cell for cell in cells if cell["cell_type"] == "code"), 1):
        cell["execution_count"] = number
    return {**notebook, "cells": cells}


def main() -> None:
    README.write_text(filled(README.read_text(encoding="utf-8")), encoding="utf-8")
    PICTURE.write_bytes(pictures.png(picture()))
    for path in fetching():
        notebook = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(stamped(notebook), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
