"""Disks that fail for real: a limit on the size of a file, and a folder that may not be written to."""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


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
def read_only_folder(fill=lambda folder: None):
    """A folder that `fill` has filled and nobody may write to; the superuser is somebody else for as long."""
    folder = Path(tempfile.mkdtemp(prefix="mixlab-test-"))
    superuser = os.geteuid() == 0
    try:
        fill(folder)
        folder.chmod(0o555)
        if superuser:
            os.seteuid(NOBODY)
        yield folder
    finally:
        if superuser:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)
