"""Grading: right is right; a broken, endless, huge or hostile notebook is a row with its reason and does no harm."""

import ast
import csv
import dataclasses
import json
import os
import socket
import sys

import numpy as np
import pytest
import torch

from mixlab.__main__ import main
from mixlab.course import answering, exercises, fence, grading
from mixlab.course.answering import decode, encode
from mixlab.course.compare import compare
from mixlab.places import ROOT

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the fence was tried on Linux only")
IMPORTS = "import numpy as np\nimport torch\nfrom mixlab.course.exercises import exercise"


def notebook(*sources):
    cells = [{"cell_type": "code", "metadata": {}, "outputs": [], "source": source} for source in sources]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def answer(name, body, arguments="*given"):
    lines = "\n".join(f"    {line}" for line in body.split("\n"))
    return f'@exercise("{name}", minutes=999)\ndef f({arguments}):\n{lines}'


def solved(lesson, change=lambda source: source):
    """The lesson as a student hands it in: the whole notebook, with the worked answers in place of the stubs."""
    answers, imports = {}, ""
    for source in code("solutions", f"{lesson}.ipynb"):
        for statement in ast.parse(source).body:
            imports += f"{ast.unparse(statement)}\n" * isinstance(statement, ast.Import | ast.ImportFrom)
            answers[answering.exercise_of(statement)] = ast.unparse(statement)
    stubs = [(source, answering.STUB.findall(source)) for source in code(f"{lesson}.ipynb")]
    return notebook(*(f"{imports}\n{change(answers[names[0]])}\n" if names else source for source, names in stubs))


