"""The doctor: says ok or what to do, for every line, and needs nothing but Python to say so."""

import importlib.metadata
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from mixlab import places
from mixlab.course import doctor
from mixlab.places import ROOT
from mixlab.training import device

# As on a machine where nothing is installed: the package's own __init__ is left out, and these cannot be imported.
BARE = f"""
import sys, types
for name in ("torch", "numpy", "torchvision", "scipy", "sklearn", "matplotlib", "tqdm", "jupyterlab", "jupyter_client"):
    sys.modules[name] = None
package = types.ModuleType("mixlab")
package.__path__ = [{str(ROOT / "mixlab")!r}]
sys.modules["mixlab"] = package
import importlib.metadata as metadata
real = metadata.version
def version(name):
    if name == "torch":
        raise metadata.PackageNotFoundError(name)
    return real(name)
metadata.version = version
from mixlab.course.doctor import examine
sys.exit(examine())
"""


@pytest.fixture
def said(monkeypatch, capsys):
    """examine() with the heavy imports left out: (exit status, what it printed)."""
    monkeypatch.setattr(doctor.importlib, "import_module", lambda name: None)

    def examine():
        return doctor.examine(), capsys.readouterr().out

    return examine


def test_all_is_well_where_the_course_runs(said, monkeypatch):
    monkeypatch.setattr(device, "gpu_problem", lambda: None)
    status, text = said()
    assert status == 0
    assert all(line.endswith(" ok") for line in text.splitlines()[:-1]) and len(text.splitlines()) > 15


def test_it_needs_nothing_but_python_to_say_that_torch_is_missing():
    result = subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True)
    assert result.returncode == 1 and not result.stderr, result.stderr
    assert re.search(r"^torch +missing +install torch: .* -m pip install 'torch>=[\d.]+'$", result.stdout, re.M)
    assert re.search(r"^scipy .*does not import", result.stdout, re.M)


def test_a_variable_that_leads_nowhere_is_named(said, monkeypatch):
    monkeypatch.setenv("MIXLAB_SCALE", "huge")
    monkeypatch.setenv("MIXLAB_DATA", "/no/such")
    status, text = said()
    assert status == 1 and re.search("^scale .*quick, full", text, re.M) and re.search("^data .*/no/such", text, re.M)


def test_an_old_package_and_a_broken_one_are_told_apart(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.0.1+cpu")
    assert "2.6 or newer" in doctor.package("torch", "2.6")[2] and doctor.package("torch", "2.0.1")[2] is None
    monkeypatch.setattr(doctor.importlib, "import_module", lambda name: 1 / 0)
    assert "division by zero" in doctor.package("torch", "2.0")[2]


def test_requirements_come_from_the_installed_package_or_from_its_sources(monkeypatch):
    listed = ["torch>=2.6", 'jupyterlab>=4.1; extra == "jupyter"', 'pytest>=8; extra == "test"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: listed)
    assert doctor.requirements() == [("torch", "2.6"), ("jupyterlab", "4.1")]

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", missing)
    assert {"torch", "jupyterlab"} <= {name for name, _ in doctor.requirements()}


def test_a_gpu_that_is_there_and_not_used_is_loud_and_one_that_works_says_its_precision(monkeypatch):
    def gpu():
        return next(finding for finding in doctor.processors() if finding[0] == "GPU")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for problem in (None, "its driver is too old"):
        monkeypatch.setattr(device, "gpu_problem", lambda problem=problem: problem)
        assert gpu()[2] == (problem and f"THE GPU IS NOT USED: {problem}"), "no GPU is no failure"
    facts = SimpleNamespace(name="NVIDIA T4", total_memory=16 * 2**30)
    answers = {"is_available": True, "device_count": 1, "get_device_properties": facts, "get_device_capability": (7, 5)}
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
    monkeypatch.setattr(device, "gpu_problem", lambda: None)
    monkeypatch.setattr(torch, "ones", lambda *_, **__: torch.zeros(1))
    assert gpu() == ("GPU", "1 x NVIDIA T4, 16 GiB, float32", None)

    def broken(*_, **__):
        raise RuntimeError("CUDA error: out of memory\nmore")

    monkeypatch.setattr(torch, "ones", broken)
    assert gpu()[2].endswith("CUDA error: out of memory")


def test_a_folder_that_cannot_be_written_to_and_numbers_that_are_gone_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "usual_cache", lambda: tmp_path / "new" / "cache")
    monkeypatch.setattr(places, "runs_folder", lambda: tmp_path)
    assert [finding[2] for finding in doctor.folders()] == [None] * 4 and not (tmp_path / "new").exists()

    def full(dir):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", full)
    monkeypatch.setattr(places, "papers_folder", lambda: tmp_path)
    remedies = {what: remedy for what, _, remedy in doctor.folders() if remedy}
    assert set(remedies) == {"cache", "records", "papers"} and "No space left" in remedies["cache"]
