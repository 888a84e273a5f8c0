"""The report: our mean beside the printed one, whatever lies in the folder, in 80 columns."""

import csv
import io
import json
import subprocess
import sys
import time

import pytest

from mixlab.__main__ import main
from mixlab.places import ROOT
from mixlab.results import papers, records, report

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


def compared(*files, table="table9a", **options):
    runs = [run for file in files for run in records._expand(file)]
    return records.compare(papers.rows("kmixup", table), runs, **options)


def test_both_standard_errors_count_in_every_gap():
    """ours ± 1 over 3 runs; theirs: std over trials, else the worst of the table, else ours over their trials."""
    first = papers.rows("kmixup", "table9a")[1]
    assert first["params"] == {"k": 1, "alpha": 1.0, "xi": 0.15} and first["error"] == 7.88
    for theirs, error in [
        ({}, 0.2**0.5),
        ({"std": 2.0, "trials": 16}, 0.5),
        ({"std": None, "se_worst": 0.3}, 0.3),
        ({"std": None, "se_worst": None, "trials": 5}, 5**-0.5),
        ({"std": None, "se_worst": None, "trials": None}, 1.0),
    ]:
        (line,) = records.compare([{**first, **theirs}], records._expand(sweep(3.0, 4.0, 5.0)))
        assert (line["ours"], line["std"], line["n"], line["gap"]) == (4.0, 1.0, 3, pytest.approx(-3.88))
        assert line["gap_se"] == pytest.approx(-3.88 / (1 / 3 + error**2) ** 0.5)


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


def test_budgets_devices_precisions_and_recipes_are_never_pooled():
    changed = [{"budget": "5 epochs"}, {"device": "a GPU"}, {"recipe": {"epochs": 5}}, {"recipe": {"epochs": 6}}]
    changed.append({"precision": "bf16"})
    lines = [line for line in compared(sweep(1.0, 2.0), *({**RUN, **change} for change in changed)) if line["n"]]
    assert sorted(line["n"] for line in lines) == [1] * 5 + [2]
    assert {line["device"] for line in lines} == {"a CPU", "a GPU", "a CPU, bf16"}
    noted = [{**RUN, "seed": k, "recipe": {"epochs": 5, "note": "n" * k}} for k in range(2)]
    assert [line["n"] for line in compared(*noted) if line["n"]] == [2]


def test_a_cell_measured_under_two_budgets_counts_once():
    once, twice = compared(RUN), compared(RUN, {**RUN, "budget": "5 epochs"})
    assert len(twice) == len(once) + 1 and records.count_cells(twice) == records.count_cells(once) == (1, 25)