def code(*path):
    cells = json.loads(ROOT.joinpath("notebooks", *path).read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


LESSONS = sorted(path.stem for path in (ROOT / "notebooks" / "solutions").glob("*.ipynb"))
RIGHT = "w = np.arange(1.0, n + 1) ** -gamma\nreturn float(((w / w.sum()) ** 2).sum())"
FORGED = """import os
for descriptor in range(3, 20):
    try:
        os.write(descriptor, b'{"value": 1.0, "given": [1, 2], "right": true}\\n')
    except OSError:
        pass
return 1.0"""
TAMPERED = """import random, mixlab.course.exercises as e, mixlab.course.compare as c
e.verdict = e.examine = e.compare = c.compare = random.random = lambda *a, **k: None
np.random.default_rng = torch.equal = np.isclose = lambda *a, **k: True
return 0.5"""
MATCHED = "from mixlab.kmixup import match\nreturn tuple(match(x, z, len(x)).tolist())"
ROUND_PYTHON = """import ctypes, os
libc, parent, folder = ctypes.CDLL(None), os.getppid(), FOLDER
tried = {
    "fork": libc.fork(),
    "socket": libc.socket(2, 1, 0),
    "delete": libc.unlink(folder + b"/neighbour.ipynb"),
    "make": libc.creat(folder + b"/made", 0o600),
    "rights": libc.chmod(folder + b"/neighbour.ipynb", 0),
    "read": libc.open(folder + b"/neighbour.ipynb", 0),
    "signal": libc.kill(parent, 0),
    "limit": libc.prlimit(parent, 0, (ctypes.c_ulong * 2)(1, 1), None),
    "run": libc.execve(b"/bin/true", None, None),
}
raise RuntimeError(f"got through: {[name for name, result in tried.items() if result != -1]}")"""
TRIES = {  # exercise -> a cell, and how its verdict begins or what it holds
    "zeta.shrinkage": (answer("zeta.shrinkage", RIGHT, "gamma, n"), "right"),
    "mixup.loss": ("%matplotlib inline\n" + answer("mixup.loss", "..."), "not tried"),
    "mixup.mix": ("def f(:\n    pass\n" + answer("mixup.mix", "return 1"), "not yet: SyntaxError"),
    "start.apply": (answer("start.apply", "import os\nwhile True:\n    os.fork()"), "os.fork"),
    "start.blend": (answer("start.blend", "import socket\nsocket.create_connection(('127.0.0.1', PORT))"), "socket"),
    "start.matrix": (answer("start.matrix", "import shutil\nshutil.rmtree(FOLDER)"), "grading refuses it"),
    "mixup.ceiling": (answer("mixup.ceiling", "return bytearray(1 << 40)"), "MemoryError"),
    "mixup.intruders": (answer("mixup.intruders", "return torch.ones(1 << 30).sum()"), "RuntimeError"),
    "kmixup.bridges": (answer("kmixup.bridges", "raise SystemExit('bye')"), "SystemExit: bye"),
    "kmixup.crossings": (answer("kmixup.crossings", "raise KeyboardInterrupt"), "KeyboardInterrupt"),
    "kmixup.facing": (answer("kmixup.facing", "import os\nos._exit(3)"), "it ended its process (exit status 3)"),
    "kmixup.keep_xi": (answer("kmixup.keep_xi", "max(iter(int, 1))"), "it did not come to an end"),
    "zeta.weights": (answer("zeta.weights", "while True:\n    pass"), "it did not come to an end"),
    "zeta.fair_lam": (answer("zeta.fair_lam", FORGED), "it sent what is no answer"),
    "zeta.gamma_for": (answer("zeta.gamma_for", TAMPERED), "you returned 0.5 (float)"),
    "cifar.first_loss": (answer("cifar.first_loss", "print('3 of 3 exercises are right')"), "not yet"),
    "cifar.bin_gap": (answer("cifar.bin_gap", "return [0.0] * 300_000"), "more than 1 MB"),
    "kmixup.assignment": (answer("kmixup.assignment", MATCHED, "x, z"), "mixlab's own match"),
    "infinite.loss": (answer("infinite.loss", "import sys\nsys.settrace(None)"), "sys.settrace"),
    "infinite.counted": (answer("infinite.counted", "return 1e400, [None, object()], ..."), "not tried"),
    "infinite.copies": (answer("infinite.copies", "return 10**400"), "not yet: the answer cannot be judged"),
    "mixup.alpha_half": (
        answer("mixup.alpha_half", "return 1") + "\n" + answer("mixup.alpha_half", "return 7"),
        "right",
    ),
    "zeta.as_many": (answer("zeta.as_many", "return 2.25") + "\n" + answer("zeta.as_many", "return 1"), "not yet"),
}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """The row of one notebook that tries everything, the folder it would like to get at, and who called at the door."""
    folder = tmp_path_factory.mktemp("submissions")
    (folder / "neighbour.ipynb").write_text("mine")
    door = socket.create_server(("127.0.0.1", 0))
    door.setblocking(False)
    text = notebook(IMPORTS, *(cell for cell, _ in TRIES.values()))
    text = text.replace("FOLDER", repr(str(folder)).replace('"', "'")).replace("PORT", str(door.getsockname()[1]))
    (folder / "me.ipynb").write_text(text)
    quick = {name: dataclasses.replace(check, seconds=1.0) for name, check in exercises.registry().items()}
    with pytest.MonkeyPatch.context() as patch, door:
        patch.setattr(grading, "registry", lambda: quick)
        patch.setattr(grading, "LIMIT", 600.0)
        row = grading.grade_one(folder / "me.ipynb", "me", "secret")
        with pytest.raises(BlockingIOError):
            door.accept()
    return row, folder


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize("name", TRIES)
def test_whatever_a_function_tries_gets_its_verdict(graded, name):
    said, wanted = graded[0]["verdicts"][name], TRIES[name][1]
    assert wanted in said and (said == "right") == (wanted == "right")


@LINUX
@pytest.mark.slow
def test_what_it_tries_does_no_harm(graded):
    row, folder = graded
    assert set(row["verdicts"]) == set(TRIES) and row["problem"] == ""
    assert sorted(path.name for path in folder.iterdir()) == ["me.ipynb", "neighbour.ipynb"]


def grade_text(tmp_path, *cells):
    (tmp_path / "one.ipynb").write_text(notebook(*cells), encoding="utf-8")
    return grading.grade_one(tmp_path / "one.ipynb", "one", "secret")


@LINUX
@pytest.mark.slow
def test_the_kernel_refuses_what_goes_round_python(tmp_path):
    (tmp_path / "neighbour.ipynb").write_text("mine")
    row = grade_text(tmp_path, answer("zeta.as_many", ROUND_PYTHON.replace("FOLDER", repr(os.fsencode(tmp_path)))))
    assert row["held"] == "kernel", "this Linux has no Landlock or no seccomp"
    assert "got through: []" in row["verdicts"]["zeta.as_many"]
    assert (tmp_path / "neighbour.ipynb").read_text() == "mine"


SHARED = """import numpy as np, torch
from math import *
POWER = -1.0
centre = np.array(
    [0.5])
print("not taken"), 1 / 0
for _ in ():
    1 / 0"""
HELPERS = """def terms(n, gamma):
    return np.arange(1.0, n + 1) ** (POWER * gamma)
class Sum:
    of = staticmethod(lambda values: float(values.sum()))
never = 1 / 0"""


def test_an_exercise_finds_what_it_used_in_the_notebook(tmp_path):
    shrinkage = answer("zeta.shrinkage", "w = terms(n, gamma)\nreturn Sum.of((w / w.sum()) ** 2)", "gamma, n")
    wrong = (
        answer("cifar.first_loss", "return 0.0", "classes").replace("def f", "def first_loss")
        + "\nlevel = first_loss(10)"
    )
    uses_it = answer("mixup.alpha_half", "return 7.0 * (level > 2) + floor(centre[0])")
    by_heart = answer("zeta.gamma_for", "return {LEARNT}.get((first, n), 1.0)", "first, n")
    check = exercises.find("zeta.gamma_for")
    learnt = {case: check.reference(*case) for case in check.cases(np.random.default_rng(0))}
    unknown = answer("zeta.none", "return 1")
    cells = (SHARED, HELPERS, shrinkage, wrong, uses_it, by_heart.replace("{LEARNT}", repr(learnt)), unknown)
    row = grade_text(tmp_path, *cells)
    said = {name: words.split(":")[0] for name, words in row["verdicts"].items() if name in exercises.registry()}
    assert said == {
        "zeta.shrinkage": "right",
        "cifar.first_loss": "not yet",
        "mixup.alpha_half": "right",
        "zeta.gamma_for": "not yet",
    }
    assert "there is no exercise 'zeta.none'" in row["problem"]


def test_only_what_an_exercise_needs_is_taken():
    cells, broken = answering.read(
        notebook(SHARED, HELPERS, answer("zeta.shrinkage", "return terms(1, 2)"), "terms = (")
    )
    assert broken == []
    taken = [ast.unparse(statement).split("\n")[0] for statement, _ in answering.taken(cells)]
    assert taken == [
        "import numpy as np, torch",
        "from math import *",
        "POWER = -1.0",
        "def terms(n, gamma):",
        "@exercise('zeta.shrinkage', minutes=999)",
    ]


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        2.5,
        float("inf"),
        "BD",
        (1, (2.0, "a"), [None]),
        np.float32(0.1),
        np.int64(3),
        np.arange(6).reshape(2, 3)[:, ::2],
        np.empty((0, 2)),
        torch.tensor(1.5, requires_grad=True),
        torch.eye(3).bool().T,
        torch.ones(2, dtype=torch.bfloat16),
        torch.empty(0, 3),
    ],
)
def test_values_come_through_the_pipe_as_they_were(value):
    back = decode(json.loads(json.dumps(encode(value))))
    assert type(back) is type(value) or isinstance(value, np.floating | torch.Tensor)
    assert compare(back, value) is None and compare(value, back) is None


