"""Disks that fail for real: a limit on the size of a file, folders that may not be written to or read."""

import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

NOBODY = 65534
posix = pytest.mark.skipif(sys.platform == "win32", reason="limits, rights and pipes of POSIX systems")


@contextmanager
def files_limited_to(size: int):
    """Within, no file of this process grows beyond `size` bytes: the write fails, as it does on a full disk."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def somebody():
    """Within, the superuser, whom no right stops, is somebody else."""
    superuser = os.geteuid() == 0
    try:
        if superuser:
            os.seteuid(NOBODY)
        yield
    finally:
        if superuser:
            os.seteuid(0)


@contextmanager
def read_only_folder(fill=lambda folder: None, mode=0o555):
    """A folder that `fill` has filled and nobody may write to (or whatever the mode says)."""
    folder = Path(tempfile.mkdtemp(prefix="mixlab-test-"))
    try:
        fill(folder)
        folder.chmod(mode)
        with somebody():
            yield folder
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


@contextmanager
def unreadable(folder: Path):
    """Within, nobody may look into the folder, but everybody may pass through those above it."""
    modes = {p: p.stat().st_mode for p in (folder, *folder.parents) if p == folder or not p.stat().st_mode & 0o001}
    try:
        for p, mode in modes.items():
            p.chmod(0 if p == folder else mode | 0o111)
        with somebody():
            yield
    finally:
        for p, mode in modes.items():
            p.chmod(mode)
