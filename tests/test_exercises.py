"""Exercises: every check knows right, untried and the typical mistakes, and nothing that a student writes stops it."""

import numpy as np
import pytest
import torch

from mixlab.course import exercises
from mixlab.course.compare import compare, show
from mixlab.course.exercises import Check, call, examine, exercise, find, registry, score, verdict


def stub(x):
    """Nothing yet."""
    ...


def judged(check, function, seed):
    """As examine, of a function that is mixlab's own."""
    return verdict(check, lambda given: (call(function, given, float("inf"), None), given), seed)


@pytest.mark.parametrize("name", registry())
def test_a_check_tells_the_reference_the_stub_and_each_mistake_apart(name):
    check = find(name)
    assert examine(check, stub)[0] == "not tried yet"
    for seed in range(3):
        assert judged(check, check.reference, seed)[0] == "right"
        assert len(check.mistakes) >= 2
        for hint, mistake in check.mistakes.items():
            state, said = judged(check, mistake, seed)
            assert state == "not yet" and f"({hint})" in said, said


def double(x):
    return 2 * x


DOUBLE = Check(
    double,
    cases=lambda rng: [(torch.tensor([1.0, 2.0]),), (torch.from_numpy(rng.normal(size=3)).float(),)],
    mistakes={"that is the square": lambda x: x * x, "that is the half": lambda x: x / 2},
)


def numpy_answer(x):
    return 2 * x.numpy()


def forgets_return(x):
    x = 2 * x


def in_place(x):
    return x.mul_(2)


def raises(x):
    y = x + 1
    return y[7]


def endless(x):
    while True:
        pass


def prints(x):
    print("here " * 10_000)
    return x


def half_done(x):
    y = ...
    return y * 2


def leaves(x):
    raise SystemExit("bye")


@pytest.mark.parametrize(
    "function, state, words",
    [
        (lambda x: 2 * x, "right", []),
        (numpy_answer, "not yet", ["ndarray, float32", "a Tensor is wanted"]),
        (forgets_return, "not yet", ["x = [1.0, 2.0]: you returned None", "`return` missing"]),
        (in_place, "not yet", ["changed the caller's x"]),
        (raises, "not yet", ["it raised IndexError", "; your line ", "return y[7]"]),
        (endless, "not yet", ["did not come to an end"]),
        (prints, "not yet", ["entry [0] is 1 where 2 is right", "it printed 'here here"]),
        (half_done, "not tried yet", []),
        (leaves, "not yet", ["SystemExit: bye"]),
        (lambda x: (2 * x)[:1], "not yet", ["the shape is to be (2,), not (1,)"]),
        (lambda x: (2 * x).double(), "not yet", ["torch.float32, not torch.float64"]),
        (lambda: 1, "not yet", ["it raised TypeError"]),
    ],
)
def test_whatever_a_student_writes_gets_an_answer(function, state, words):
    check = Check(DOUBLE.reference, DOUBLE.mistakes, DOUBLE.cases, seconds=0.3)
    found, said = examine(check, function)
    assert found == state and all(word in said for word in words), said
    assert len(said) < 700


def test_mixlab_does_not_answer_in_the_students_place():
    import mixlab.kmixup
    from mixlab.kmixup import expected_min_square, match

    assignment = find("kmixup.assignment")

    def calls(x, z):
        return tuple(match(x, z, len(x)).tolist())

    def swallows(x, z):
        try:
            return tuple(mixlab.kmixup.match(x, z, len(x)).tolist())
        except BaseException:
            return tuple(match(x, z, len(x)).tolist())

    for function in (calls, swallows, match, assignment.reference):
        state, said = examine(assignment, function)
        assert state == "not yet" and "mixlab's own" in said and "write it yourself" in said
    allowed = examine(find("kmixup.keep_xi"), lambda alpha_1, ratio: expected_min_square(alpha_1))
    assert allowed[0] == "not yet" and "is right" in allowed[1], "this one may be called"
    assert exercises.sys.gettrace() is None or "pytest" not in str(exercises.sys.gettrace())


