'''Exercises that stand inside a lesson. In the notebook a student finds a stub and fills it in:

    from mixlab.course.exercises import exercise, score

    @exercise("zeta.shrinkage", minutes=3)
    def shrinkage(gamma, n):
        """By which factor does mixing n independent samples shrink their variance?"""
        ...  # one line; until it is right, mixlab's is used

It is checked at once and says `not tried yet`, `not yet` with the reason, or `right`. The name then stands for the
student's function if that is right and for mixlab's own if not, so the lesson below it runs either way. The last cell
of a lesson calls `score()`.

**To add one**, write its check in the lesson's file, here mixlab/course/checks/zeta.py; the name is file.function:

    @check(
        cases=lambda rng: [(2.0, 2), (0.0, 5), (float(rng.uniform(1, 3)), 8)],      # arguments, drawn from a seed
        mistakes={                                                                  # that students make, with a hint
            "weights sum to one; it is their squares that count": lambda gamma, n: 1.0,
            "that is the factor of the standard deviation": lambda gamma, n: shrinkage(gamma, n) ** 0.5,
        },
    )
    def shrinkage(gamma, n):                                                        # the reference, in plain form
        w = np.arange(1.0, n + 1) ** -gamma
        return float(((w / w.sum()) ** 2).sum())

An answer that equals what one of the mistakes would have returned gets the hint of that mistake, and a test holds
every check to this: the reference is right, the stub is not tried, each mistake (two at least) gets its own hint.
Without more the answer must equal the reference's in type, shape, dtype and value, and where the reference raises, it
must raise the same. Where several answers are right, give `judge(answer, *case)`, which returns None or says what is
wrong. A question that asks to play is a function without arguments, with a judge and without cases.
While a student's function runs, no function of mixlab answers it, except those that the check lists in `may_call`.
'''

import copy
import dis
import importlib
import inspect
import io
import linecache
import pkgutil
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np
import torch

from mixlab.course.compare import alike_kind, compare, show

EMPTY = {"RESUME", "NOP", "LOAD_CONST", "RETURN_CONST", "RETURN_VALUE"}  # what a body of `...` compiles to
UNTRIED = "not tried yet", "the lesson goes on with mixlab's own"
_done: dict[str, tuple[str, float]] = {}  # name -> how the last attempt went, minutes


@dataclass(frozen=True)
class Check:
    """What is right, how it typically goes wrong, and on which cases; see the head of this file."""

    reference: Callable
    mistakes: dict[str, Callable]
    cases: Callable[[np.random.Generator], Iterable[tuple]] = lambda rng: [()]
    judge: Callable | None = None
    may_call: tuple[str, ...] = ()
    seconds: float = 5.0

    def __call__(self, *case):
        """What the reference returns: mistakes are written with it."""
        return self.reference(*case)


def check(**rules) -> Callable[[Callable], Check]:
    """Decorate the reference of an exercise, which becomes its check."""
    return partial(Check, **rules)


@dataclass
class Attempt:
    """One call of a student's function: what it returned or raised, and what it printed."""

    value: object = None
    problem: BaseException | None = None
    line: str = ""
    printed: io.StringIO = field(default_factory=io.StringIO)

    def says(self) -> str:
        if isinstance(self.problem, Stopped):
            return str(self.problem)
        return f"it raised {told(self.problem)}" if self.problem else f"you returned {show(self.value)}"


class Stopped(BaseException):
    """Raised inside a student's function that runs too long or lets mixlab answer; `except Exception` lets it pass."""


def exercise(name: str, minutes: float) -> Callable:
    """Check the decorated function, say how it went, and return it if it is right and mixlab's own if it is not."""
    check = find(name)

    def decide(function: Callable) -> Callable:
        state, words = examine(check, function)
        _done[name] = state, minutes
        print(f"{name}: {state}: {words}")
        return function if state == "right" else check.reference

    return decide


