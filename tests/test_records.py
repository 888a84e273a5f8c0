"""Records: written whole or not at all, read past damage, set beside the published number."""

import json
import os

import pytest

from mixlab.results import papers, records

RUN = {
    "dataset": "one_ring",
    "model": "fc 130,120",
    "method": "Mixup",
    "params": {"alpha": 1.0},
    "budget": "200 epochs of 512 points",
    "device": "a CPU",
    "seed": 0,
    "error": 3.0,
}


def sweep(*errors, **changes):
    shared = {key: value for key, value in RUN.items() if key not in ("seed", "error")}
    return {**shared, **changes, "runs": [{"seed": s, "error": e} for s, e in enumerate(errors)]}


def test_what_is_written_is_read(tmp_path):
    records.write(RUN, tmp_path / "a.json")
    records.write(sweep(1.0, 2.0), tmp_path / "deep" / "b.json")
    runs, complaints = records.read(tmp_path)
    assert complaints == []
    assert [(run["error"], run["file"]) for run in runs] == [
        (3.0, "a.json"),
        (1.0, "deep/b.json"),
        (2.0, "deep/b.json"),
    ]
    assert runs[2]["params"] == {"alpha": 1.0} and runs[2]["seed"] == 1


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = records.write(RUN, tmp_path / "a.json")
    with pytest.raises(ValueError):
        records.write({**RUN, "error": float("nan")}, path)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        records.write({**RUN, "error": 9.0}, path)
    assert os.listdir(tmp_path) == ["a.json"] and json.loads(path.read_text())["error"] == 3.0


def test_a_record_without_its_facts_is_refused(tmp_path):
    with pytest.raises(ValueError, match="budget"):
        records.write({key: value for key, value in RUN.items() if key != "budget"}, tmp_path / "a.json")
    assert not list(tmp_path.iterdir())


def test_bad_files_are_named_and_hide_nothing(tmp_path):
    records.write(RUN, tmp_path / "good.json")
    (tmp_path / "half.json").write_text('{"dataset": "one_')
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "poor.json").write_text('{"dataset": "x"}')
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    os.mkfifo(tmp_path / "pipe.json")  # nobody will ever write to it
    (tmp_path / "grid.json").write_text("[]")  # no record, and nothing to complain of
    for name, change in {"nan": float("nan"), "low": -5, "high": 101, "word": "3", "flag": True}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({**RUN, "error": change}))
    (tmp_path / "method.json").write_text(json.dumps({**RUN, "method": ["Mixup"]}))
    failed = {key: value for key, value in RUN.items() if key != "error"}
    records.write({**failed, "failed": "Diverged: the loss is nan"}, tmp_path / "failed.json")
    runs, complaints = records.read(tmp_path)
    assert [run["file"] for run in runs] == ["good.json"]
    bad = "binary deep failed flag half high list low method nan poor word".split()
    assert sorted(c.split(":")[0] for c in complaints) == [f"{name}.json" for name in bad]
    assert "budget" in next(c for c in complaints if c.startswith("poor"))


def compared(*files, table="table9a", **options):
    runs = [run for file in files for run in records._expand(file)]
    return records.compare(papers.rows("kmixup", table), runs, **options)


def test_mean_std_and_gap_in_standard_errors():
    line = next(line for line in compared(sweep(3.0, 4.0, 5.0)) if line["n"])
    assert line["params"] == {"k": 1, "alpha": 1.0, "xi": 0.15} and line["error"] == 7.88
    assert (line["ours"], line["std"], line["n"]) == (4.0, 1.0, 3)
    assert line["gap"] == pytest.approx(-3.88) and line["gap_se"] == pytest.approx(-3.88 / (1 / 3**0.5))


def test_the_papers_own_standard_error_counts():
    row = {**papers.rows("kmixup", "table9a")[5 * 0 + 1], "std": 2.0, "trials": 16}
    line = records.compare([row], records._expand(sweep(3.0, 4.0, 5.0)))[0]
    assert line["gap_se"] == pytest.approx(-3.88 / (1 / 3 + 4 / 16) ** 0.5)


def test_one_run_has_no_spread_and_no_run_says_so():
    lines = compared(RUN)
    line = next(line for line in lines if line["n"])
    assert line["std"] is None and line["gap_se"] is None and line["gap"] == pytest.approx(3.0 - 7.88)
    assert sum(line["budget"] == "not run" for line in lines) == 24


def test_sets_of_one_name_and_other_options_are_never_pooled():
    sizes = ("shapes(size=16)", "shapes(n_train=2000)", "shapes")
    runs = [{**RUN, "dataset": "shapes", "data": data, "error": 1.0 + i} for i, data in enumerate(sizes)]
    row = {**papers.rows("kmixup", "table9a")[0], "dataset": "shapes", "method": "mixup", "params": {"alpha": 1.0}}
    lines = records.compare([{**row, "model": None}], runs)
    assert [(line["measured_on"], line["n"]) for line in lines] == [(data, 1) for data in sorted(sizes)]


def test_budgets_and_devices_are_never_pooled():
    lines = [
        line
        for line in compared(sweep(1.0, 2.0), sweep(9.0, budget="5 epochs"), sweep(7.0, device="a GPU"))
        if line["n"]
    ]
    assert sorted((line["budget"], line["device"], line["n"]) for line in lines) == [
        ("200 epochs of 512 points", "a CPU", 2),
        ("200 epochs of 512 points", "a GPU", 1),
        ("5 epochs", "a CPU", 1),
    ]


def test_a_cell_measured_under_two_budgets_counts_once():
    once, twice = compared(RUN), compared(RUN, {**RUN, "budget": "5 epochs"})
    assert len(twice) == len(once) + 1 and records.count_cells(twice) == records.count_cells(once) == (1, 25)


@pytest.mark.parametrize(
    "change", [{"dataset": "four_bars"}, {"method": "ERM"}, {"params": {"alpha": 2.0}}, {"model": "fc 10,120"}]
)
def test_another_cell_is_not_an_answer(change):
    assert not any(line["n"] for line in compared({**RUN, **change}))


def test_runs_on_another_set_carry_its_name():
    run = {**RUN, "dataset": "cifar10-jpeg", "model": "preact_resnet18"}
    assert not any(line["n"] for line in compared(run, table="table10"))
    lines = compared(run, table="table10", dataset_as={"CIFAR-10": "cifar10-jpeg"})
    assert sum(line["n"] for line in lines) == 1
    assert "CIFAR-10 (ours: cifar10-jpeg)" in records.as_markdown(lines)


def test_markdown_has_a_row_per_line_and_says_not_run():
    lines = compared(sweep(3.0, 4.0, 5.0))
    text = records.as_markdown(lines).splitlines()
    assert len(text) == 2 + len(lines)
    assert "| One Ring | k-mixup k=1 alpha=1.0 xi=0.15 | 7.88 | 4.00 ± 1.00 | 3 | -3.88 | -6.7 | 200 epochs" in text[3]
    assert text[2].endswith("| not run |")


def test_circumstances_name_the_device_and_the_versions():
    facts = records.circumstances()
    assert facts["device"] and facts["threads"] >= 1 and set(facts["versions"]) == {"python", "torch", "numpy"}


def test_stored_results_are_all_readable_and_name_their_circumstances():
    runs, complaints = records.read()
    assert complaints == []
    for run in runs:
        assert run["device"] and run["versions"]["torch"] and run["seconds"] > 0, run["file"]
