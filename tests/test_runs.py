"""Runs: one spelling everywhere, nothing done twice, nothing lost."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from mixlab.__main__ import main
from mixlab.places import ROOT
from mixlab.results import kept, records, runs
from mixlab.results.expressions import build_method, describe, describe_data, is_folder, load_data, methods
from mixlab.results.runs import Run, do, from_grid, load_network, make_run
from mixlab.training.measures import final_measures
from mixlab.training.recipes import RECIPES

DATA = "shapes(n_train=96, n_test=48)"


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("MIXLAB_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache" / "checkpoints"


def test_a_method_has_one_canonical_spelling():
    for text, canonical in {
        "ERM()": "ERM()",
        " Mixup(alpha=1, per_sample=False)": "Mixup(alpha=1.0)",
        "Mixup(0.2, per_sample=True)": "Mixup(alpha=0.2, per_sample=True)",
        "LabelSmoothing(0.1, Mixup(1))": "LabelSmoothing(eps=0.1, method=Mixup(alpha=1.0))",
        "LabelSmoothing(0.1)": "LabelSmoothing(eps=0.1, method=ERM())",
    }.items():
        method = build_method(text, seed=0)
        assert describe(method) == canonical and describe(build_method(canonical, seed=0)) == canonical
    assert set(methods()) >= {"ERM", "Mixup", "LabelSmoothing"} and "Method" not in methods()


def test_parts_of_a_method_draw_from_their_own_seeded_generators():
    def first(seed):
        method = build_method("LabelSmoothing(0.1, Mixup(1.0))", seed)
        return [part.rng.random() for part in (method, method.method)]

    assert first(0) == first(0) != first(1) and first(0)[0] != first(0)[1]


def test_what_is_not_a_method_is_refused_and_nothing_is_evaluated():
    evil = ("__import__('os').system('true')", "Mixup(open('x'))", "Mixup.forward(1)")
    for text in ("Nothing(1)", "Mixup(", "Mixup(beta=1)", "1 + 1", "'ERM()'", "Mixup", *evil):
        with pytest.raises(ValueError, match="method"):
            build_method(text, seed=0)


def test_run_words_are_checked_and_keys_tell_runs_apart():
    def make(data="shapes", model="lenet", method="Mixup(1)", recipe="quick", seed=0, precision="float32", **how):
        return make_run(data, model, method, recipe, seed, precision, **how)

    assert make() == Run("shapes", "lenet", "Mixup(alpha=1.0)", "quick", 0, "float32")
    assert make().key == "Mixup_alpha=1.0_-lenet-0-1b221984", "records are found by it"
    others = [make(seed=1), make(method="Mixup(2)"), make(data="shapes(size=16)"), make(recipe="quick(lr=0.2)")]
    others += [make(precision="bf16"), make(model="quick_resnet"), make(compile=True)]
    assert len({make().key, *(other.key for other in others)}) == 8
    assert make(model="resnet18(stem_stride=1)").model == "resnet18"
    bad = {"data": "shapes(1 2)", "model": "lenet(stride=2)", "method": "Nothing()", "recipe": "nothing"}
    for word, value in [*bad.items(), ("seed", "0"), ("seed", True), ("seed", -1), ("precision", "fp8")]:
        with pytest.raises(ValueError, match=word):
            make(**{word: value})


def test_the_content_of_the_recipe_is_part_of_a_run_and_its_name_is_not(monkeypatch):
    before = make_run("shapes", "lenet", "ERM()", "quick", 0).key
    assert make_run("shapes", "lenet", "ERM()", "quick(lr=0.1)", 0).key == before, "nothing is changed"
    monkeypatch.setitem(RECIPES, "quick", replace(RECIPES["quick"], weight_decay=0.1))
    assert make_run("shapes", "lenet", "ERM()", "quick", 0).key != before


def test_equal_data_have_one_spelling_and_options_that_mean_nothing_are_refused():
    for one, other in {
        "shapes(n_train=40, size=16)": "shapes(size=16, n_train=40)",
        "shapes(n_train=6000)": "shapes",
        "digits(fraction=1)": "digits",
        " cifar10( fraction = 0.10 ) ": "cifar10(fraction=0.1)",
    }.items():
        assert describe_data(one) == describe_data(other) == other
    counts = ("shapes(40)", "shapes(n_trian=40)", "digits(n_train=40)", "shapes(n_train=1.5)", "shapes(size=True)")
    for text in (*counts, "cifar10(fraction='a')", "shapes)("):
        with pytest.raises(ValueError, match="data"):
            describe_data(text)


def test_a_folder_with_brackets_in_its_name_is_that_folder(tmp_path, monkeypatch):
    for name, shade in (("photos", 0), ("photos (copy)", 255)):
        for kind in ("a", "b"):
            (tmp_path / name / kind).mkdir(parents=True)
            for i in range(4):
                Image.new("RGB", (8, 8), (shade, shade, i)).save(tmp_path / name / kind / f"{i}.png")
    monkeypatch.setenv("MIXLAB_DATA", str(tmp_path))
    assert load_data("photos (copy)").train_x.float().mean() > load_data("photos").train_x.float().mean() + 100
    assert is_folder("photos (copy)") and not is_folder("shapes") and not is_folder("cifar10(fraction=0.1)")


def test_a_record_says_what_was_run_and_is_found_beside_the_paper(tmp_path, checkpoints):
    run = make_run(DATA, "lenet", "Mixup(1)", "quick", 0)
    assert do([run], tmp_path / "runs", "cpu", progress=False, keep=True) == 0
    (record,), complaints = records.read(tmp_path / "runs")
    assert complaints == [] and record["expression"] == run.method
    assert (record["dataset"], record["data"], record["model"]) == ("shapes", DATA, "lenet")
    assert (record["method"], record["params"]) == ("Mixup", {"alpha": 1.0})
    assert len(record["curve"]) == 10 and record["error"] == record["curve"][-1]["error"]
    assert record["budget"] == "quick" and record["recipe"]["epochs"] == 10 and record["train_images"] == 96
    assert record["device"] and record["versions"]["torch"] and record["images_per_second"] > 0
    assert not list(checkpoints.iterdir()), "neither checkpoint nor lock of a finished run stays"
    before = run.path(tmp_path / "runs").stat().st_mtime_ns
    assert do([run], tmp_path / "runs", "cpu", progress=False) == 0
    assert run.path(tmp_path / "runs").stat().st_mtime_ns == before, "what has a record is not done again"
    assert runs.estimate(run, [record], record["device"]) == pytest.approx(record["seconds"], rel=0.5)
    measures = record["measures"]
    assert measures["images"] == 48 and measures["error"] == pytest.approx(record["error"], abs=3)
    assert {"calibration_error", "noise_8", "noise_14", "fgsm_0.5", "fgsm_16"} <= measures.keys()
    network = load_network(record, load_data(DATA), tmp_path / "runs")
    again = final_measures(network, load_data(DATA), record["precision"])
    assert again["error"] == pytest.approx(measures["error"], abs=3), "the kept weights are those of the run"
    assert kept.look(tmp_path / "runs", str(run.path(tmp_path / "runs"))) == 1
    looks = records.read(tmp_path / "runs")[0][0]["looks"]
    assert looks["error"] == pytest.approx(measures["error"], abs=3)
    assert "map_area" not in looks, "the last stages of lenet have no pixels"
    for eps in (1, 16):  # attacked by way of itself: the same as attacked
        assert looks[f"through_{eps}"] == pytest.approx(measures[f"fgsm_{eps}"], abs=5)
    with pytest.raises(ValueError, match="weights"):
        load_network({k: v for k, v in record.items() if k != "weights"}, load_data(DATA))


@pytest.mark.filterwarnings("ignore")  # overflow is the point
def test_a_run_that_fails_is_recorded_and_the_list_goes_on(tmp_path, checkpoints, capsys):
    words = [
        ("lenet", "ERM()", "quick(lr=1e12)"),
        ("lenet", "PuzzleMix(1, blocks=(3,))", "quick"),
        ("lenet", "ERM()", "quick"),
    ]
    todo = [make_run(DATA, *each, 0) for each in words]
    assert do(todo, tmp_path, "cpu", progress=False) == 0
    good, complaints = records.read(tmp_path)
    assert len(good) == 1 and len(complaints) == 2 and all("failed" in complaint for complaint in complaints)
    assert "Diverged" in complaints[0] + complaints[1] and "blocks" in complaints[0] + complaints[1]
    capsys.readouterr()
    assert do(todo, tmp_path, "cpu", progress=False) == 0 and "failed" not in capsys.readouterr().out
    do(todo, tmp_path, "cpu", progress=False, retry=True)
    assert capsys.readouterr().out.count("failed") == 2


def test_a_damaged_checkpoint_is_said_and_the_list_goes_on(tmp_path, checkpoints, capsys):
    todo = [make_run(DATA, "lenet", "ERM()", "quick", seed) for seed in range(2)]
    checkpoints.mkdir()
    (checkpoints / f"{todo[0].key}.pt").write_bytes(b"no checkpoint")
    assert do(todo, tmp_path, "cpu", progress=False) == 1
    assert "damaged" in capsys.readouterr().out and todo[1].path(tmp_path).exists()


def test_images_that_were_replaced_are_not_taken_for_done(tmp_path, checkpoints):
    def draw(shade):
        for kind in ("a", "b"):
            (checkpoints.parent / "photos" / kind).mkdir(parents=True, exist_ok=True)
            for i in range(5):
                pixels = np.random.default_rng(i).integers(shade, size=(32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(checkpoints.parent / "photos" / kind / f"{i}.png")
        load_data.cache_clear()

    draw(100)
    run = make_run("photos", "lenet", "ERM()", "quick(epochs=1)", 0)
    assert do([run], tmp_path / "runs", "cpu", progress=False) == 0
    draw(250)
    with pytest.raises(ValueError, match="other images"):
        do([run], tmp_path / "runs", "cpu", progress=False)


def test_a_folder_that_cannot_be_written_to_is_found_before_training(tmp_path, checkpoints):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="folder"):
        do([make_run(DATA, "lenet", "ERM()", "quick", 0)], tmp_path / "file" / "runs", "cpu", progress=False)
    for minutes in (float("nan"), 0.0, -1.0):
        with pytest.raises(ValueError, match="minutes"):
            do([], tmp_path, "cpu", minutes=minutes)


@pytest.mark.slow
def test_a_record_says_that_its_network_was_compiled(tmp_path, checkpoints, monkeypatch):
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **_: real(model, backend="eager"))
    do([make_run(DATA, "lenet", "ERM()", "quick(epochs=1)", 0, compile=True)], tmp_path, "cpu", progress=False)
    assert records.read(tmp_path)[0][0]["compiled"] is True


def test_minutes_stop_cleanly_and_the_next_call_goes_on(tmp_path, checkpoints):
    todo = [make_run(DATA, "lenet", "ERM()", "quick", seed) for seed in range(2)]
    assert do(todo, tmp_path, "cpu", minutes=1e-6, progress=False) == 2
    assert do(todo, tmp_path, "cpu", minutes=1e-3, progress=False) == 2
    assert len(list(checkpoints.glob("*.pt"))) == 1, "one epoch of the first run is kept"
    assert do(todo, tmp_path, "cpu", progress=False) == 0


def worker(rank, grid, folder, home):
    """What --workers and torchrun start for each process: the command line with a rank in the environment."""
    home.mkdir(exist_ok=True)
    code = "import sys, mixlab.training.loop as l; l.SAVE_EVERY = -1; "
    code += "import mixlab.__main__ as m; sys.exit(m.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "run", "--grid", str(grid), "--folder", str(folder), "--device", "cpu"]
    own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "CI": "true", "OMP_NUM_THREADS": "1", "MIXLAB_DATA": str(home)}
    environment = {**os.environ, **own}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)


@pytest.mark.slow
def test_two_workers_share_a_table_and_one_is_killed_in_the_middle(tmp_path):
    grid = tmp_path / "grid.json"
    data = "shapes(n_train=512, n_test=48)"
    words = {"data": [data], "model": ["lenet"], "method": ["ERM()", "Mixup(1)"], "recipe": ["quick"], "seeds": 2}
    grid.write_text(json.dumps(words))
    home, folder = tmp_path / "home", tmp_path / "runs"
    first, second = worker(0, grid, folder, home), worker(1, grid, folder, home)
    while not list(home.glob("checkpoints/*.pt")) and first.poll() is None:
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL and second.wait(timeout=120) == 0
    done, complaints = records.read(folder)
    assert complaints == [] and len(done) == 4 and not list(home.glob("checkpoints/*"))
    alone = tmp_path / "alone"
    assert worker(0, grid, alone, tmp_path / "other").wait(timeout=120) == 0
    errors = {(r["expression"], r["seed"]): [line["error"] for line in r["curve"]] for r in records.read(alone)[0]}
    assert errors == {(r["expression"], r["seed"]): [line["error"] for line in r["curve"]] for r in done}


def grid_file(tmp_path, content):
    (tmp_path / "grid.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return tmp_path / "grid.json"


def test_a_grid_is_every_combination_seed_by_seed(tmp_path):
    words = {"data": ["shapes"], "model": ["lenet"], "method": ["ERM()", "Mixup(1)"], "recipe": ["quick"], "seeds": 3}
    more = {**words, "method": ["Mixup(alpha=1.0)", "CutMix(1)"], "seeds": [0, 7], "note": "why"}
    grid = from_grid(grid_file(tmp_path, [words, more]))
    assert len(grid) == len(set(grid)) == 9, "the second block's Mixup is the first's at seed 0"
    assert [run.seed for run in grid] == sorted(run.seed for run in grid)
    assert records.folder_of(tmp_path / "grid.json") == tmp_path


def test_a_grid_that_is_none_is_refused(tmp_path):
    words = {"data": ["shapes"], "model": ["lenet"], "method": ["ERM()"], "recipe": ["quick"], "seeds": 3}
    changes = [("{}", "data, method, model, recipe, seeds"), ("[1]", "data"), ("no", "grid"), ({"colour": 1}, "colour")]
    changes += [({"seeds": seeds}, "seed") for seeds in ("3", True, [0, -1], 0, [], None)]
    changes += [({"data": "shapes"}, "lists"), ({"method": [1]}, "lists")]
    for change, word in changes:
        with pytest.raises(ValueError, match=word):
            from_grid(grid_file(tmp_path, change if isinstance(change, str) else {**words, **change}))
    with pytest.raises(ValueError, match=r"none\.json"):
        from_grid(tmp_path / "none.json")


@pytest.mark.slow
def test_the_command_says_where_the_record_is_and_two_workers_share(tmp_path):
    words = ["run", "--data", DATA, "--model", "lenet", "--recipe", "quick(epochs=2)", "--folder", str(tmp_path)]
    own = {**os.environ, "MIXLAB_DATA": str(tmp_path)}
    command = [sys.executable, "-m", "mixlab", *words, "--seeds", "0", "1", "--workers", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=own)
    assert done.returncode == 0 and done.stdout.count("saved to") == 2 and "error" in done.stdout, done.stderr
    found, complaints = records.read(tmp_path)
    assert complaints == [] and {(run["seed"], run["threads"]) for run in found} == {(0, 1), (1, 1)}


def test_bad_words_on_the_command_line_get_a_sentence(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MIXLAB_DATA", str(tmp_path))
    for words, problem in [
        (["--grid", "none.json"], "none.json"),
        (["--grid", "g.json", "--recipe", "quick"], "--recipe"),
        (["--table", "kmixup/table10", "--method", "ERM()"], "--method"),
        (["--table", "kmixup/table10", "--model", "lenet"], "--model"),
        (["--data", "shapes", "--device", "foo"], "device"),
        (["--data", "shapes", "--minutes", "nan"], "minutes"),
        ([], "run needs"),
    ]:
        assert main(["run", *words]) == 2 and problem in capsys.readouterr().err


def stop_it(command, folder, ready, signal_number, *more):
    """Start a long run, send it the signal when the files it is waited for are there: (exit status, what it said)."""
    words = ["run", "--data", "shapes(n_train=512, n_test=48)", "--model", "lenet", "--recipe", "quick(epochs=5000)"]
    own = {**os.environ, "MIXLAB_DATA": str(folder), "OMP_NUM_THREADS": "1"}
    words += ["--folder", str(folder), "--seeds", "0", "1", *more]
    process = subprocess.Popen([*command, *words], cwd=ROOT, env=own, stderr=subprocess.PIPE, text=True)
    while not all(list(folder.glob(pattern)) for pattern in ready) and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.5)
    process.send_signal(signal_number)
    try:
        said = process.communicate(timeout=120)[1]
    finally:
        process.kill()
    assert "Traceback" not in said, said
    return process.returncode, said


@pytest.mark.slow
@pytest.mark.parametrize("stop, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_say_where_the_same_command_goes_on(tmp_path, stop, status):
    code = "import signal, sys, mixlab.training.loop as l; l.SAVE_EVERY = -1; "
    code += "signal.signal(signal.SIGINT, signal.default_int_handler); "  # a job in the background begins without
    code += "import mixlab.__main__ as m; sys.exit(m.main(sys.argv[1:]))"
    found, said = stop_it([sys.executable, "-c", code], tmp_path, ["checkpoints/*.pt"], stop)
    assert found == status and "goes on from epoch" in said


@pytest.mark.slow
def test_a_list_that_two_workers_share_stops_on_sigterm(tmp_path):
    ready = [f"checkpoints/*-{seed}-*.lock" for seed in (0, 1)]
    found, said = stop_it([sys.executable, "-m", "mixlab"], tmp_path, ready, signal.SIGTERM, "--workers", "2")
    assert found == 143 and said.count("goes on") == 2, said