def told(problem: BaseException) -> str:
    return f"{type(problem).__name__}: {problem}"


def score() -> None:
    """Say how many of this lesson's exercises are right, and which are not."""
    lesson = next(reversed(_done), "").split(".")[0]
    done = {name: entry for name, entry in _done.items() if name.split(".")[0] == lesson}
    right = [minutes for state, minutes in done.values() if state == "right"]
    of = sum(minutes for _, minutes in done.values())
    print(f"{len(right)} of {len(done)} exercises are right: {sum(right):g} of {of:g} minutes")
    for state in ("not yet", "not tried yet"):
        names = [name for name, entry in done.items() if entry[0] == state]
        if names:
            print(f"{state}: {', '.join(names)}")


def find(name: str) -> Check:
    """The check called lesson.exercise."""
    known = registry()
    if name not in known:
        raise ValueError(f"name must be that of a check, one of {', '.join(known)}; not {name!r}")
    return known[name]


@cache
def registry() -> dict[str, Check]:
    """Every check in the files of mixlab/course/checks, as file.variable."""
    from mixlab.course import checks

    lessons = sorted(module.name for module in pkgutil.iter_modules(checks.__path__))
    modules = {lesson: importlib.import_module(f"{checks.__name__}.{lesson}") for lesson in lessons}
    return {f"{lesson}.{k}": v for lesson, m in modules.items() for k, v in vars(m).items() if isinstance(v, Check)}


def examine(check: Check, function: Callable, seed: int = 0) -> tuple[str, str]:
    """("right" | "not yet" | "not tried yet", what to say). seed: of the random cases, a secret one for grading."""
    if not inspect.isfunction(function):
        raise ValueError(f"function must be one that you write with def, not {function!r}")
    if is_stub(function):
        return UNTRIED
    deadline = time.monotonic() + check.seconds
    return verdict(check, lambda given: (call(function, given, deadline, check.may_call), given), seed)


def verdict(check: Check, ask: Callable, seed: int) -> tuple[str, str]:
    """The same of whoever answers: ask(arguments) is an Attempt, and the arguments as they are after it."""
    for case in check.cases(np.random.default_rng(seed)):
        attempt, given = ask(copy.deepcopy(case))
        if _unfinished(attempt):
            return UNTRIED
        complaint = _judge(check, attempt, case) or _changed(check, case, given)
        if complaint:
            return "not yet", _explain(check, case, attempt, complaint)
    return "right", "from here on the lesson runs on your code"


def is_stub(function: Callable) -> bool:
    """Is there nothing in it but a docstring, `...`, pass or `return None`?"""
    steps = list(dis.get_instructions(function))
    return all(s.opname in EMPTY and (s.argval is None or "CONST" not in s.opname) for s in steps)


def _unfinished(attempt: Attempt) -> bool:
    """Did it come upon a `...` that the student has not replaced?"""
    values = attempt.value if isinstance(attempt.value, tuple) else (attempt.value,)
    unsaid = isinstance(attempt.problem, NotImplementedError) or "ellipsis" in str(attempt.problem)
    return unsaid or any(value is ... for value in values)


def call(function: Callable, arguments: tuple, deadline: float, may_call: tuple[str, ...] | None) -> Attempt:
    """function(*arguments), whatever it raises, prints or never finishes. may_call: None lets it call anything."""
    attempt, stopped, before = Attempt(), [], sys.gettrace()

    def stop(reason: str):
        stopped.append(Stopped(reason))
        raise stopped[0]

    def watch(frame, event, _):
        if frame.f_globals is function.__globals__:
            if time.monotonic() > deadline:
                stop("it did not come to an end: is there a loop that never stops?")
            return watch
        name = frame.f_code.co_qualname.split(".")[0]
        if may_call is not None and name not in may_call and _answers(frame, function.__globals__):
            stop(f"it called mixlab's own {name}: here you write it yourself")

    with redirect_stdout(attempt.printed), redirect_stderr(attempt.printed):
        try:
            sys.settrace(watch)
            attempt.value = function(*arguments)
        except (Exception, SystemExit, Stopped) as problem:
            attempt.problem = problem
        finally:
            sys.settrace(before)
    if may_call is not None and (function.__module__ or "").split(".")[0] == "mixlab":
        stopped.append(Stopped("that is mixlab's own: here you write it yourself"))
    attempt.problem = stopped[0] if stopped else attempt.problem
    attempt.line = _line(attempt.problem, function.__globals__)
    return attempt


