"""The notebooks: what a reader may count on in each lesson, clean outputs, and the run that executes them."""

import copy
import json
import re
import signal
import subprocess
import sys
import time

import pytest

from mixlab.course import build as course
from mixlab.course import reference, site, work
from mixlab.course.exercises import registry
from mixlab.places import ROOT

NOTEBOOKS = ROOT / "notebooks"
MAIN = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
MICROSCOPE = sorted(NOTEBOOKS.glob("microscope/*.ipynb"))
SOLUTIONS = sorted(NOTEBOOKS.glob("solutions/*.ipynb"))
EXECUTED = [*MAIN, *MICROSCOPE, *SOLUTIONS, NOTEBOOKS / "playground.ipynb"]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=course._label)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def text(cell):
    return "".join(cell["source"])


def cells(path, kind):
    return [cell for cell in read(path)["cells"] if cell["cell_type"] == kind]


def words(path):
    return "\n".join(text(cell) for cell in cells(path, "markdown"))


def exercises(path):
    return re.findall(r"^@exercise\(\"([\w.]+)\"", "\n".join(text(cell) for cell in cells(path, "code")), re.M)


def test_names_and_numbers_are_those_of_the_course():
    assert [path.stem[:2] for path in MAIN] == [f"{number:02}" for number in range(10)]
    assert {path.stem for path in [*MICROSCOPE, *SOLUTIONS]} <= {path.stem for path in MAIN}


def test_readme_lists_every_notebook():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [f"notebooks/{path.name}" for path in MAIN if f"notebooks/{path.name}" not in readme] == []


@each(MAIN)
def test_a_lesson_has_a_head_an_assertion_and_the_next_one_at_its_end(path):
    head = text(read(path)["cells"][0])
    assert head.startswith(f"# {path.stem[:2]} ") and re.search(r"minutes?", head)
    assert any("assert " in text(cell) for cell in cells(path, "code")), "a lesson asserts its claims"
    following = [other.stem for other in MAIN if other > path]
    assert not following or following[0] in text(read(path)["cells"][-1])


