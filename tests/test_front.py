"""The README: its numbers are those of the stored runs, its commands and links lead somewhere."""

import json
import re

import pytest

from mixlab.course import front
from mixlab.places import ROOT
from mixlab.results.records import difference, experiment

TEXT = front.README.read_text(encoding="utf-8")


def test_the_readme_says_what_the_records_say():
    assert front.filled(TEXT) == TEXT, "run python -m mixlab.course.front"


def test_the_table_counts_runs_and_moves_with_them(monkeypatch):
    runs = {"ERM()": [{"error": 50.0}, {"error": 52.0}], "Mixup(alpha=1.0)": [{"error": 39.0}]}
    monkeypatch.setattr(front, "experiment", lambda name: runs if name == "wrong_labels" else {})
    assert "| no mixing (ERM) | 51.0 ± 1.0 (n = 2) | not run |" in front.results()
    assert "| mixup | 39.0 (n = 1) | not run |" in front.results()


def test_mixing_wins_where_labels_are_wrong_beyond_two_standard_errors():
    runs = experiment("wrong_labels")
    gain, spread, n = difference(runs["Mixup(alpha=1.0)"], runs[front.BASE])
    assert n >= 2 and gain < -2 * spread


def test_badges_come_with_an_address_and_not_before(monkeypatch):
    assert front.address() != front.PLACEHOLDER or "](" not in front.badges()
    monkeypatch.setattr(front, "address", lambda: "https://github.com/someone/course")
    assert front.badges().count("github/someone/course/blob/main/notebooks/") == 11, "ten lessons and the playground"


def test_a_readme_that_lost_a_part_is_refused():
    with pytest.raises(ValueError, match=r"README.*results"):
        front.filled(TEXT.replace("<!-- results -->", ""))


def test_no_other_address_than_the_projects_own_stands_in_the_readme():
    assert set(re.findall(r"git clone (\S+)", TEXT)) == {front.address()}


def test_the_picture_is_there_and_drawn_from_the_runs():
    assert front.PICTURE.stat().st_size > 20_000
    figure = front.picture()
    shown = " ".join(label.get_text() for label in figure.axes[1].get_yticklabels())
    assert f"mixup, n = {len(experiment('wrong_labels')['Mixup(alpha=1.0)'])}" in shown
    front.pictures.plt.close(figure)


def test_the_commands_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^    make (\w+)", TEXT, re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target


@pytest.mark.parametrize("path", front.fetching(), ids=lambda path: path.stem)
def test_a_notebook_fetches_the_course_where_it_is_missing(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["cells"][1]["source"] == front.setup_cell()["source"], "run python -m mixlab.course.front"
    assert front.stamped(notebook)["cells"][2:] == notebook["cells"][2:], "stamping again changes nothing"
