"""The published numbers: present, read right, and in one unit."""

import pytest

from mixlab.results import papers

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
