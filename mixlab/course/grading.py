"""Grade a folder of submitted notebooks: `mixlab grade submissions/ --csv grades.csv --seed SECRET`.

Every notebook gets a process of its own behind the fence of mixlab/course/fence.py. That process takes the exercises
out of the notebook (mixlab/course/answering.py says what is taken) and does one thing: it gets arguments and returns
a value. The cases, drawn from the secret seed, the references and the comparison stay here, on the other side of a
pipe that carries numbers and text as JSON, never pickles or code.

**What this guarantees.** A point is given only if the process returned the right value on every case. Whatever else a
notebook does or prints, it cannot change the checks, the seed, another student's row or the table, because these are
in other processes; where the kernel holds the fence (Linux), it cannot reach them either, nor files, nor the network.
A broken, endless, huge or hostile notebook costs at most LIMIT seconds and becomes a row with its reason. An exercise
that ends the process loses its own point only.
**What it does not.** It says what a function returns and not who wrote it: references and worked solutions are
public, and who copies one is right. A function of mixlab that is called in the student's place is noticed as in the
lesson, but code that sets out to hide the call can do so. Questions to play with have the same answers under every
seed. Where the kernel does not hold the fence (macOS, Windows; the command says so), grade on an account or in a
container that has nothing to lose.
"""

import builtins
import contextlib
import csv
import hashlib
import io
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from mixlab.course.answering import LONGEST, decode, encode
from mixlab.course.exercises import Attempt, Check, Stopped, registry, told, verdict
from mixlab.data.downloads import atomic_write
from mixlab.places import ROOT

LARGEST = 20_000_000  # bytes of a notebook
LIMIT = 200.0  # seconds for one notebook, from start to end
DEFINE = 60.0  # seconds from one exercise to the next: imports, helpers
MARGIN = 10.0  # seconds for what is to take none
NONSENSE = "it sent what is no answer"


class Ended(Exception):
    """The process is no longer there, or says what it never should."""


def grade(folder: Path | str, table: Path | str, seed: str) -> int:
    """Grade every notebook below the folder, print a line for each, and write the table."""
    folder, lessons = Path(folder), minutes()
    paths = [path for path in sorted(folder.rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts]
    if not paths:
        raise ValueError(f"folder must hold notebooks (.ipynb), and {folder} has none")
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in paths]
    rows, workers = [], min(os.cpu_count() or 1, 8, len(paths))
    with atomic_write(table) as temporary, ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(grade_one, *each, seed) for each in zip(paths, names, strict=True)]
        try:
            for job in as_completed(jobs):
                rows.append(job.result())
                print(_line(rows[-1]), flush=True)
        finally:
            pool.shutdown(cancel_futures=True)  # after Ctrl-C, what has not begun does not
        rows.sort(key=lambda row: row["name"])
        Path(temporary).write_text(as_csv(rows, lessons), encoding="utf-8", newline="")
    print(f"{table}: {len(rows)} rows; {sum(row['problem'] != '' for row in rows)} have a problem")
    if any(row["held"] == "Python" for row in rows):
        print("here the kernel does not hold the fence: see mixlab/course/fence.py for what that means")
    return 0


def minutes() -> dict[str, float]:
    """Every exercise of the lessons and how long it takes, as the lessons say, whatever a submission says."""
    stub, found = re.compile(r"@exercise\(\"([\w.]+)\", minutes=([\d.]+)\)"), {}
    for path in sorted((ROOT / "notebooks").glob("**/0*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            found |= {name: float(number) for name, number in stub.findall("".join(cell["source"]))}
    if not found:
        raise ValueError("folder cannot be graded: the lessons lie in the repository, so clone it and grade there")
    return found


def grade_one(path: Path, name: str, seed: str) -> dict:
    """One row: the name, what became of each exercise, and a problem with the file itself."""
    row = {"name": name, "verdicts": {}, "problem": "", "held": ""}
    lost: dict[int, tuple[str, str]] = {}  # the exercises that ended the process: number -> name, why
    deadline = time.monotonic() + LIMIT
    try:
        notebook = read(path)
        while True:
            with Answerer(deadline) as student:
                try:
                    _examine_all(student, notebook, list(lost), seed, row)
                    break
                except Ended as end:
                    if student.exercise is None or student.exercise[0] in lost:
                        raise ValueError(str(end)) from end
                    lost[student.exercise[0]] = student.exercise[1], f"not yet: {end}"
    except Exception as problem:  # whatever it is, it is this notebook's row and not the end of the others
        row["problem"] = str(problem) if isinstance(problem, ValueError) else told(problem)
    row["verdicts"] |= dict(lost.values())
    return row


def read(path: Path) -> str:
    """The text of a notebook, without looking into it."""
    if path.is_symlink() or not path.is_file():
        raise ValueError("this is no file of its own")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path.stat().st_size / 1e6:.0f} MB: a notebook has at most {LARGEST / 1e6:.0f}")
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as problem:
        raise ValueError(f"it cannot be read: {problem.strerror}") from problem


def _examine_all(student: "Answerer", notebook: str, skip: list[int], seed: str, row: dict) -> None:
    """Go through the notebook with the student's process and note in the row what became of each exercise."""
    row["held"] = str(student.ask({"notebook": notebook, "skip": skip}, LIMIT).get("held"))
    problems, said, last = [], student.hear(LIMIT), None
    while "end" not in said:
        name = said.get("exercise", said.get("broken"))
        if not isinstance(name, str):
            student.exercise = last  # which has sent more than was asked
            raise Ended(NONSENSE)
        if name and name not in registry():
            problems.append(f"there is no exercise {name[:50]!r}")
        if "broken" in said:
            why = str(said.get("why"))[:500]
            problems.append(why) if not name else row["verdicts"].update({name: f"not yet: {why}"})
            said = student.hear(DEFINE)
            continue
        last = student.exercise = said.get("number"), name
        row["verdicts"][name] = words = _examine(student, registry().get(name), bool(said.get("stub")), seed)
        student.exercise = None
        said = student.ask({"right": words == "right"}, DEFINE)
    row["problem"] = "; ".join(problems)


def _examine(student: "Answerer", check: Check | None, stub: bool, seed: str) -> str:
    """ "right", "not tried", or "not yet" with the reason."""
    if stub or check is None:
        return "not tried"
    deadline = time.monotonic() + check.seconds

    def ask(given: tuple) -> tuple[Attempt, tuple]:
        left = max(deadline - time.monotonic(), 0.1)
        request = {"call": [encode(value) for value in given], "may_call": check.may_call, "seconds": left}
        return _attempt(student.ask(request, left + MARGIN), given)

    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8])
    try:
        state, words = verdict(check, ask, number)
    except Ended:
        raise
    except Exception as problem:  # what a student returns may be of any make
        state, words = "not yet", f"the answer cannot be judged: {type(problem).__name__}"
    return f"not yet: {words}" if state == "not yet" else state.removesuffix(" yet")


