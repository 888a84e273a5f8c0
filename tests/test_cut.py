"""The older exercises: graded without stopping the notebook, and cut from their solutions."""

from mixlab.course.cut import YOUR_TURN, Grader, cut


def test_grader_counts_right_wrong_broken_and_untried(capsys):
    grader = Grader()
    with grader.attempt("right"):
        assert True
    with grader.attempt("wrong"):
        raise AssertionError("lam belongs to the own sample")
    with grader.attempt("broken"):
        raise KeyError("x")
    with grader.attempt("untried"):
        raise NotImplementedError("your turn")
    grader.report()
    said = capsys.readouterr().out.splitlines()
    assert grader.results == {"right": True, "wrong": False, "broken": False, "untried": False}
    assert said == [
        "right: right",
        "wrong: not yet. lam belongs to the own sample",
        "broken: your code raised KeyError: 'x'",
        "untried: not tried yet",
        "1 of 4 solved",
    ]


def test_a_second_attempt_replaces_the_first():
    grader = Grader()
    with grader.attempt("one"):
        raise AssertionError
    with grader.attempt("one"):
        pass
    assert grader.solved == 1
    with grader.attempt("one"):
        raise AssertionError
    assert grader.solved == 0


def test_cut_removes_answers_outputs_and_solution_cells():
    code = "def double(x):\n    # BEGIN SOLUTION\n    return 2 * x\n    # END SOLUTION\n\n\nassert True"
    solution = {
        "cells": [
            {"cell_type": "markdown", "metadata": {}, "source": ["# Solutions to 01\n", "Try first."]},
            {"cell_type": "code", "metadata": {}, "source": code, "outputs": [{"x": 1}], "execution_count": 3},
            {"cell_type": "code", "metadata": {"tags": ["solution"]}, "source": "secret", "outputs": []},
        ]
    }
    exercise = cut(solution)
    assert [cell["source"] for cell in exercise["cells"]] == [
        "# Exercises to 01\nTry first.",
        f"def double(x):\n    {YOUR_TURN}\n\n\nassert True",
    ]
    assert exercise["cells"][1]["outputs"] == [] and exercise["cells"][1]["execution_count"] is None
    assert solution["cells"][1]["outputs"], "the solution itself was changed"