def _ours(function: Callable, case: tuple) -> Attempt:
    """What a reference or a mistake says of a case."""
    return call(function, copy.deepcopy(case), time.monotonic() + 60, None)


def _answers(frame, namespace: dict) -> bool:
    """Is this a function of mixlab, called from the student's code and not from another one of mixlab?"""
    if not _of_mixlab(frame) or frame.f_code.co_name == "<module>":
        return False
    caller = frame.f_back
    while caller.f_globals is not namespace and not _of_mixlab(caller):
        caller = caller.f_back  # through torch and NumPy
    return caller.f_globals is namespace


def _of_mixlab(frame) -> bool:
    return frame.f_globals.get("__name__", "").split(".")[0] == "mixlab"


def _judge(check: Check, attempt: Attempt, case: tuple) -> str | None:
    """None if the attempt is right, else what is wrong with it."""
    if isinstance(attempt.problem, Stopped):
        return attempt.says()
    wanted = _ours(check.reference, case)
    if wanted.problem:
        if type(attempt.problem) is type(wanted.problem):
            return None
        return f"a {type(wanted.problem).__name__} is to be raised: {wanted.problem}"
    if attempt.problem:
        return attempt.says()
    if attempt.value is None and wanted.value is not None:
        return "is the `return` missing?"
    if check.judge is None:
        return compare(attempt.value, wanted.value)
    try:
        return alike_kind(attempt.value, wanted.value) or check.judge(attempt.value, *case)
    except Exception as problem:  # the student's answer may be of any make
        return f"that cannot be judged, something like {show(wanted.value)} is wanted: {told(problem)}"


def _explain(check: Check, case: tuple, attempt: Attempt, complaint: str) -> str:
    """The case, the answer, what is wrong, the hint for this mistake, the line, and what was printed."""
    names = inspect.signature(check.reference).parameters
    shown = ", ".join(f"{name} = {show(value, False)}" for name, value in zip(names, case, strict=True))
    text = f"{shown}: " * bool(shown) + attempt.says()
    text += f", {complaint}" * (complaint != attempt.says())
    text += next((f" ({hint})" for hint, wrong in check.mistakes.items() if _alike(attempt, _ours(wrong, case))), "")
    text += f"; your line {attempt.line}" * bool(attempt.line)
    printed = attempt.printed.getvalue()[:200].strip()
    return text + f"; it printed {printed!r}" * bool(printed)


def _alike(attempt: Attempt, other: Attempt) -> bool:
    if attempt.problem or other.problem:
        return type(attempt.problem) is type(other.problem)
    return compare(attempt.value, other.value) is None


def _changed(check: Check, case: tuple, given: tuple) -> str | None:
    for name, value, after in zip(inspect.signature(check.reference).parameters, case, given, strict=True):
        if isinstance(value, torch.Tensor | np.ndarray) and compare(after, value):
            return f"your function changed the caller's {name}: work on a new one"
    return None


def _line(problem: BaseException | None, namespace: dict) -> str:
    """'3: y = lam * x', the innermost line of the student's own code under a problem."""
    steps = list(traceback.walk_tb(problem and problem.__traceback__))
    own = [(frame.f_code.co_filename, number) for frame, number in steps if frame.f_globals is namespace]
    return f"{own[-1][1]}: {linecache.getline(*own[-1]).strip()}".removesuffix(": ") if own else ""
