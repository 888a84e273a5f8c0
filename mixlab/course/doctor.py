"""python -m mixlab doctor: everything a reader may trip over, one line each, with what to do about it.

It needs nothing but Python, so that it can say that PyTorch is missing.
"""

import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from mixlab import places
from mixlab.course.scales import scale

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
    version = platform.python_version()
    yield "Python", version, None if sys.version_info >= (3, 11) else "mixlab needs Python 3.11 or newer"
    for name, least in requirements():
        yield package(name, least)
    yield kernel()
    yield from processors()
    yield from folders()
    yield from lessons()
    yield chosen_scale()


def requirements() -> list[tuple[str, str]]:
    """(package, least version) of what the module and its notebooks need, as the installed mixlab says."""
    try:
        listed = importlib.metadata.requires("mixlab") or []
    except importlib.metadata.PackageNotFoundError:
        import tomllib

        project = tomllib.loads((places.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        listed = project["dependencies"] + project["optional-dependencies"]["jupyter"]
    found = [
        re.match(r"([\w.-]+)\s*>=\s*([\d.]+)", line) for line in listed if not re.search("extra == .(test|bench)", line)
    ]
    return [match.groups() for match in found if match]


def package(name: str, least: str) -> Finding:
    """Is it there, new enough, and does it import? (torch and torchvision of different builds install, then break.)"""
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return name, "missing", f"install {name}: {sys.executable} -m pip install '{name}>={least}'"
    if _numbers(found) < _numbers(least):
        return name, found, f"{least} or newer is needed: {sys.executable} -m pip install -U '{name}>={least}'"
    try:
        importlib.import_module(MODULES.get(name, name))
    except Exception as problem:  # whatever a broken build raises
        return name, f"{found}, does not import", f"{problem}: pip install --force-reinstall torch torchvision {name}"
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
    """CPU and GPU, and whether they compute in bf16. A GPU that is there and cannot be used is a failure."""
    yield "CPU", f"{os.cpu_count()} cores, bf16: {'yes' if _cpu_has_bf16() else 'no'}", None
    driver = _driver()
    try:
        import torch
    except Exception:  # said before
        yield "GPU", driver or "none", None
        return
    with warnings.catch_warnings(record=True) as said:
        usable = torch.cuda.is_available()  # a driver that is too old makes it warn
    if not usable:
        why = f"torch {torch.__version__} was built without CUDA" if torch.version.cuda is None else "update the driver"
        remedy = f"THE GPU IS NOT USED, all would run on the CPU: {said[0].message if said else why}"
        yield "GPU", driver or "none: quick scale runs on the CPU", remedy if driver else None
        return
    facts = torch.cuda.get_device_properties(0)
    bf16 = "yes" if facts.major >= 8 else "no"
    found = f"{torch.cuda.device_count()} x {facts.name}, {facts.total_memory / 2**30:.0f} GiB, bf16: {bf16}"
    try:
        torch.ones(2, device="cuda").sum().item()
        yield "GPU", found, None
    except RuntimeError as problem:
        yield "GPU", found, f"THE GPU CANNOT BE USED: {str(problem).splitlines()[0]}"


def folders() -> Iterator[Finding]:
    """Can data and results be kept, and is there room?"""
    given = os.environ.get("MIXLAB_DATA")
    if given and not os.path.isdir(given):
        yield "data", "MIXLAB_DATA is set", f"there is no folder {given}: make it, or unset MIXLAB_DATA"
    for what, folder in (("cache", places.usual_cache()), ("records", places.runs_folder())):
        yield what, str(folder), _unwritable(folder)
    free = shutil.disk_usage(_existing(places.usual_cache())).free / 2**30
    yield "free disk", f"{free:.0f} GiB", None if free >= LEAST else f"make room: at least {LEAST} GiB is needed"


def lessons() -> Iterator[Finding]:
    """Where the published numbers and the notebooks are."""
    found = len(list(places.papers_folder().glob("*.json")))
    yield (
        "papers",
        f"{found} files of published numbers",
        None if found else "install mixlab again: its numbers are gone",
    )
    yield "lessons", str(places.repository() or "not here: they come with the repository"), None


def chosen_scale() -> Finding:
    """quick or full."""
    try:
        return "scale", scale("quick") + (" (MIXLAB_SCALE)" if os.environ.get("MIXLAB_SCALE") else ""), None
    except ValueError as problem:
        return "scale", os.environ["MIXLAB_SCALE"], str(problem)


def _cpu_has_bf16() -> bool:
    """As the system describes the processor; where it does not, no."""
    try:
        if sys.platform == "darwin":
            told = subprocess.run(["sysctl", "hw.optional.arm.FEAT_BF16"], capture_output=True, text=True).stdout
            return told.strip().endswith("1")
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
        return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})
    except OSError:
        return False


def _driver() -> str | None:
    """The first NVIDIA GPU, as its driver names it; None without a driver."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if listed.returncode:
        return "the NVIDIA driver does not answer" if Path("/dev/nvidia0").exists() else None
    return listed.stdout.splitlines()[0].split(" (UUID")[0] if listed.stdout.strip() else None


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
