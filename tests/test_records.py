"""Records: written whole or not at all, read past damage, set beside the published number."""

import json
import os

import pytest

from mixlab.results import records

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


def test_circumstances_name_the_device_and_the_versions():
    facts = records.circumstances()
    assert facts["device"] and facts["threads"] >= 1 and set(facts["versions"]) == {"python", "torch", "numpy"}


def test_stored_results_are_all_readable_and_name_their_circumstances():
    runs, complaints = records.read()
    assert complaints == []
    for run in runs:
        assert run["device"] and run["versions"]["torch"] and run["seconds"] > 0, run["file"]


def test_an_experiment_by_method_and_differences_seed_by_seed(tmp_path):
    for method, errors in {"ERM()": (10.0, 14.0, 12.0), "Mixup(alpha=1.0)": (9.0, 11.0)}.items():
        for seed, error in reversed(list(enumerate(errors))):
            records.write(
                {**RUN, "expression": method, "seed": seed, "error": error}, tmp_path / "x" / f"{method}{seed}.json"
            )
    found = records.experiment("x", tmp_path)
    assert {name: [run["seed"] for run in runs] for name, runs in found.items()} == {
        "ERM()": [0, 1, 2],
        "Mixup(alpha=1.0)": [0, 1],
    }
    assert (tmp_path / found["ERM()"][0]["file"]).is_file()
    mean, error, n = records.difference(found["Mixup(alpha=1.0)"], found["ERM()"])
    assert (mean, error, n) == (-2.0, pytest.approx(1.0), 2), "only the seeds that both have, in pairs"
    alone = records.difference(found["Mixup(alpha=1.0)"][:1], found["ERM()"])
    assert alone[0] == -1.0 and alone[1] != alone[1] and alone[2] == 1, "one pair says nothing of its spread"
    with pytest.raises(ValueError, match="seed"):
        records.difference(found["ERM()"][2:], found["Mixup(alpha=1.0)"])
    assert records.experiment("nothing", tmp_path) == {}
