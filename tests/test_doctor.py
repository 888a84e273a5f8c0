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


def line(text, what):
    return re.search(rf"^{what} .*", text, re.M).group()


def test_all_is_well_where_the_course_runs(said, monkeypatch):
    monkeypatch.setattr(device, "gpu_problem", lambda: None)
    status, text = said()
    assert status == 0
    for what in ("Python", "torch", "torchvision", "kernel", "CPU", "GPU", "cache", "records", "free disk", "scale"):
        assert line(text, what).endswith(" ok"), what


def test_it_needs_nothing_but_python_to_say_that_torch_is_missing():
    result = subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True)
    assert result.returncode == 1 and not result.stderr, result.stderr
    assert re.search(r"^torch +missing +install torch: .* -m pip install 'torch>=[\d.]+'$", result.stdout, re.M)
    assert re.search(r"^scipy .*does not import", result.stdout, re.M)


def test_a_variable_that_leads_nowhere_is_named(said, monkeypatch):
    monkeypatch.setenv("MIXLAB_SCALE", "huge")
    monkeypatch.setenv("MIXLAB_DATA", "/no/such")
    status, text = said()
    assert status == 1 and "quick, full" in line(text, "scale") and "/no/such" in line(text, "data")


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


def gpu():
    return [finding for finding in doctor.processors() if finding[0] == "GPU"]


def test_a_gpu_that_is_there_and_not_used_is_loud(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(device, "gpu_problem", lambda: "its driver is too old")
    ((_, _, remedy),) = gpu()
    assert "NOT USED" in remedy and "its driver is too old" in remedy
    monkeypatch.setattr(device, "gpu_problem", lambda: None)
    assert gpu()[0][2] is None, "no GPU is no failure"


def test_a_gpu_says_its_precision_and_whether_it_works(monkeypatch):
    facts = SimpleNamespace(name="NVIDIA T4", total_memory=16 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: facts)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch, "ones", lambda *_, **__: torch.zeros(1))
    assert gpu() == [("GPU", "1 x NVIDIA T4, 16 GiB, float32", None)]

    def broken(*_, **__):
        raise RuntimeError("CUDA error: out of memory\nmore")

    monkeypatch.setattr(torch, "ones", broken)
    assert gpu()[0][2].endswith("CUDA error: out of memory")


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(places, "usual_cache", lambda: tmp_path / "new" / "cache")
    monkeypatch.setattr(places, "runs_folder", lambda: tmp_path)
    assert [finding[2] for finding in doctor.folders()] == [None, None, None] and not (tmp_path / "new").exists()

    def full(dir):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", full)
    assert "No space left" in next(doctor.folders())[2]


def test_outside_the_repository_it_says_where_the_lessons_are_and_whether_the_numbers_came_along(monkeypatch, tmp_path):
    monkeypatch.setattr(places, "repository", lambda: None)
    monkeypatch.setattr(places, "papers_folder", lambda: tmp_path)
    (_, _, remedy), (_, found, none) = doctor.lessons()
    assert "install mixlab again" in remedy and found == "not here: they come with the repository" and none is None
