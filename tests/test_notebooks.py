"""The notebooks' skeleton, numbering and outputs; DESIGN: what a reader may count on in each of them."""

import base64
import copy
import io
import json
import re

import pytest
from PIL import Image

from mixlab.course import build as course
from mixlab.course.cut import cut
from mixlab.places import ROOT

MAIN = sorted((ROOT / "notebooks").glob("*.ipynb"))
SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))
EXERCISES = sorted((ROOT / "notebooks" / "exercises").glob("*.ipynb"))
COURSE = (
    "00_start_here 01_mixup 02_kmixup 03_zeta_mixup 04_confusion_mixup 05_lamix 06_infinite_class_mixup "
    "07_cifar 08_tiny_imagenet 09_side_by_side"
).split()


def one_pixel():
    file = io.BytesIO()
    Image.new("RGBA", (1, 1)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


PIXEL = one_pixel()


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def text(cell):
    return "".join(cell["source"])


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_names_and_numbers_are_those_of_the_course():
    assert [path.stem for path in MAIN] == [name for name in COURSE if name in {path.stem for path in MAIN}]
    assert [path.stem for path in MAIN][:2] == COURSE[:2]
    assert {path.stem for path in SOLUTIONS} <= {path.stem for path in MAIN}
    assert [path.name for path in SOLUTIONS] == [path.name for path in EXERCISES]


def test_readme_lists_every_notebook_and_marks_what_is_coming():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [line for line in readme.splitlines() if re.match(r"\| \d\d", line)]
    assert [row[2:4] for row in rows] == [name[:2] for name in COURSE]
    for name, row in zip(COURSE, rows, strict=True):
        written = (ROOT / "notebooks" / f"{name}.ipynb").exists()
        assert written == (f"notebooks/{name}.ipynb" in row) and written != ("coming" in row), row


@pytest.mark.parametrize("path", MAIN, ids=lambda path: path.stem)
def test_skeleton(path):
    notebook = read(path)
    cells = notebook["cells"]
    head = text(cells[0])
    assert cells[0]["cell_type"] == "markdown" and head.startswith(f"# {path.stem[:2]} ")
    assert "After this you can" in head and re.search(r"minutes? on a laptop", head) and "on a GPU" in head
    markdown = "\n".join(text(cell) for cell in cells if cell["cell_type"] == "markdown")
    wanted = ["What we saw", "Exercises", "References"] + (["What the paper left out"] if path.stem[:2] != "00" else [])
    for heading in wanted:
        assert re.search(rf"^## .*{heading}", markdown, re.M), heading
    knobs = [cell for cell in code_cells(notebook) if re.search(r"^SCALE = ", text(cell), re.M)]
    assert len(knobs) == 1 and 'SCALE = scale("quick")' in text(knobs[0])
    assert any("__version__" in text(cell) for cell in code_cells(notebook)[:2]), "imports and versions come first"
    assert any("assert " in text(cell) for cell in code_cells(notebook)), "every notebook asserts its claims"


@pytest.mark.parametrize("path", MAIN, ids=lambda path: path.stem)
def test_it_ends_with_the_next_notebook(path):
    last = text(read(path)["cells"][-1])
    following = COURSE[COURSE.index(path.stem) + 1 :]
    assert not following or following[0] in last


@pytest.mark.parametrize("path", [*MAIN, *SOLUTIONS], ids=course._label)
def test_outputs_are_committed_from_a_fresh_kernel(path):
    notebook = read(path)
    counts = [cell["execution_count"] for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1)), "execute top to bottom: make save"
    assert notebook == course.clean(read(path)), "outputs are not as `make save` leaves them"


@pytest.mark.parametrize("path", [*MAIN, *SOLUTIONS, *EXERCISES], ids=course._label)
def test_output_budget_and_hygiene(path):
    raw, notebook = path.read_text(encoding="utf-8"), read(path)
    assert len(raw.encode()) <= 400_000
    assert "widgets" not in notebook["metadata"] and "application/vnd.jupyter" not in raw
    assert not re.search(r"/(home|root|work|tmp|Users)/\w", raw), "an absolute path"
    assert "image/jpeg" not in raw and "image/svg" not in raw
    for cell in code_cells(notebook):
        assert not any(output["output_type"] == "error" for output in cell["outputs"])
        assert "raises-exception" not in cell["metadata"].get("tags", []) and "allow_errors" not in text(cell)