def test_another_cell_is_not_an_answer():
    for change in [{"dataset": "four_bars"}, {"method": "ERM"}, {"params": {"alpha": 2.0}}, {"model": "fc 10,120"}]:
        assert not any(line["n"] for line in compared({**RUN, **change})), change


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
    assert "| One Ring | k-mixup k=1 alpha=1.0 xi=0.15 | 7.88 | 4.00 ± 1.00 | 3 | -3.88 | -5.3 | 200 epochs" in text[3]
    assert text[2].endswith("| not run |")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of records that `mixlab report` reads."""
    read = records.read
    monkeypatch.setattr(records, "read", lambda: read(tmp_path))
    return tmp_path


def command(capsys, *words):
    assert main(["report", *words]) == 0
    return capsys.readouterr()


def test_it_opens_with_a_summary_and_names_what_failed_once(folder, capsys):
    records.write(sweep(3.0, 4.0), folder / "good.json")
    failed = {key: value for key, value in RUN.items() if key != "error"} | {"failed": "ValueError: diverged"}
    records.write(failed, folder / "diverged-1.json")
    (folder / "torn.json").write_text('{"data')
    told = command(capsys)
    first, *rest = told.out.splitlines()
    assert "1 of 765" in first and "table9a 1/25" in told.out and told.out.count("diverged-1.json") == 1
    assert "torn.json" in told.err and "diverged" not in told.err
    assert told.out.count("200 epochs of 512 points") == 1
    assert max(map(len, rest)) <= 80 and "|" not in told.out


def test_all_missing_commands_and_csv(folder, capsys):
    records.write(sweep(3.0, 4.0), folder / "good.json")
    everything = command(capsys, "--all").out
    assert everything.count("not run") + everything.count("no protocol printed") > 500
    assert max(map(len, everything.splitlines())) <= 80
    lines = list(csv.DictReader(io.StringIO(command(capsys, "kmixup/table9a", "--csv").out)))
    assert [(line["ours"], line["n"], line["params"]) for line in lines] == [("3.5", "2", "k=1 alpha=1.0 xi=0.15")]
    assert len(list(csv.DictReader(io.StringIO(command(capsys, "--csv", "--all").out)))) == 765
    missing = command(capsys, "infinite", "--missing").out
    assert "python -m mixlab run --table infinite/table1_left\n" in missing and "9 runs a seed" in missing
    assert "1 not to be run" in missing and "time unknown" in missing
    assert "24 of 25 cells empty" in command(capsys, "kmixup/table9a", "--missing").out


def test_every_published_table_has_its_command_or_a_word(folder, capsys):
    told = command(capsys, "--commands").out
    assert "kmixup/table6: 40 of 40 cells empty, 10 runs a seed" in told  # one network for all strengths of the noise
    for name in papers.names():
        for table in papers.tables(name):
            place = told.split(f"{name}/{table['id']}: ")[1].split("\n", 2)
            assert f"run --table {name}/{table['id']}" in place[1] or "not to be run: " in place[1]


def test_missing_tells_the_time_by_what_was_measured_here(folder, capsys):
    here = records.circumstances()["device"]
    run = {**RUN, "dataset": "cifar10", "data": "cifar10", "model": "resnet18", "method": "ERM", "params": {}}
    run |= {"device": here, "seconds": 60.0, "curve": [{}] * 10, "budget": "short15"}
    records.write(run, folder / "a.json")
    told = command(capsys, "confusion/table1", "--missing", "--recipe", "quick").out
    assert "14 runs a seed, about 14 min" in told.replace("\n    ", " ")
    assert "run --table confusion/table1 --recipe 'quick'" in told


def test_unknown_words_are_refused_without_a_traceback(folder, capsys):
    for words in (["a/b/c"], ["kmixup/table99"], ["nobody"], ["confusion", "--missing", "--recipe", "nope"]):
        assert main(["report", *words]) == 2 and capsys.readouterr().err.startswith("mixlab: ")


BOMB = json.loads("[" * 200 + "]" * 200)
ODD = [None, True, -5, 1e400, float("nan"), "", "words", [], [1, [2]], {}, {"a": {"b": []}}, BOMB]


@pytest.mark.slow
def test_no_odd_record_kills_the_report_or_counts_as_measured(folder, capsys):
    """Every key of a record missing, or of every odd kind, alone in its file: 13 keys times 13 kinds."""
    good = {**RUN, "dataset": "cifar10", "data": "cifar10", "model": "resnet18", "recipe": {"batch_size": 128}}
    good |= {"row": {"alpha": 1.0}, "measures": {"noise_8": 20.0}, "seconds": 1.0, "curve": [], "precision": "float32"}
    for key in good:
        for number, value in enumerate(ODD):
            (folder / f"{key}-{number}.json").write_text(json.dumps({**good, key: value}))
        (folder / f"{key}-gone.json").write_text(json.dumps({k: v for k, v in good.items() if k != key}))
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "bombs.json").write_text(
        json.dumps({**good, "measures": {"noise_8": BOMB, "noise_10": True, "fgsm_1": float("nan")}})
    )
    for words in ([], ["--all"], ["--missing"], ["--csv"]):
        told = command(capsys, *words).out
        assert "nan" not in told.lower().replace("nano", "")
    runs, complaints = records.read()
    assert len(runs) > 50 and len(complaints) > 30
    noisy = [line for line in report.compare(papers.rows_of("kmixup/table6"), runs) if line["n"]]
    assert all(0 <= line["ours"] <= 100 for line in noisy)


def test_odd_measures_are_no_numbers():
    good = {**RUN, "dataset": "cifar10", "data": "cifar10", "model": "resnet18", "method": "ERM", "params": {}}
    rows = papers.rows("kmixup", "table6")
    (line,) = (line for line in report.compare(rows, [{**good, "measures": {"noise_8": 20.0}}]) if line["n"])
    assert (line["ours"], line["params"], line["error"]) == (20.0, {"noise_eps": 8}, rows[0]["error"])
    for odd in (True, -5, 101, float("nan"), "20", None, [20]):
        assert not any(line["n"] for line in report.compare(rows, [{**good, "measures": {"noise_8": odd}}]))


def test_a_part_of_a_set_is_not_taken_for_another_set():
    """Letter by letter, "cifar10 (0%)" would be "cifar100"."""
    part = {**RUN, "dataset": "cifar10 (0%)", "model": "densenet_bc_190_40", "method": "ERM", "params": {}}
    cells = papers.rows("kmixup", "table12a")
    assert not any(line["n"] for line in report.compare(cells, [part]))
    assert sum(line["n"] for line in report.compare(cells, [{**part, "dataset": "cifar100"}])) == 1


def test_another_set_keeps_what_the_row_does_to_it():
    cells = papers.rows("infinite", "table1_right")
    run = {**RUN, "data": "photos(fraction=0.5)", "dataset": "photos (50%)", "model": "resnet34", "method": "ERM"}
    run |= {"params": {}, "recipe": {"batch_size": 128}}
    (line,) = (line for line in report.compare(cells, [run], {"CIFAR-100": "photos"}) if line["n"])
    assert line["params"]["fraction"] == 0.5 and line["measured_on"] == "photos(fraction=0.5)"
    whole = {**run, "data": "photos", "dataset": "photos"}
    (line,) = (line for line in report.compare(cells, [whole], {"CIFAR-100": "photos"}) if line["n"])
    assert line["params"]["fraction"] == 1.0
    assert not any(line["n"] for line in report.compare(cells, [whole], {"CIFAR-100": "photos (10%)"}))


@pytest.mark.slow
def test_a_hundred_thousand_records_are_compared_in_seconds():
    runs = [{**RUN, "seed": seed, "params": {"alpha": float(seed % 100)}} for seed in range(100_000)]
    start = time.process_time()
    lines = report.compare(papers.rows_of(None), runs)
    assert time.process_time() - start < 20 and sum(line["n"] for line in lines) == 4 * 1000


@pytest.mark.slow
def test_it_lives_through_head():
    """A reader that leaves early, and an ASCII terminal: no traceback."""
    script = f"{sys.executable} -m mixlab report --all | head -c 1 > /dev/null; exit ${{PIPESTATUS[0]}}"
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(["bash", "-c", script], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr, done.stderr


def test_run_table_takes_each_rows_own_protocol(monkeypatch, tmp_path, capsys):
    from mixlab.results import runs

    asked = []
    monkeypatch.setattr(runs, "do", lambda wanted, *_, **__: asked.extend(wanted) or len(wanted))
    base = ["run", "--table", "infinite/table1_left", "--folder", str(tmp_path)]
    assert main(base) == 0 and {run.recipe for run in asked} >= {"infinite", "infinite(batch_size=64)"}
    asked.clear()
    assert main([*base, "--recipe", "quick", "--data", "shapes", "--precision", "float32"]) == 0
    assert {run.data for run in asked} == {"shapes"} and {run.precision for run in asked} == {"float32"}
    assert {run.recipe for run in asked} >= {"quick"}