@each(MAIN)
def test_a_lesson_is_as_long_as_an_hour_allows(path):
    assert len(read(path)["cells"]) <= 51 and len(words(path).split()) <= 2500
    lengths = sorted(len(text(cell).splitlines()) for cell in cells(path, "code"))
    assert lengths[-1] <= 30 and lengths[len(lengths) // 2] <= 10, lengths


@each(MAIN)
def test_every_picture_of_a_lesson_has_an_alternative_text(path):
    alts = [alt for alt, _ in course.pictures_of(read(path))]
    assert alts and all(alt and len(alt.split()) >= 4 for alt in alts), alts


@each(MAIN)
def test_exercises_stand_inside_a_lesson_and_their_score_at_its_end(path):
    names = exercises(path)
    assert len(set(names)) == len(names) and set(names) <= set(registry())
    assert len(names) >= (2 if path.stem[:2] in ("00", "07", "08", "09") else 3), names
    assert any(re.search(r"^score\(\)", text(cell), re.M) for cell in cells(path, "code")[-3:])


@each(SOLUTIONS)
def test_the_solutions_are_right(path):
    wanted = exercises(NOTEBOOKS / path.name)
    said = "".join(text for cell in cells(path, "code") for out in cell["outputs"] for text in out.get("text", []))
    assert wanted and [name for name in wanted if f"{name}: right" not in said] == []


@each(EXECUTED)
def test_outputs_are_committed_from_a_fresh_kernel(path):
    counts = [cell["execution_count"] for cell in cells(path, "code")]
    assert counts == list(range(1, len(counts) + 1)), "execute top to bottom: make save"
    assert read(path) == course.clean(read(path)), "outputs are not as `make save` leaves them"


@each(EXECUTED)
def test_output_budget_and_hygiene(path):
    raw = path.read_text(encoding="utf-8")
    assert len(raw.encode()) <= 1_500_000
    assert "application/vnd.jupyter" not in raw and "image/jpeg" not in raw and "image/svg" not in raw
    assert not re.search(r"/(home|root|work|tmp|Users)/\w", raw), "an absolute path"
    assert "from bench" not in raw, "not part of the package: found only where the shell or make has said so"
    for cell in cells(path, "code"):
        assert not any(output["output_type"] == "error" for output in cell["outputs"])
        assert "raises-exception" not in cell["metadata"].get("tags", []) and "allow_errors" not in text(cell)


def output(data, metadata):
    return {"output_type": "display_data", "data": data, "metadata": metadata}


def test_clean_removes_widgets_progress_and_timings_and_keeps_alternative_texts():
    outputs = [
        {"output_type": "stream", "name": "stderr", "text": "50%"},
        {"output_type": "stream", "name": "stdout", "text": "kept"},
        output({"application/vnd.jupyter.widget-view+json": {}, "text/plain": "interactive"}, {}),
        output({"image/png": PIXEL, "text/plain": "<Figure>"}, {"a": 1, "image/png": {"alt": "a dot", "width": 3}}),
    ]
    cell = {"cell_type": "code", "metadata": {"execution": {"started": "now"}, "tags": ["keep"]}, "source": ""}
    cleaned = course.clean({"cells": [{**cell, "outputs": outputs}], "metadata": {"widgets": {}}})
    assert "widgets" not in cleaned["metadata"] and cleaned["cells"][0]["metadata"] == {"tags": ["keep"]}
    kept, picture = cleaned["cells"][0]["outputs"]
    assert kept == {"output_type": "stream", "name": "stdout", "text": "kept"}
    assert picture["data"] == {"image/png": PIXEL} and picture["metadata"] == {"image/png": {"alt": "a dot"}}
    assert course.pictures_of(cleaned) == [("a dot", PIXEL)]
    assert course.clean(copy.deepcopy(cleaned)) == cleaned, "cleaning twice is cleaning once"


def tiny_notebook(folder, name, source, words="# A notebook"):
    import nbformat.v4 as v4

    folder.mkdir(parents=True, exist_ok=True)
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell(words), v4.new_code_cell(source)])
    notebook["metadata"]["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    (folder / f"{name}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    return folder / f"{name}.ipynb"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(course, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(course, "BUILD", tmp_path / "build")
    return tmp_path / "notebooks"


SHOW = "from mixlab.course import pictures\nprint(6 * 7)\npictures.show(pictures.panels()[0], 'an \"empty\" panel')"


@pytest.mark.slow
def test_a_run_reports_each_notebook_and_goes_on_after_a_failed_and_a_broken_one(folder, capsys):
    first = tiny_notebook(folder, "00_a", SHOW)
    tiny_notebook(folder, "01_b", "assert False, 'on purpose'")
    tiny_notebook(folder / "microscope", "02_c", "1")
    (folder / "02_c.ipynb").write_text("{ half a file", encoding="utf-8")
    assert course.run(save=True) == 1
    said = capsys.readouterr().out
    for line in (r"\[1/4\] 00_a +ok", r"\[2/4\] 01_b +failed", r"\[3/4\] 02_c +failed", r"\[4/4\] microscope/02_c +ok"):
        assert re.search(line, said), said
    assert "on purpose" in said and "Traceback (most" not in said.split("\n01_b:")[0]
    saved = read(first)["cells"][1]["outputs"]
    assert saved[0]["text"] == ["42\n"] and course.pictures_of(read(first))[0][0] == 'an "empty" panel'


@pytest.mark.slow
def test_saving_never_touches_what_a_student_wrote(folder):
    answered = tiny_notebook(folder / "exercises", "01_b", "answer = 42")
    before = answered.read_bytes()
    solution = tiny_notebook(folder / "solutions", "01_b", "1")
    file = f"__import__('pathlib').Path({str(folder / '02_c.ipynb')!r})"
    edits = f"{file}.write_text({file}.read_text().replace('old', 'new'))"
    edited = tiny_notebook(folder, "02_c", edits + "  # old")
    assert course.run(save=True) == 1
    assert answered.read_bytes() == before and read(solution)["cells"][1]["execution_count"] == 1
    assert "# new" in text(read(edited)["cells"][1]) and not read(edited)["cells"][1]["outputs"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_ctrl_c_stops_the_whole_run_without_a_traceback(tmp_path):
    for name in ("00_a", "01_b"):
        tiny_notebook(tmp_path / "notebooks", name, f"open({str(tmp_path / name)!r}, 'w'); import time; time.sleep(60)")
    code = f"""
import pathlib, sys
from mixlab.course import build
build.NOTEBOOKS, build.BUILD = pathlib.Path({str(tmp_path / "notebooks")!r}), pathlib.Path({str(tmp_path / "build")!r})
sys.exit(build.run())
"""
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "00_a").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    said, complaints = run.communicate(timeout=30)
    assert run.returncode == 130 and said.rstrip().endswith("stopped") and "Traceback" not in said + complaints
    assert not (tmp_path / "01_b").exists()


def test_an_unknown_name_is_refused_and_so_is_a_place_without_notebooks(folder):
    with pytest.raises(ValueError, match="no notebooks in"):
        course.run()
    assert not (folder.parent / "build").exists()
    tiny_notebook(folder, "00_a", "1")
    with pytest.raises(ValueError, match="names: no notebook is called 07_x"):
        course.find(["07_x"])


def test_a_student_gets_copies_of_the_lessons_and_keeps_what_is_his(tmp_path, monkeypatch, capsys):
    words = "[b](01_b.ipynb) [answers](solutions/01_b.ipynb) [site](https://example.org)"
    lesson = tiny_notebook(tmp_path / "notebooks", "00_a", "print(1)", words)
    monkeypatch.setattr(work, "LESSONS", tmp_path / "notebooks")
    mine = tmp_path / "class" / "work" / "00_a.ipynb"
    assert work.copy(mine.parent) == 0 and "00_a.ipynb: new" in capsys.readouterr().out
    assert text(read(mine)["cells"][0]) == (
        "[b](01_b.ipynb) [answers](../../notebooks/solutions/01_b.ipynb) [site](https://example.org)"
    )
    for content, said in ((mine.read_text(encoding="utf-8"), "as it was"), ("my notes", "yours, so it is kept")):
        mine.write_text(content, encoding="utf-8")
        work.copy(mine.parent)
        assert said in capsys.readouterr().out and mine.read_text(encoding="utf-8") == content
    with pytest.raises(ValueError, match="directory"):
        work.copy(lesson.parent)
    with pytest.raises(ValueError, match="directory"):
        work.copy(lesson)
    monkeypatch.setattr(work, "LESSONS", tmp_path / "nowhere")
    with pytest.raises(ValueError, match="repository"):
        work.copy(mine.parent)


@pytest.mark.parametrize(
    ("link", "led"),
    [
        ("[b](../02_kmixup.ipynb#knobs)", "[b](../02_kmixup.ipynb#knobs)"),
        ("[code](../../mixlab/mixup.py#L3)", "[code](../code/mixup.md)"),
        ("[room](../../mixlab/data/sets.py)", "[room](../code/data.md)"),
        ("[answers](../solutions)", "[answers](../solutions/index.md)"),
        (
            "[a file](../../LICENSE) ![p](p.png) [x](https://a.b/c.md) [y](#z)",
            "a file ![p](p.png) [x](https://a.b/c.md) [y](#z)",
        ),
        ("`f[i](x)`\n```\ng[i](x)\n```\n[c](01_mixup.ipynb)", "`f[i](x)`\n```\ng[i](x)\n```\n[c](01_mixup.ipynb)"),
    ],
)
def test_links_of_a_notebook_lead_to_pages_and_code_is_left_alone(link, led):
    assert site._relinker(NOTEBOOKS / "microscope" / "03_zeta.ipynb", site._places())(link) == led


def test_a_page_of_code_has_signatures_equations_and_the_whole_file():
    page = reference.code_pages()["code/mixup.md"]
    assert ":::{py:class} Mixup(alpha: float, per_sample: bool=False, rng: Any=None)" in page
    assert "\n\n    x'_i = lam x_i + (1 - lam) x_pi(i)" in page and (ROOT / "mixlab" / "mixup.py").read_text() in page
    assert "```pycon\n>>> weights(2" in reference.code_pages()["code/zeta.md"]


def test_site_says_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(site, "NEEDED", ("json", "no_such_package"))
    with pytest.raises(ValueError, match="site needs no_such_package: "):
        site.run(tmp_path)
    assert not list(tmp_path.iterdir())
