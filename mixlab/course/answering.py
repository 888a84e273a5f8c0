"""The student's side of grading: a process that takes the exercises out of a notebook and answers for them.

`grading` starts it, sends the notebook, and then one case after the other. What stands here runs behind the fence,
beside the student's code, and nothing that it says is believed: it can only return values, and what those are worth
is decided on the other side.

**What is taken from a notebook.** From the code cells, top to bottom, statements at the left margin: every function
that is decorated with `@exercise("name", …)`, without that decorator; and the imports, functions, classes and
assignments to names that these functions use, directly or through one another. Nothing else runs: no call on a line
of its own, no loop, no `if`, no magic. A name that two statements give means what it meant in the notebook at that
place. As in the notebook, an exercise's name stands for the student's function if that is right, and for mixlab's own
if not.
"""

import ast
import base64
import copy
import dis
import inspect
import json
import linecache
import os
import re
import sys
import time
from collections.abc import Iterator
from types import CodeType

import numpy as np
import torch

from mixlab.course import fence
from mixlab.course.exercises import Attempt, Stopped, call, find, is_stub, told

LONGEST = 1 << 20  # bytes of one answer
STUB = re.compile(r"""^@(?:\w+\.)*exercise\(\s*["']([\w.]+)["']""", re.M)


def main() -> None:
    """Read the notebook, close the fence, answer until there are no more exercises."""
    talk = Talk()
    order = talk.hear()
    talk.say({"held": fence.close_fence()})
    namespace: dict = {"__name__": "__main__"}
    try:
        cells, broken = read(order["notebook"])
    except Exception as problem:
        cells, broken = [], [("", f"this is not a notebook: {told(problem)[:300]}")]
    for name, why in broken:
        talk.say({"broken": name, "why": why})
    for number, (statement, file) in enumerate(taken(cells)):
        name = exercise_of(statement)
        try:
            if number not in order["skip"]:
                _run(statement, file, namespace)
            if name:
                function = None if number in order["skip"] else namespace[statement.name]
                namespace[statement.name] = _exam(talk, name, number, function)
        except Exception as problem:
            talk.say({"broken": name, "why": f"line {statement.lineno} of its cell: {told(problem)[:300]}"})
    talk.say({"end": True})


class Talk:
    """One line of JSON each way; what the student's code prints or reads goes nowhere."""

    def __init__(self):
        self.requests, self.answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)

    def say(self, message: dict) -> None:
        self.answers.write(json.dumps(message).encode() + b"\n")
        self.answers.flush()

    def hear(self) -> dict:
        line = self.requests.readline()
        return json.loads(line) if line else sys.exit()


def read(notebook: str) -> tuple[list[ast.Module], list[tuple[str, str]]]:
    """The code cells as syntax trees, and the exercises in those that Python cannot read, with the reason."""
    cells, broken = [], []
    for number, cell in enumerate(json.loads(notebook)["cells"], start=1):
        if cell.get("cell_type") != "code":
            continue
        source = re.sub(r"^([ \t]*)[%!].*", r"\1pass", "".join(cell["source"]), flags=re.M)  # magics
        try:
            tree = ast.parse(source, f"cell {number}")
            tree.file = f"cell {number}"
            linecache.cache[tree.file] = len(source), None, source.splitlines(True), tree.file
            cells.append(tree)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as problem:
            broken += [(name, told(problem)[:300]) for name in STUB.findall(source)]
    return cells, broken


def taken(cells: list[ast.Module]) -> list[tuple[ast.stmt, str]]:
    """The exercises, and what they use: statements in the notebook's order, each with the name of its cell."""
    statements = [(statement, cell.file) for cell in cells for statement in cell.body]
    chosen = {i for i, (statement, _) in enumerate(statements) if exercise_of(statement)}
    needed, new = set(), chosen
    while new:
        needed |= {name for i in new for name in uses(statements[i][0])}
        new = {i for i, (statement, _) in enumerate(statements) if gives(statement) & needed} - chosen
        chosen = chosen | new
    return [statements[i] for i in sorted(chosen)]


def exercise_of(statement: ast.stmt) -> str:
    """The name of the exercise that this statement defines; "" if it is none."""
    decorators = statement.decorator_list if isinstance(statement, ast.FunctionDef) else []
    for decorator in filter(_is_exercise, decorators):
        name = getattr(decorator.args[0], "value", None) if decorator.args else None
        return name if isinstance(name, str) else ""
    return ""


def gives(statement: ast.stmt) -> set[str]:
    """The names that a statement gives, if it is of a kind that is taken; "*" may give any."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in statement.names}
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    nodes = ast.walk(statement) if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign) else ()
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def uses(statement: ast.stmt) -> set[str]:
    """The module's names that a statement looks up, now or when it is called; "*" because an import * may give them."""
    try:
        return {"*", *_globals(_compiled(statement, ""))}
    except (SyntaxError, ValueError, RecursionError):
        return set()  # `return` outside a function, say: it is noticed when it runs


