"""The lessons in a folder of the student's own, where answers are safe: nothing in it is ever written over."""

import json
import os
import re
from pathlib import Path

from mixlab.places import ROOT

LESSONS = ROOT / "notebooks"
LINK = re.compile(r"\]\((?!https?:|mailto:|attachment:|#)([^)#\s]+)")


def copy(directory: Path | str = "work") -> int:
    """Copy every lesson that is not there yet, without outputs; one line each says what was done."""
    lessons, directory = sorted(LESSONS.glob("*.ipynb")), Path(directory).expanduser()
    if not lessons:
        raise ValueError("directory cannot be filled: the lessons lie in the repository, so clone it and work there")
    if directory.resolve() == LESSONS.resolve():
        raise ValueError(f"directory must be another one than the lessons' own, not {directory}")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path in lessons:
            print(f"{directory / path.name}: {_copy(path, directory)}")
    except OSError as problem:
        raise ValueError(f"directory {directory} cannot be written to: {problem.strerror}") from problem
    return 0


def _copy(path: Path, directory: Path) -> str:
    lesson, target = _fresh(path, directory), directory / path.name
    try:
        with open(target, "x", encoding="utf-8") as file:  # "x": fails where there is a file
            file.write(json.dumps(lesson, indent=1, ensure_ascii=False) + "\n")
        return "new"
    except FileExistsError:
        same = _sources(target) == [_text(cell) for cell in lesson["cells"]]
        return "as it was" if same else "yours, so it is kept; rename it if you want a fresh one beside it"


def _fresh(path: Path, directory: Path) -> dict:
    """The lesson without outputs; its links lead from the new folder to where they led before."""
    lesson = json.loads(path.read_text(encoding="utf-8"))
    for cell in lesson["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
        else:
            cell["source"] = LINK.sub(lambda match: f"]({_link(path, match[1], directory)}", _text(cell))
    return lesson


def _link(path: Path, link: str, directory: Path) -> str:
    target = path.parent / link
    if target.parent == path.parent and target.suffix == ".ipynb":
        return link  # to another lesson, which is copied too
    return Path(os.path.relpath(target.resolve(), directory.resolve())).as_posix()


def _sources(path: Path) -> list[str] | None:
    try:
        return [_text(cell) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    except (ValueError, KeyError, TypeError):
        return None  # a file of the student's that is no notebook, or half a one


def _text(cell: dict) -> str:
    return "".join(cell["source"])
