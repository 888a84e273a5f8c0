"""The guides: every program in them runs as it is printed, and what they list is what there is."""

import importlib.util
import re
import runpy

import numpy as np
import pytest
from PIL import Image

from mixlab.course import grading
from mixlab.places import ROOT

GUIDES = sorted((ROOT / "notebooks" / "guides").glob("*.md"))


def programs():
    for path in GUIDES:
        for title, text in re.findall(r"^## ([^\n]*)\n(.*?)(?=^## |\Z)", path.read_text(encoding="utf-8"), re.M | re.S):
            for source in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S):
                yield pytest.param(source, id=title.split(",")[0].split(":")[0])


PROGRAMS = list(programs())


@pytest.fixture
def photos(tmp_path):
    """A folder of random pictures in two classes, where the program will look for it."""
    rng = np.random.default_rng(0)
    for i in range(20):
        path = tmp_path / "photos" / ("cat", "dog")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(path)


@pytest.mark.slow
@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("source", PROGRAMS)
def test_a_program_of_a_guide_runs(source, tmp_path, monkeypatch, capsys):
    script = tmp_path / "program.py"
    script.write_text(source, encoding="utf-8")
    compile(source, "program.py", "exec")
    needed = re.match(r"# needs (\w+)", source)
    if needed and not importlib.util.find_spec(needed[1]):
        pytest.skip(f"{needed[1]} is not installed, so this program is only compiled")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIXLAB_DATA", str(tmp_path))
    runpy.run_path(str(script), run_name="__main__")
    said = capsys.readouterr().out
    assert re.search(r"\d", said) and "nan" not in said


def test_there_are_programs_to_run():
    assert len(PROGRAMS) >= 6


def test_the_teachers_page_lists_every_exercise_with_its_minutes():
    text = (ROOT / "notebooks" / "guides" / "teaching.md").read_text(encoding="utf-8")
    listed = {name: float(minutes) for name, minutes in re.findall(r"^\| `([\w.]+)` \| (\d+) \| \w", text, re.M)}
    assert listed == grading.minutes()
