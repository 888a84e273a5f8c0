"""The published numbers: present, read right, and in one unit."""

import pytest

from mixlab.results import papers

CELLS = {"kmixup": 536, "zeta": 62, "confusion": 14, "lamix": 146, "infinite": 39}


def test_all_five_papers_are_there_with_all_their_cells_and_printed_digits_agree():
    assert papers.names() == sorted(CELLS)
    for name, count in CELLS.items():
        tables = papers.tables(name, usable_only=False)
        rows = [row for table in tables for row in papers.rows(name, table["id"])]
        assert len(rows) == count == sum(len(table["rows"]) for table in tables)
        for row in rows:
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


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"paper .*confusion.*'nobody'"):
        papers.rows("nobody")
    with pytest.raises(ValueError, match=r"table .*table1,.*'table99'"):
        papers.rows("kmixup", "table99")