def test_what_is_no_value_stays_text_or_is_refused():
    assert decode(json.loads(json.dumps(encode({0: 16.0, "note": (1,)})))) == {0: 16.0, "note": (1,)}
    assert repr(decode(encode({1: print}))) == "{1: <built-in function print>}" and decode(encode(...)) is ...
    for said in ({"array": "AAAA", "dtype": "O", "shape": [1]}, {"tensor": "AAAA", "dtype": "load", "shape": [1]}):
        with pytest.raises(Exception, match=r"dtype|cannot|must"):
            decode(said)
    with pytest.raises(ValueError, match="reshape"):
        decode({"array": "", "dtype": "f8", "shape": [1 << 40]})


@pytest.mark.slow
@pytest.mark.parametrize("lesson", LESSONS[4:])
def test_right_answers_are_right_in_the_lessons_that_the_class_below_leaves_out(tmp_path, lesson):
    path = tmp_path / f"{lesson}.ipynb"
    path.write_text(solved(lesson), encoding="utf-8")
    row = grading.grade_one(path, lesson, "secret")
    assert set(row["verdicts"].values()) == {"right"}, row


@pytest.mark.slow
def test_a_class_is_graded_whatever_it_hands_in(tmp_path, capsys):
    folder = tmp_path / "submissions"
    loop = iter(["while True: pass"])  # in one exercise of the fifth
    for i, lesson in enumerate(LESSONS[:5]):
        path = folder / f"student_{i}" / f"{lesson}.ipynb"
        path.parent.mkdir(parents=True)
        endless = lambda source: source.replace("    ", f"    {next(loop, 'pass')}\n    ", 1)  # noqa: E731
        path.write_text(solved(lesson, endless) if i == 4 else solved(lesson), encoding="utf-8")
    one = notebook(answer("zeta.as_many", "return 2.25"))
    died = notebook("import os\ngone = os._exit(1)", answer("zeta.as_many", "return gone"))
    files = {"=1+1": one, "half": one[:-9], "a list": "[]", "no cells": "{}", "died": died, "odd": '{"cells": [1]}'}
    for name, text in files.items():
        (folder / f"{name}.ipynb").write_text(text, encoding="utf-8")
    (folder / "huge.ipynb").touch()
    os.truncate(folder / "huge.ipynb", 1 << 30)
    (folder / "folder.ipynb").mkdir()
    assert main(["grade", str(folder), "--csv", str(tmp_path / "grades.csv"), "--seed", "secret"]) == 0
    with open(tmp_path / "grades.csv", encoding="utf-8", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert len(rows) == 13 and len(capsys.readouterr().out.splitlines()) >= 14
    minutes = grading.minutes()
    for i, lesson in enumerate(LESSONS[:4]):
        row, prefix = rows[f"student_{i}/{lesson}"], lesson.partition("_")[2].split("_")[0] + "."
        assert row["problem"] == "" and int(row["score"]) == sum(words == "right" for words in row.values()) >= 4
        assert float(row["minutes"]) == sum(minutes[name] for name, words in row.items() if words == "right")
        assert {words for name, words in row.items() if name.startswith(prefix)} <= {"right", ""}, row
    spoilt = rows[f"student_4/{LESSONS[4]}"]
    assert "did not come to an end" in "".join(spoilt.values()) and spoilt["score"] == "4"
    assert rows["'=1+1"]["score"] == "1" and rows["'=1+1"]["minutes"] == "3"
    for name in ("half", "a list", "no cells", "odd"):
        assert rows[name]["problem"].startswith("this is not a notebook"), rows[name]
    assert "ended its process" in rows["died"]["problem"] and "at most" in rows["huge"]["problem"]
    assert rows["folder"]["problem"]


def test_a_cell_of_the_table_is_never_a_formula():
    assert grading._plain("=HYPERLINK(1)\n\x00b") == "'=HYPERLINK(1)  b" and grading._plain("right") == "right"


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="folder"):
        grading.grade(tmp_path, tmp_path / "grades.csv", "secret")
    assert list(tmp_path.iterdir()) == []


def test_the_filter_is_a_filter_on_both_processors():
    for machine in fence.PROCESSORS:
        assert all(skip < 2 for _, *skips, _ in fence.filter_steps(machine) for skip in skips)