def test_the_lesson_goes_on_with_the_student_only_if_he_is_right(monkeypatch, capsys):
    monkeypatch.setattr(exercises, "_done", {})
    wrong = exercise("kmixup.crossings", minutes=4)(lambda r, s: 0)
    untried = exercise("kmixup.facing", minutes=5)(stub)

    @exercise("kmixup.assignment", minutes=6)
    def broken(x, z):
        return x[9]

    mine = lambda r, s: int(abs(np.cumsum(r - s)).sum())  # noqa: E731
    assert wrong is find("kmixup.crossings").reference and untried is find("kmixup.facing").reference
    assert exercise("kmixup.crossings", minutes=4)(mine) is mine
    score()
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(
        "kmixup.crossings: not yet: r = [1, 1, 0], s = [0, 1, 1]: you returned 0 (int), 2 is right"
    )
    assert said[1] == "kmixup.facing: not tried yet: the lesson goes on with mixlab's own"
    assert said[3] == "kmixup.crossings: right: from here on the lesson runs on your code"
    assert said[4:] == [
        "1 of 3 exercises are right: 4 of 15 minutes",
        "not yet: kmixup.assignment",
        "not tried yet: kmixup.facing",
    ]


def test_a_secret_seed_draws_other_cases():
    drawn = [str([[part.tolist() for part in case] for case in DOUBLE.cases(np.random.default_rng(s))]) for s in (0, 1)]
    assert drawn[0] != drawn[1]
    learnt = [(x.tolist(), (2 * x).tolist()) for (x,) in DOUBLE.cases(np.random.default_rng(0))]

    def by_heart(x):
        return torch.tensor(next((answer for asked, answer in learnt if asked == x.tolist()), [0.0] * len(x)))

    assert [examine(DOUBLE, by_heart, seed)[0] for seed in (0, 1)] == ["right", "not yet"]


def test_a_judge_says_what_is_wrong_and_an_exception_must_be_the_one_that_is_asked_for():
    def to_himself(order, k, problem=ValueError):
        if len(order) < 2 * k:
            raise problem("too short")
        return order

    def of_another_kind(order, k):
        return np.roll(to_himself(order, k, KeyError), -k)

    facing = find("kmixup.facing")
    assert "block 0 faces its own member" in examine(facing, to_himself)[1]
    assert "a ValueError is to be raised" in examine(facing, of_another_kind)[1]
    assert examine(facing, lambda order, k: np.roll(to_himself(order, k), -k))[0] == "right"


def test_an_unknown_name_is_refused_and_the_known_ones_are_named():
    for name in ("kmixup.face", "kmixup", "kmixup.np", "nobody.facing"):
        with pytest.raises(ValueError, match=r"name must be .* kmixup\.facing"):
            exercise(name, minutes=1)
    with pytest.raises(ValueError, match="function must be"):
        exercise("kmixup.facing", minutes=1)(len)


def test_answers_are_compared_in_type_and_value():
    assert compare(np.float64(2), 2.0) is None and compare((1, 2.0), (1, 2)) is None and compare("A", "A") is None
    assert "a number is wanted" in compare(torch.tensor(2.0), 2.0) and "a tuple is wanted" in compare([1], (1,))
    assert "entry 1: 3 is right" in compare((1, 2), (1, 3)) and "2 entries" in compare((1,), (1, 2))
    assert "is nan where 1 is right" in compare(torch.tensor([float("nan")]), torch.tensor([1.0]))
    assert "the dtype is to be" in compare(np.array(["a"]), np.array([1.0])) and "None" in compare(1, None)
    assert show(torch.ones(2, dtype=torch.bfloat16)) == "[1.0, 1.0] (Tensor, torch.bfloat16, shape (2,))"
    assert len(show("a" * 500)) < 100 and len(show(np.array(["a" * 50] * 16))) < 300
    assert "cannot be judged" in examine(find("kmixup.trap"), lambda: (("a", "b"), "c"))[1]
