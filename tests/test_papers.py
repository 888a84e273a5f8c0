"""The published numbers: present, read right, and in one unit."""

import pytest

from mixlab import Method
from mixlab.results import papers
from mixlab.results.runs import build_method, describe, from_table, parameters

CELLS = {"kmixup": 536, "zeta": 62, "confusion": 14, "lamix": 146, "infinite": 39}


def test_all_five_papers_are_there_with_all_their_cells():
    assert papers.names() == sorted(CELLS)
    for name, count in CELLS.items():
        assert sum(len(table["rows"]) for table in papers.tables(name, usable_only=False)) == count


@pytest.mark.parametrize("name", CELLS)
def test_printed_digits_and_values_agree(name):
    for row in papers.rows(name):
        assert float(row["printed"].split("±")[0]) == pytest.approx(row["value"])


def test_damaged_tables_come_only_when_asked_for():
    assert "natural_as_extracted" not in {row["table"] for row in papers.rows("zeta")}
    assert len(papers.rows("zeta", "natural_as_extracted")) > 0


def test_errors_are_in_percent_whatever_the_paper_prints():
    first = {name: papers.rows(name)[0] for name in CELLS}
    assert (first["confusion"]["value"], first["confusion"]["error"]) == (0.064, pytest.approx(6.4))
    assert (first["infinite"]["value"], first["infinite"]["error"]) == (74.9, pytest.approx(25.1))
    assert first["lamix"]["error"] == first["lamix"]["value"] == 0.62
    assert papers.rows("zeta", "medical")[0]["error"] is None  # an F1 score is not an error


def test_a_printed_method_in_the_words_of_the_module():
    row = papers.rows("kmixup", "table9a")[0]
    assert row["params"]["k"] == 1 and papers.same_method(row) == ("Mixup", {"alpha": 0.25})
    assert papers.same_method({"paper": "lamix", "method": "mixup", "params": {}}) == ("Mixup", {"alpha": 1.0})
    assert papers.same_method({"paper": "zeta", "method": "mixup", "params": {"column": 1}}) == ("Mixup", {})
    assert papers.same_method({"method": "ERM", "params": {"batch_size": 128}}) == ("ERM", {})
    assert papers.same_method({"method": "k-mixup", "params": {"k": 4, "alpha": 1.0}})[0] == "KMixup"
    hidden = papers.same_method({"method": "k-manifold-mixup", "params": {"k": 4, "alpha": 1.0}})
    assert hidden == ("ManifoldMixup", {"mixing": "KMixup(alpha=1.0, k=4)"})
    assert {papers.same_method(row)[0] for row in papers.rows("confusion", "table1")} == {"ConfusionMixup", "Mixup"}


def test_methods_inside_methods_in_the_words_of_the_module():
    """Every row that has a counterpart builds, spells its parameters as a record does, and no other row changes."""
    found = {}
    for paper in ("lamix", "infinite"):
        for row in papers.rows(paper):
            name, params = papers.same_method(row)
            try:
                method = build_method(f"{name}({', '.join(f'{k}={v!r}' for k, v in params.items())})", seed=0)
            except ValueError:
                continue
            spelled = {k: v if not isinstance(v, Method) else describe(v) for k, v in parameters(method).items()}
            assert spelled == params and type(method).__name__ == name, (name, params)
            found.setdefault(row["method"], set()).add(describe(method))
    mixing = "mixing=Mixup(alpha=1.0, per_sample=True)"
    assert found["CutMix"] == {"CutMix(alpha=1.0)"}
    assert found["LaMix"] == {f"LaMix({mixing})", "LaMix(beta=1.0, mixing=PuzzleMix(alpha=1.0))"}
    assert found["LaMix without global soft label"] == {f"LaMix(beta=1.0, {mixing})"}
    assert found["LaMix without original samples"] == {f"LaMix({mixing}, originals=False)"}
    assert found["PuzzleMix"] == {"PuzzleMix(alpha=1.0)"}
    smoothed = [f"LabelSmoothing(eps={eps}, method=Mixup(alpha=1.0))" for eps in (0.1, 0.2, 0.3, 0.4)]
    assert found["mixup + uniform label smoothing"] == set(smoothed)
    assert found["IC-Mixup"] == {"InfiniteClass(method=Mixup(alpha=0.2))"}
    assert found["IC-Mixup (class axis)"] == {"InfiniteClass(method=Mixup(alpha=0.2), axes='class')"}
    assert found["IC-Mixup (pair axis)"] == {"InfiniteClass(method=Mixup(alpha=0.2), axes='pair')"}
    assert found["RegMixup"] == {"RegMixup(method=Mixup(alpha=20.0))"}
    assert found["IC-RegMixup"] == {"RegMixup(method=InfiniteClass(method=Mixup(alpha=20.0)))"}
    assert not {"Remix", "IC-Remix"} & set(found)


def test_a_table_of_infinite_class_mixup_becomes_runs():
    left = {run.method for run in from_table("infinite/table1_left", "quick", [0])}
    assert left == {f"InfiniteClass(method=Mixup(alpha=0.2){axes})" for axes in ("", ", axes='class'", ", axes='pair'")}
    right = {run.method for run in from_table("infinite/table1_right", "quick", [0])}
    assert right == left | {"ERM()", "Mixup(alpha=0.2)"}


def test_protocols_say_none_where_the_paper_is_silent():
    assert papers.protocol("kmixup", "toy")["lr"] is None
    assert papers.protocol("kmixup", "image_default")["epochs"] == 200


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"paper must be one of confusion, .*not 'nobody'"):
        papers.rows("nobody")
    with pytest.raises(ValueError, match=r"table must be one of table1, .*not 'table99'"):
        papers.rows("kmixup", "table99")
    with pytest.raises(ValueError, match="protocol must be one of"):
        papers.protocol("kmixup", "nothing")
