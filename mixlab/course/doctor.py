"""python -m mixlab doctor: everything a reader may trip over, one line each, with what to do about it."""

import importlib
import importlib.metadata
import os
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from mixlab.course.scales import scale
from mixlab.places import ROOT
from mixlab.results.papers import names

INSTALL = "run: make notebooks (it installs), or pip install -e '.[jupyter,test]'"


def examine() -> int:
    """Print the findings; 0 if the course can run here, 1 if not."""
    failed = 0
    for what, found, remedy in _findings():
        failed += remedy is not None
        print(f"{what:14} {found:44} {'ok' if remedy is None else remedy}")
    print("the course can run here" if not failed else f"the course cannot run yet: {failed} to mend")
    return int(failed > 0)


def _findings() -> Iterator[tuple[str, str, str | None]]:
    """(what, what was found, None or what to do about it)"""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version = ".".join(map(str, sys.version_info[:3]))
    yield "Python", version, None if sys.version_info >= (3, 11) else "mixlab needs Python 3.11 or newer"
    for requirement in project["dependencies"] + project["optional-dependencies"]["jupyter"]:
        yield _package(requirement)
    yield _kernel()
    yield _gpu()
    yield _disk()
    found = len(names())
    yield "papers", f"{found} files in data/papers", None if found else "none found: clone the repository again"
    yield _data()
    yield _scale()


def _package(requirement: str) -> tuple[str, str, str | None]:
    """Is it there, new enough, and does it import? (torch and torchvision of different builds install, then break.)"""
    name, least = requirement.split(">=")
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return name, "missing", INSTALL
    if _numbers(found) < _numbers(least):
        return name, found, f"{least} or newer is needed: pip install -U '{requirement}'"
    try:
        importlib.import_module({"scikit-learn": "sklearn"}.get(name, name))
    except Exception as problem:  # whatever a broken build raises
        return name, f"{found}, does not import", f"{problem}: pip install --force-reinstall torch torchvision {name}"
    return name, found, None


def _kernel() -> tuple[str, str, str | None]:
    try:
        from jupyter_client.kernelspec import KernelSpecManager

        python = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except Exception as problem:  # not installed, or no such kernel
        return "kernel", f"none ({type(problem).__name__})", INSTALL
    same = os.path.realpath(shutil.which(python) or python) == os.path.realpath(sys.executable)
    here = same or not os.path.isabs(python)
    remedy = f"it starts another Python, mend it with: {sys.executable} -m ipykernel install --sys-prefix"
    return "kernel", "python3", None if here else remedy


def _gpu() -> tuple[str, str, str | None]:
    import torch

    if not torch.cuda.is_available():
        return "GPU", "none: quick scale runs on the CPU", None
    facts = torch.cuda.get_device_properties(0)
    return "GPU", f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB", None


def _disk() -> tuple[str, str, str | None]:
    free = shutil.disk_usage(ROOT).free / 2**30
    return "free disk", f"{free:.0f} GiB", None if free >= 1 else "make room: at least 1 GiB is needed"


def _data() -> tuple[str, str, str | None]:
    """Where data sets are looked for; quick scale needs none of them."""
    folder = os.environ.get("MIXLAB_DATA")
    if folder and not os.path.isdir(folder):
        return "data", "MIXLAB_DATA is set", f"there is no folder {folder}: make it, or unset MIXLAB_DATA"
    sets = sorted(path.name for path in Path(folder or ROOT / "data" / "cache").glob("*"))
    where = "MIXLAB_DATA" if folder else "data/cache"
    return "data", f"{where}: {', '.join(sets[:4]) or 'empty'}{', …' * (len(sets) > 4)} (quick needs none)", None


def _scale() -> tuple[str, str, str | None]:
    try:
        return "scale", scale("quick") + (" (MIXLAB_SCALE)" if os.environ.get("MIXLAB_SCALE") else ""), None
    except ValueError as problem:
        return "scale", os.environ["MIXLAB_SCALE"], str(problem)


def _numbers(version: str) -> tuple[int, ...]:
    """2.6.0+cpu -> (2, 6, 0): enough to tell an older release from a newer one."""
    return tuple(int(part) for part in version.split("+")[0].split(".") if part.isdigit())
