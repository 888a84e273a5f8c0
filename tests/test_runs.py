"""Runs: one spelling everywhere, nothing done twice, nothing lost."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import pytest
import torch

from mixlab import ERM, LabelSmoothing, Mixup
from mixlab.places import ROOT
from mixlab.results import records, runs
from mixlab.results.runs import Run, build_method, describe, do, from_grid, load_data, make_run

DATA = "shapes(n_train=96, n_test=48)"


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "CHECKPOINTS", tmp_path / "checkpoints")
    return tmp_path / "checkpoints"


@pytest.mark.parametrize(
    "text, canonical",
    [
        ("ERM()", "ERM()"),
        ("Mixup(1.0)", "Mixup(alpha=1.0)"),
        (" Mixup(alpha=1, per_sample=False)", "Mixup(alpha=1.0)"),
        ("Mixup(0.2, per_sample=True)", "Mixup(alpha=0.2, per_sample=True)"),
        ("LabelSmoothing(0.1, Mixup(1))", "LabelSmoothing(eps=0.1, method=Mixup(alpha=1.0))"),
    ],
)
def test_a_method_has_one_canonical_spelling(text, canonical):
    method = build_method(text, seed=0)
    assert describe(method) == canonical and describe(build_method(canonical, seed=0)) == canonical


def test_parts_of_a_method_draw_from_their_own_seeded_generators():
    def first(seed):
        method = build_method("LabelSmoothing(0.1, Mixup(1.0))", seed)
        return [part.rng.random() for part in (method, method.method)]

    assert first(0) == first(0) != first(1) and first(0)[0] != first(0)[1]


@pytest.mark.parametrize(
    "text",
    ["Nothing(1)", "Mixup(", "Mixup(beta=1)", "__import__('os').system('true')", "1 + 1", "Mixup", "Mixup(open('x'))"],
)
def test_what_is_not_a_method_is_refused_and_nothing_is_evaluated(text):
    with pytest.raises(ValueError, match="method"):
        build_method(text, seed=0)


def test_run_words_are_checked_and_keys_tell_runs_apart():
    run = make_run("shapes", "lenet", "Mixup(1)", "quick", 0)
    assert run == Run("shapes", "lenet", "Mixup(alpha=1.0)", "quick", 0)
    others = [make_run("shapes", "lenet", "Mixup(1)", "quick", 1), make_run("shapes", "lenet", "Mixup(2)", "quick", 0)]
    assert len({run.key, *(other.key for other in others)}) == 3
    with pytest.raises(ValueError, match="model must be one of"):
        make_run("shapes", "nothing", "ERM()", "quick", 0)
    with pytest.raises(ValueError, match="recipe must be one of"):
        make_run("shapes", "lenet", "ERM()", "nothing", 0)
    with pytest.raises(ValueError, match="data 'shapes\\(1 2\\)' cannot be understood"):
        load_data("shapes(1 2)")


def test_a_record_says_what_was_run_and_is_found_beside_the_paper(tmp_path, checkpoints):
    run = make_run(DATA, "lenet", "Mixup(1)", "quick", 0)
    assert do([run], tmp_path / "runs", "cpu", progress=False) == 0
    (record,), complaints = records.read(tmp_path / "runs")
    assert complaints == [] and record["expression"] == run.method
    assert (record["dataset"], record["data"], record["model"]) == ("shapes", DATA, "lenet")
    assert (record["method"], record["params"]) == ("Mixup", {"alpha": 1.0})
    assert len(record["curve"]) == 10 and record["error"] == record["curve"][-1]["error"]
    assert record["budget"] == "quick" and record["recipe"]["epochs"] == 10 and record["train_images"] == 96
    assert record["device"] and record["versions"]["torch"] and record["images_per_second"] > 0
    assert not list(checkpoints.glob("*.pt")), "the checkpoint of a finished run is dropped"
    assert runs.estimate(run, "cpu", [record]) == pytest.approx(record["seconds"], rel=0.5)


def test_a_record_says_that_its_network_was_compiled(tmp_path, checkpoints, monkeypatch):
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: real(model, backend="eager"))
    do([make_run(DATA, "lenet", "ERM()", "quick", 0)], tmp_path, "cpu", progress=False, compile=True)
    assert records.read(tmp_path)[0][0]["compiled"] is True


def test_what_has_a_record_is_not_done_again(tmp_path, checkpoints):
    run = make_run(DATA, "lenet", "ERM()", "quick", 0)
    do([run], tmp_path, "cpu", progress=False)
    before = run.path(tmp_path).stat().st_mtime_ns
    assert do([run], tmp_path, "cpu", progress=False) == 0 and run.path(tmp_path).stat().st_mtime_ns == before


def test_minutes_stop_cleanly_and_the_next_call_goes_on(tmp_path, checkpoints):
    todo = [make_run(DATA, "lenet", "ERM()", "quick", seed) for seed in range(2)]
    assert do(todo, tmp_path, "cpu", minutes=1e-6, progress=False) == 2
    assert do(todo, tmp_path, "cpu", minutes=1e-3, progress=False) == 2
    assert len(list(checkpoints.glob("*.pt"))) == 1, "one epoch of the first run is kept"
    assert do(todo, tmp_path, "cpu", progress=False) == 0


def worker(rank, grid, folder, home):
    """What torchrun starts for each process: the command line with a rank in the environment."""
    code = f"import sys, mixlab.results.runs as r, pathlib; r.CHECKPOINTS = pathlib.Path({str(home)!r}); "
    code += "import torch; torch.set_num_threads(1); import mixlab.__main__ as m; sys.exit(m.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "run", "--grid", str(grid), "--folder", str(folder), "--device", "cpu"]
    environment = {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "CI": "true"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)


def test_two_workers_share_a_table_and_one_is_killed_in_the_middle(tmp_path):
    grid = tmp_path / "grid.json"
    data = "shapes(n_train=512, n_test=48)"
    words = {"data": [data], "model": ["lenet"], "method": ["ERM()", "Mixup(1)"], "recipe": ["quick"], "seeds": 2}
    grid.write_text(json.dumps(words))
    home, folder = tmp_path / "checkpoints", tmp_path / "runs"
    first, second = worker(0, grid, folder, home), worker(1, grid, folder, home)
    while not list(home.glob("*.pt")) and first.poll() is None:
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL and second.wait(timeout=120) == 0
    done, complaints = records.read(folder)
    assert complaints == [] and len(done) == 4 and not list(home.glob("*.pt"))
    alone = tmp_path / "alone"
    assert worker(0, grid, alone, tmp_path / "other").wait(timeout=120) == 0
    errors = {(r["expression"], r["seed"]): [line["error"] for line in r["curve"]] for r in records.read(alone)[0]}
    assert errors == {(r["expression"], r["seed"]): [line["error"] for line in r["curve"]] for r in done}


def test_a_grid_is_every_combination(tmp_path):
    words = {"data": ["shapes"], "model": ["lenet"], "method": ["ERM()", "Mixup(1)"], "recipe": ["quick"], "seeds": 3}
    (tmp_path / "grid.json").write_text(json.dumps(words))
    grid = from_grid(tmp_path / "grid.json")
    assert len(set(grid)) == 6 and asdict(grid[0])["data"] == "shapes"
    (tmp_path / "grid.json").write_text("{}")
    with pytest.raises(ValueError, match=r"grid grid\.json lacks data, method, model, recipe, seeds"):
        from_grid(tmp_path / "grid.json")


def test_every_method_of_the_module_can_be_named():
    assert set(runs.methods()) >= {"ERM", "Mixup", "LabelSmoothing"}
    assert describe(LabelSmoothing(0.1)) == "LabelSmoothing(eps=0.1, method=ERM())" and describe(ERM()) == "ERM()"
    assert describe(Mixup(0.5)) == "Mixup(alpha=0.5)"