def _attempt(said: dict, given: tuple) -> tuple[Attempt, tuple]:
    """What the process says of one call, as `exercises.call` would have returned it here."""
    attempt = Attempt(line=str(said.get("line", "")), printed=io.StringIO(str(said.get("printed", ""))))
    if "problem" in said:
        name, words = map(str, said["problem"])
        attempt.problem = Stopped(words) if said.get("stopped") else _exception(name, words)
        return attempt, given
    if "value" not in said:
        raise Ended(NONSENSE)
    attempt.value = decode(said["value"])
    return attempt, tuple(decode(value) for value in said["given"])


def _exception(name: str, words: str) -> Exception:
    kind = getattr(builtins, name, None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        kind = type(name, (Exception,), {})
    problem = kind.__new__(kind)  # some want more than words to be made
    problem.args = (words,)
    return problem


class Answerer:
    """The student's process, in an empty folder, with one thread and no part of this environment.

    It and we speak in turn, a line each; whoever takes too long, or sends anything but a line of JSON, is ended.
    """

    def __init__(self, deadline: float):
        self.deadline, self.late = deadline, False
        self.exercise: tuple[int, str] | None = None  # number and name of the one that is being examined

    def __enter__(self) -> "Answerer":
        self.folder = tempfile.TemporaryDirectory(prefix="mixlab-grade-")
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {"PYTHONPATH": path, "PATH": os.defpath, "HOME": self.folder.name, "TMPDIR": self.folder.name}
        environment |= {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1", "CUDA_VISIBLE_DEVICES": ""}
        environment |= {name: os.environ[name] for name in ("SYSTEMROOT", "LD_LIBRARY_PATH") if name in os.environ}
        command = [sys.executable, "-P", "-m", "mixlab.course.answering"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        where = {"cwd": self.folder.name, "env": environment, "start_new_session": True}
        self.process = subprocess.Popen(command, **pipes, **where)
        return self

    def __exit__(self, *_) -> None:
        self._kill()
        self.process.wait()
        self.process.stdout.close()
        with contextlib.suppress(OSError):  # what it no longer reads
            self.process.stdin.close()
        self.folder.cleanup()

    def ask(self, message: dict, seconds: float) -> dict:
        """Say something and hear the answer."""
        return self.hear(seconds, json.dumps(message).encode() + b"\n")

    def hear(self, seconds: float, first: bytes = b"") -> dict:
        """The next line that it says."""
        timer = threading.Timer(min(seconds, max(self.deadline - time.monotonic(), 0)), self._too_late)
        timer.start()
        try:
            self.process.stdin.write(first)
            self.process.stdin.flush()
            line = self.process.stdout.readline(2 * LONGEST)
        except OSError:
            line = b""
        finally:
            timer.cancel()
        return self._understood(line)

    def _understood(self, line: bytes) -> dict:
        try:
            message = json.loads(line)
            if isinstance(message, dict) and line.endswith(b"\n"):
                return message
        except (ValueError, RecursionError):
            pass
        if line and not self.late:
            raise Ended(NONSENSE)
        self._kill()
        status = self.process.wait()
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        raise Ended("it did not come to an end" if self.late else f"it ended its process ({how})")

    def _too_late(self) -> None:
        self.late = True
        self._kill()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL) if hasattr(os, "killpg") else self.process.kill()


def as_csv(rows: list[dict], minutes: dict[str, float]) -> str:
    """One line for each notebook, a column for each exercise of the lessons that any of them holds."""
    held = {name.split(".")[0] for row in rows for name in row["verdicts"]}
    columns = [name for name in [*minutes, *sorted(set(registry()) - set(minutes))] if name.split(".")[0] in held]
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["name", "score", "minutes", *columns, "problem"])
    for row in rows:
        right = [name for name, words in row["verdicts"].items() if words == "right"]
        words = [row["verdicts"].get(name, "") for name in columns]
        score = [len(right), f"{sum(minutes.get(name, 0) for name in right):g}"]
        table.writerow([_plain(row["name"]), *score, *map(_plain, words), _plain(row["problem"])])
    return text.getvalue()


def _plain(text: str) -> str:
    """What a spreadsheet takes for text, whatever a student has written: no formula, no control characters."""
    text = "".join(letter if letter.isprintable() else " " for letter in text)[:800]
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _line(row: dict) -> str:
    states = list(row["verdicts"].values())
    line = f"{row['name']}: {states.count('right')} of {len(states)} right"
    return _plain(line + f"; {row['problem']}" * bool(row["problem"]))
