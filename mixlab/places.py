"""Where things lie: in a checkout of the repository, or, for an installed package, in the user's own folders.

The variable MIXLAB_HOME names another folder for records and caches, and MIXLAB_DATA one for data sets.
"""

import os
import sys
import tempfile
import warnings
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent  # the repository, where this is a checkout of it: `repository()` tells


def repository() -> Path | None:
    """The checkout that this package lies in; None for an installed package, which has no such files beside it."""
    return ROOT if (ROOT / "pyproject.toml").is_file() and (ROOT / "data" / "papers").is_dir() else None


def papers_folder() -> Path:
    """The published numbers: `data/papers`, of which an installed package carries a copy."""
    return ROOT / "data" / "papers" if repository() else PACKAGE / "papers"


def runs_folder() -> Path:
    """Measured results, which are kept."""
    return _home("runs") or (ROOT / "data" / "runs" if repository() else user_folder("data") / "runs")


def cache_folder() -> Path:
    """Downloads, decoded sets and checkpoints, which can be made again; a folder that can be written to."""
    return writable(usual_cache())


def data_folder() -> Path:
    """Where data sets are looked for first: MIXLAB_DATA, or the cache folder."""
    return Path(os.environ.get("MIXLAB_DATA") or usual_cache())


def checkpoints_folder() -> Path:
    """Where unfinished runs wait, with the data sets if that can be written to."""
    return writable(data_folder()) / "checkpoints"


def usual_cache() -> Path:
    """The cache folder as it should be, whether or not it can be written to."""
    return _home("cache") or (ROOT / "data" / "cache" if repository() else user_folder("cache"))


def writable(folder: Path) -> Path:
    """The folder, made if need be; where it cannot be written to, the user's cache folder, with a warning."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as problem:
        instead = user_folder("cache")
        warnings.warn(f"{folder} cannot be written to ({problem.strerror}), so {instead} is used", stacklevel=3)
        instead.mkdir(parents=True, exist_ok=True)
        return instead


def user_folder(kind: str) -> Path:
    """The user's own folder for "data", which is kept, or "cache", as each system has it."""
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "mixlab" / kind
    if sys.platform == "darwin":
        return home / "Library" / {"data": "Application Support", "cache": "Caches"}[kind] / "mixlab"
    variable, usual = {"data": ("XDG_DATA_HOME", ".local/share"), "cache": ("XDG_CACHE_HOME", ".cache")}[kind]
    chosen = os.environ.get(variable, "")
    return (Path(chosen) if os.path.isabs(chosen) else home / usual) / "mixlab"


def _home(part: str) -> Path | None:
    chosen = os.environ.get("MIXLAB_HOME")
    return Path(chosen).expanduser() / part if chosen else None
