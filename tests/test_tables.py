"""The tables of numbers: how files are read, how rows are split and scaled."""

import hashlib

import numpy as np
import pytest
import torch

from mixlab import ERM, Mixup
from mixlab.data import tables
from mixlab.data.tables import load, split
from mixlab.training.sweeps import fit_many, measure

ROWS = {
    "abalone": "M,0.455,0.365,0.095,0.514,0.2245,0.101,0.15,15\nI,0.33,0.255,0.08,0.205,0.0895,0.0395,0.055,7\n"
    "F,0.53,0.42,0.135,0.677,0.2565,0.1415,0.21,9\n",
    "arrhythmia": "75,0,190,?,8\n56,1,165,3,6\n54,0,172,5,10\n",
    "phishing": "-1,1,1,-1\n1,0,-1,1\n",
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data folder with a few rows of each file, and checksums to match."""
    (tmp_path / "uci").mkdir()
    for name, text in ROWS.items():
        (tmp_path / "uci" / f"{name}.data").write_text(text)
        md5 = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
        monkeypatch.setitem(tables.FILES, name, (md5, []))
    return tmp_path


def toy(n=50, d=3, seed=0):
    rng = np.random.default_rng(seed)
    return tables.Table("toy", rng.normal(5, 2, (n, d)), rng.integers(0, 2, n), ("a", "b"))


def test_two_tables_come_with_scikit_learn():
    for name, shape, classes in (("iris", (150, 4), 3), ("cancer", (569, 30), 2)):
        table = load(name)
        assert table.x.shape == shape and len(table.classes) == classes == len(set(table.labels))


def test_files_as_uci_publishes_them_and_no_others(root):
    abalone = load("abalone", root)
    assert abalone.x[:, 0].tolist() == [1.0, -1.0, 0.0] and abalone.x[1, 1] == 0.33
    assert abalone.classes == ("7", "9", "15") and abalone.labels.tolist() == [2, 0, 1]
    arrhythmia = load("arrhythmia", root)
    assert np.isnan(arrhythmia.x[0, 3]) and np.isnan(arrhythmia.x).sum() == 1 and arrhythmia.x.shape == (3, 4)
    assert load("phishing", root).classes == ("-1", "1")
    (root / "uci" / "phishing.data").write_text("1,1,1,1\n")
    with pytest.raises(OSError, match=r"phishing"):
        load("phishing", root)


def test_a_split_uses_every_row_once_and_differs_by_seed():
    table = toy()
    data = split(table, 0, "none")
    part = tables.training_part(data, 0)  # for choosing settings: without the rows of the test
    assert [len(x) for x in (data.train_x, data.test_x, part.train_x, part.test_x)] == [40, 10, 32, 8]
    for whole, *parts in (
        (torch.from_numpy(table.x).float(), data.train_x, data.test_x),
        (data.train_x, part.train_x, part.test_x),
    ):
        assert torch.allclose(torch.cat(parts).sum(1).sort().values, whole.sum(1).sort().values)
    assert torch.equal(split(table, 0).train_x, split(table, 0).train_x)
    assert not torch.equal(split(table, 0).train_x, split(table, 1).train_x)


def test_scaling_is_fitted_to_the_training_rows_alone():
    data = split(toy(), 3, "unit")
    assert torch.equal(data.train_x.amin(0), torch.zeros(3)) and torch.allclose(data.train_x.amax(0), torch.ones(3))
    far = toy()
    far.x[np.random.default_rng([3, 4]).permutation(50)[:10]] += 1000.0  # the rows of the test
    assert torch.equal(split(far, 3, "unit").train_x, data.train_x)
    data = split(toy(), 3, "standard")
    assert torch.allclose(data.train_x.mean(0), torch.zeros(3), atol=1e-6)
    assert torch.allclose(data.train_x.std(0, correction=0), torch.ones(3), atol=1e-6)


def test_missing_values_become_the_training_mean_and_constant_columns_zero():
    table = toy()
    table.x[:, 1], table.x[7, 0] = 4.0, np.nan
    data = split(table, 0, "standard")
    assert data.train_x.isfinite().all() and (data.train_x[:, 1] == 0).all()
    assert 0.0 in data.train_x[:, 0].abs().round(decimals=6).tolist()


def test_a_measured_table_is_the_networks_trained_alone():
    cells = [{"method": "ERM", "params": {}}, {"method": "Mixup", "params": {"alpha": 1.0}}]

    def method_of(cell, seed):
        return ERM() if cell["method"] == "ERM" else Mixup(**cell["params"], rng=seed)

    how = {"hidden": (8,), "epochs": 4, "batch_size": 16, "progress": False}
    rows = measure(lambda seed: split(toy(seed=1), seed), cells, method_of, range(3), at_once=4, **how)
    assert [(row["method"], row["seed"]) for row in rows] == [(m, s) for m in ("ERM", "Mixup") for s in range(3)]
    for row in rows:
        data = split(toy(seed=1), row["seed"])
        alone = fit_many(data, [method_of(row, row["seed"])], [row["seed"]], **how)
        assert row["error"] == pytest.approx(float(alone.error(data.test_x, data.test_y)), abs=1e-3)


def test_bad_arguments_are_named():
    for argument, call in (
        ("name", lambda: load("wine")),
        ("scaling", lambda: split(toy(), 0, "log")),
        ("held_out", lambda: split(toy(), 0, held_out=1.0)),
    ):
        with pytest.raises(ValueError, match=argument):
            call()
