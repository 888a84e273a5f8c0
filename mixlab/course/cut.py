"""The older form of exercises, graded beside the lesson; this file goes when lesson 06 has moved to `exercise`.

In a solution notebook, the lines between `# BEGIN SOLUTION` and `# END SOLUTION` are what a student writes; a cell
tagged "solution" is left out of the exercise altogether. `cut` makes the exercise from the solution.
"""

import copy
from contextlib import contextmanager

YOUR_TURN = 'raise NotImplementedError("your turn")'


class Grader:
    """Collects attempts.

    >>> grader = Grader()
    >>> with grader.attempt("one and one"):
    ...     assert 1 + 1 == 2, "count your fingers"
    one and one: right
    """

    def __init__(self):
        self.results: dict[str, bool] = {}

    @contextmanager
    def attempt(self, name: str):
        """Run the checks of one exercise; what they complain about is printed, not raised."""
        self.results[name] = False
        try:
            yield
        except NotImplementedError:
            print(f"{name}: not tried yet")
        except AssertionError as complaint:
            print(f"{name}: not yet. {complaint}")
        except Exception as problem:  # a student's code may fail in any way
            print(f"{name}: your code raised {type(problem).__name__}: {problem}")
        else:
            self.results[name] = True
            print(f"{name}: right")

    @property
    def solved(self) -> int:
        """How many exercises are right."""
        return sum(self.results.values())

    def report(self) -> None:
        """Print the score."""
        print(f"{self.solved} of {len(self.results)} solved")


def cut(solution: dict) -> dict:
    """The exercise notebook (as a dict in notebook format) for a solution notebook: answers and outputs removed."""
    exercise = copy.deepcopy(solution)
    exercise["cells"] = [cell for cell in exercise["cells"] if "solution" not in cell["metadata"].get("tags", [])]
    for cell in exercise["cells"]:
        source = _text(cell["source"])
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
            source = _without_answers(source)
        cell["source"] = source.replace("# Solutions", "# Exercises", 1)
    return exercise


def _without_answers(source: str) -> str:
    kept, inside = [], False
    for line in source.split("\n"):
        if line.strip() == "# BEGIN SOLUTION":
            inside = True
            kept.append(line.replace("# BEGIN SOLUTION", YOUR_TURN))
        elif line.strip() == "# END SOLUTION":
            inside = False
        elif not inside:
            kept.append(line)
    return "\n".join(kept)


def _text(source: str | list[str]) -> str:
    return source if isinstance(source, str) else "".join(source)