def _globals(code: CodeType) -> Iterator[str]:
    for step in dis.get_instructions(code):
        if step.opname.startswith("LOAD_") and ("GLOBAL" in step.opname or "NAME" in step.opname):
            yield step.argval
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _globals(inner)


def _compiled(statement: ast.stmt, file: str) -> CodeType:
    if exercise_of(statement):
        statement = copy.copy(statement)
        statement.decorator_list = [each for each in statement.decorator_list if not _is_exercise(each)]
    return compile(ast.Module([statement], []), file, "exec")


def _is_exercise(decorator: ast.expr) -> bool:
    called = getattr(decorator, "func", None)  # exercise or exercises.exercise
    return getattr(called, "id", getattr(called, "attr", "")) == "exercise"


def _run(statement: ast.stmt, file: str, namespace: dict) -> None:
    try:
        exec(_compiled(statement, file), namespace)
    except SystemExit as stop:
        raise RuntimeError("it left Python") from stop


def _exam(talk: Talk, name: str, number: int, function):
    """Answer for one exercise, until the other side has seen enough; what the name stands for from then on."""
    if function is not None:
        if not inspect.isfunction(function):
            raise ValueError(f"an exercise is a function that you write with def, not {type(function).__name__}")
        talk.say({"exercise": name, "number": number, "stub": is_stub(function)})
        while "right" not in (request := talk.hear()):
            talk.say(_answer(function, request))
        if request["right"]:
            return function
    return find(name).reference


def _answer(function, request: dict) -> dict:
    given = tuple(decode(value) for value in request["call"])
    try:
        attempt = call(function, given, time.monotonic() + request["seconds"], tuple(request["may_call"]))
    except BaseException as problem:  # KeyboardInterrupt and what else there may be
        attempt = Attempt(problem=problem)
    said, problem = {"line": attempt.line[:200], "printed": attempt.printed.getvalue()[:200]}, attempt.problem
    if problem is not None:
        words = [type(problem).__name__, str(problem)[:500]]
        return {**said, "problem": words, "stopped": isinstance(problem, Stopped)}
    try:
        said |= {"value": encode(attempt.value), "given": [encode(value) for value in given]}
        if len(json.dumps(said)) < LONGEST:
            return said
        why = f"an answer of more than {LONGEST >> 20} MB"
    except Exception as problem:
        why = told(problem)[:300]
    return {"problem": ["ValueError", f"the answer cannot be sent: {why}"]}


def encode(value):
    """A value as JSON, from which `decode` makes it again. What no exercise asks for becomes its repr."""
    if value is None or isinstance(value, bool | str | int | float):
        return value
    if isinstance(value, tuple | list):
        return {"tuple" if isinstance(value, tuple) else "list": [encode(each) for each in value]}
    if isinstance(value, dict):
        return {"dict": [[encode(key), encode(each)] for key, each in value.items()]}
    if isinstance(value, torch.Tensor):
        return _packed("tensor", value, value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc":
        return _packed("array" if isinstance(value, np.ndarray) else "number", value, np.asarray(value))
    return {"other": "..." if value is ... else repr(value)[:200]}


def _packed(kind: str, value, array: np.ndarray) -> dict:
    return {kind: base64.b64encode(array.tobytes()).decode(), "dtype": str(value.dtype), "shape": list(value.shape)}


def decode(said):
    """What `encode` was given. It makes values and runs nothing; what is not of this form raises an exception."""
    if not isinstance(said, dict):
        return said
    kind, content = next(iter(said.items()))
    if kind in ("tuple", "list"):
        return {"tuple": tuple, "list": list}[kind](decode(each) for each in content)
    if kind == "dict":
        return {decode(key): decode(each) for key, each in content}
    if kind == "other":
        return ... if content == "..." else Other(content)
    data, shape = bytearray(base64.b64decode(content)), tuple(map(int, said["shape"]))
    if kind == "tensor":
        dtype = getattr(torch, said["dtype"].removeprefix("torch."))
        return (torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)).reshape(shape)
    dtype = np.dtype(said["dtype"])
    if dtype.kind not in "biufc":
        raise ValueError(f"dtype must be one of numbers, not {dtype}")
    array = (np.frombuffer(data, dtype) if data else np.empty(0, dtype)).reshape(shape)
    return array if kind == "array" else array[()]


class Other:
    """A value of a kind that no exercise asks for, told by its repr."""

    def __init__(self, text: str):
        self.text = str(text)

    def __repr__(self) -> str:
        return self.text


if __name__ == "__main__":
    main()