@pytest.mark.parametrize("path", [*MAIN, *SOLUTIONS], ids=course._label)
def test_code_cells_are_short(path):
    lengths = sorted(len(text(cell).splitlines()) for cell in code_cells(read(path)))
    assert lengths[-1] <= 30
    if path in MAIN:
        assert lengths[len(lengths) // 2] <= 8 and lengths[int(0.9 * len(lengths))] <= 20, lengths


@pytest.mark.parametrize("path", SOLUTIONS, ids=course._label)
def test_exercises_are_cut_from_their_solutions(path):
    exercise, committed = cut(read(path)), read(ROOT / "notebooks" / "exercises" / path.name)
    assert [text(cell) for cell in committed["cells"]] == [text(cell) for cell in exercise["cells"]], (
        "make save cuts them"
    )
    solved = [cell for cell in code_cells(read(path)) if "solution" in cell["metadata"].get("tags", [])]
    assert any("grader.solved ==" in text(cell) for cell in solved), "a solution asserts that all of it is right"


@pytest.mark.parametrize("path", EXERCISES, ids=course._label)
def test_nothing_is_solved_before_the_student_has_tried(path, capsys):
    names = {}
    for cell in code_cells(read(path)):
        exec(compile(text(cell), path.stem, "exec"), names)
    assert names["grader"].solved == 0 and len(names["grader"].results) >= 3
    assert capsys.readouterr().out.count("not tried yet") == len(names["grader"].results)


def test_clean_removes_widgets_progress_bars_and_timings():
    cell = {
        "cell_type": "code",
        "metadata": {"execution": {"started": "now"}, "tags": ["keep"]},
        "source": "",
        "outputs": [
            {"output_type": "stream", "name": "stderr", "text": "50%"},
            {"output_type": "stream", "name": "stdout", "text": "kept"},
            {
                "output_type": "display_data",
                "data": {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "interactive"},
                "metadata": {},
            },
            {
                "output_type": "display_data",
                "data": {"image/png": PIXEL, "text/plain": "<Figure>"},
                "metadata": {"a": 1},
            },
        ],
    }
    cleaned = course.clean({"cells": [cell], "metadata": {"widgets": {}}})
    assert "widgets" not in cleaned["metadata"] and cleaned["cells"][0]["metadata"] == {"tags": ["keep"]}
    kept, picture = cleaned["cells"][0]["outputs"]
    assert kept == {"output_type": "stream", "name": "stdout", "text": "kept"}
    assert list(picture["data"]) == ["image/png"] and picture["metadata"] == {}
    assert course.clean(copy.deepcopy(cleaned)) == cleaned, "cleaning twice is cleaning once"


def tiny_notebook(folder, name, source):
    import nbformat.v4 as v4

    folder.mkdir(parents=True, exist_ok=True)
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell("[next](01_b.ipynb)"), v4.new_code_cell(source)])
    notebook["metadata"]["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    (folder / f"{name}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")


def test_a_run_of_the_course_reports_pages_and_failures(tmp_path, monkeypatch, capsys):
    tiny_notebook(tmp_path / "notebooks", "00_a", "print(6 * 7)")
    tiny_notebook(tmp_path / "notebooks", "01_b", "assert False, 'on purpose'")
    monkeypatch.setattr(course, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(course, "BUILD", tmp_path / "build")
    assert course.run(["00_a"], save=True) == 0
    assert course.run() == 1
    said = capsys.readouterr().out
    assert re.search(r"\[1/2\] 00_a +ok", said) and re.search(r"\[2/2\] 01_b +failed", said) and "on purpose" in said
    page = (tmp_path / "build" / "html" / "00_a.html").read_text(encoding="utf-8")
    assert "42" in page and 'href="01_b.html"' in page
    assert 'href="00_a.html"' in (tmp_path / "build" / "html" / "index.html").read_text(encoding="utf-8")
    assert "42" in (tmp_path / "build" / "notebooks" / "00_a.ipynb").read_text(encoding="utf-8")
    assert read(tmp_path / "notebooks" / "00_a.ipynb")["cells"][1]["outputs"][0]["text"] == ["42\n"]
    with pytest.raises(ValueError, match="no notebook is called 07_x"):
        course.find(["07_x"])
