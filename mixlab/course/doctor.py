"""python -m mixlab doctor: everything a reader may trip over, one line each, with what to do about it.

It needs nothing but Python, so that it can say that PyTorch is missing.
"""

import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mixlab import places
from mixlab.course.scales import SCALES

Finding = tuple[str, str, str | None]  # what, what was found, None or what to do about it
MODULES = {"scikit-learn": "sklearn"}  # packages that are imported under another name
LEAST = 1  # GiB of free disk


def examine() -> int:
    """Print the findings; 0 if the course can run here, 1 if not."""
    failed = 0
    for what, found, remedy in findings():
        failed += remedy is not None
        print(f"{what:12} {found:46} {'ok' if remedy is None else remedy}")
    print("the course can run here" if not failed else f"the course cannot run yet: {failed} to mend")
    return int(failed > 0)


def findings() -> Iterator[Finding]:
    """Everything that is looked at, in order."""
    old = "mixlab needs Python 3.11 or newer"
    yield "Python", platform.python_version(), None if sys.version_info >= (3, 11) else old
    for name, least in requirements():
        yield package(name, least)
    yield kernel()
    yield from processors()
    yield from folders()
    yield "lessons", str(places.repository() or "not here: they come with the repository"), None
    chosen = os.environ.get("MIXLAB_SCALE")
    wrong = None if chosen in (None, "", *SCALES) else f"set MIXLAB_SCALE to one of {', '.join(SCALES)}, or unset it"
    yield "scale", f"{chosen} (MIXLAB_SCALE)" if chosen else "quick", wrong


def requirements() -> list[tuple[str, str]]:
    """(package, least version) of what the module and its notebooks need, as the installed mixlab says."""
    try:
        listed = importlib.metadata.requires("mixlab") or []
    except importlib.metadata.PackageNotFoundError:
        import tomllib  # an older Python has none, and is to hear so

        project = tomllib.loads((places.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        listed = project["dependencies"] + project["optional-dependencies"]["jupyter"]
    needed = [line for line in listed if "extra ==" not in line or re.search("extra == .jupyter", line)]
    return [match.groups() for line in needed if (match := re.match(r"([\w.-]+)\s*>=\s*([\d.]+)", line))]


def package(name: str, least: str) -> Finding:
    """Is it there, new enough, and does it import? (torch and torchvision of different builds install, then break.)"""
    pip = f"{sys.executable} -m pip install"
    try:
        found = importlib.metadata.version(name)
        if _numbers(found) < _numbers(least):
            return name, found, f"{least} or newer is needed: {pip} -U '{name}>={least}'"
        importlib.import_module(MODULES.get(name, name))
    except importlib.metadata.PackageNotFoundError:
        return name, "missing", f"install {name}: {pip} '{name}>={least}'"
    except Exception as problem:  # whatever a broken build raises
        return name, f"{found}, does not import", f"{problem}: {pip} --force-reinstall torch torchvision {name}"
    return name, found, None


def kernel() -> Finding:
    """Does Jupyter start the Python that mixlab lives in?"""
    try:
        from jupyter_client.kernelspec import KernelSpecManager

        python = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except Exception as problem:  # not installed, or no such kernel
        return "kernel", f"none ({type(problem).__name__})", f"{sys.executable} -m pip install jupyterlab ipywidgets"
    same = os.path.realpath(shutil.which(python) or python) == os.path.realpath(sys.executable)
    here = same or not os.path.isabs(python)
    remedy = f"it starts another Python, mend it with: {sys.executable} -m ipykernel install --sys-prefix"
    return "kernel", "python3", None if here else remedy


def processors() -> Iterator[Finding]:
    """CPU and GPU, and the precision they train in. A GPU that is there and cannot be used is a failure."""
    try:
        import torch

        from mixlab.training.device import best_precision, gpu_problem
    except Exception:  # said before
        return
    yield "CPU", f"{os.cpu_count()} cores, {best_precision()}", None
    if problem := gpu_problem():
        yield "GPU", "not used", f"THE GPU IS NOT USED: {problem}"
    elif not torch.cuda.is_available():
        yield "GPU", "none: quick scale runs on the CPU", None
    else:
        facts, remedy = torch.cuda.get_device_properties(0), None
        found = f"{torch.cuda.device_count()} x {facts.name}, {facts.total_memory / 2**30:.0f} GiB"
        try:
            torch.ones(2, device="cuda").sum().item()
        except RuntimeError as problem:
            remedy = f"THE GPU CANNOT BE USED: {str(problem).splitlines()[0]}"
        yield "GPU", f"{found}, {best_precision('cuda')}", remedy


def folders() -> Iterator[Finding]:
    """Can data and results be kept, are the published numbers there, and is there room?"""
    given, cache = os.environ.get("MIXLAB_DATA"), places.usual_cache()
    if given and not os.path.isdir(given):
        yield "data", "MIXLAB_DATA is set", f"there is no folder {given}: make it, or unset MIXLAB_DATA"
    for what, folder in (("cache", cache), ("records", places.runs_folder())):
        yield what, str(folder), _unwritable(folder)
    papers = len(list(places.papers_folder().glob("*.json")))
    yield "papers", f"{papers} files of published numbers", None if papers else "install mixlab again: they are gone"
    free = shutil.disk_usage(_existing(cache)).free / 2**30
    yield "free disk", f"{free:.0f} GiB", None if free >= LEAST else f"make room: at least {LEAST} GiB is needed"


def _unwritable(folder: Path) -> str | None:
    """None if a file can be written there, else what to do. The folder itself may be made later."""
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):
            return None
    except OSError as problem:
        return f"cannot be written to ({problem.strerror}): name another folder in MIXLAB_HOME"


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.absolute().parents) if place.is_dir())


def _numbers(version: str) -> tuple[int, ...]:
    """2.6.0+cpu -> (2, 6, 0): enough to tell an older release from a newer one."""
    return tuple(int(part) for part in version.split("+")[0].split(".") if part.isdigit())
