"""Files that are whole or not there: downloaded with a checksum, unpacked, written and renamed.

Everything grows under a hidden name of its own, `.NAME.….mixlab`, and is renamed in the end, which is one step for the
disk. So two processes at once do no harm; a lock only spares the second one the work.
"""

import errno
import os
import shutil
import sys
import tarfile
import time
import uuid
import zipfile
from contextlib import contextmanager, suppress
from pathlib import Path, PureWindowsPath
from urllib.request import urlopen

from filelock import FileLock

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)  # not the network's fault


def fetch(path: Path, urls: list[str], md5: str) -> Path:
    """The file at `path`: as it is if its md5 fits, else from the first of `urls` that gives it; each is asked once.

    torchvision checks the md5. Its download waits for ever for a server that says nothing, so it is not used.
    """
    from torchvision.datasets.utils import check_integrity

    if check_integrity(path, md5):
        return path
    complaints = [f"{path} is there, but its md5 is not {md5}"] if path.exists() else []
    with atomic_write(path) as temporary:
        clear_leftovers(path.parent)
        for url in urls:
            try:
                _download(url, temporary)
                if check_integrity(temporary, md5):
                    return path
                complaints.append(f"{url}: its md5 is not {md5}")
            except Exception as problem:  # a bad name, redirect or length has many kinds
                if getattr(problem, "errno", None) in DISK:
                    raise
                complaints.append(f"{url}: no good answer ({problem})")
        remedy = "Try again, put the file there yourself, or name a server that has it in MIXLAB_MIRROR."
        raise OSError("\n".join([f"cannot get {path}:", *complaints, remedy]))


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a tar or zip archive as `folder`, all of it or nothing. A top folder of the same name is not doubled."""
    with _beside(folder) as temporary:
        temporary.mkdir()
        _extract(archive, temporary)
        inner = temporary / folder.name
        if not folder.is_dir():  # else another process was quicker
            os.rename(inner if inner.is_dir() else temporary, folder)
    return folder


@contextmanager
def atomic_write(path: Path | str):
    """Yields a name to write to. It becomes `path` if the block ends well; if not, nothing is left of it."""
    with _beside(Path(path)) as temporary:
        yield temporary
        os.replace(temporary, path)


@contextmanager
def one_at_a_time(folder: Path):
    """One process at a time prepares data in `folder`; the others wait, and then find what it made.

    Where there can be no lock (another user left it, a network drive has none) both do the work.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".mixlab.lock", mode=0o666)
    try:
        lock.acquire()
    except (OSError, NotImplementedError):
        if not can_write(folder):
            raise
    try:
        clear_leftovers(folder)
        yield
    finally:
        lock.release()


def can_write(folder: Path) -> bool:
    """May this user make files in the folder?"""
    return os.access(folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def clear_leftovers(folder: Path) -> None:
    """Delete our own temporary files that a killed process left behind a day ago or longer."""
    for leftover in folder.glob(".*.????????.mixlab"):
        with suppress(FileNotFoundError):
            if leftover.lstat().st_mtime < time.time() - 24 * 3600:
                _remove(leftover)


def bar(total: int | None, what: str, quiet: bool = False, **options):
    """A progress bar for a person who looks on, in a terminal or a notebook; silent in logs and CI."""
    from tqdm import tqdm

    watched = sys.stderr.isatty() or "ipykernel" in sys.modules
    options = {"ncols": 79, "desc": os.environ.get("MIXLAB_WORKER", "") + what, **options}
    return tqdm(total=total, disable=quiet or not watched or "CI" in os.environ, **options)


def _download(url: str, path: Path) -> None:
    with urlopen(url, timeout=30) as answer, open(path, "wb") as file:
        with bar(answer.length, Path(url).name, unit="B", unit_scale=True) as progress:
            while block := answer.read(2**18):
                progress.update(file.write(block))


def _extract(archive: Path, folder: Path) -> None:
    """torchvision and shutil would do it, but drop or rename what they find odd; here it is refused."""
    zipped = zipfile.is_zipfile(archive)
    try:
        with (zipfile.ZipFile if zipped else tarfile.open)(archive) as packed:
            for member in packed.infolist() if zipped else packed:
                name, plain = (member.filename, True) if zipped else (member.name, member.isfile() or member.isdir())
                path = PureWindowsPath(name)  # knows both slashes and drive letters
                if path.drive or path.root or ".." in path.parts or not plain:
                    raise ValueError(f"{archive} holds {name!r}, a link or a path out of its folder: not unpacked")
            packed.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 and later
            packed.extractall(folder)
    except Exception as problem:  # each way to compress has its own kind
        if isinstance(problem, ValueError) or getattr(problem, "errno", None) is not None:
            raise  # ours, or the disk's
        raise ValueError(f"{archive} is damaged or cut short ({problem}): delete it and get it again") from problem


@contextmanager
def _beside(path: Path):
    """Yields a hidden name beside `path`; nothing is left of it in the end. What the disk says becomes a sentence."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.mixlab")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
    except OSError as problem:
        if problem.errno is None:
            raise  # ours
        remedy = "make room, or name another folder with root= or MIXLAB_DATA"
        raise OSError(problem.errno, f"cannot write {path} ({problem.strerror}): {remedy}") from problem
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    """Delete what may not be there. A read-only disk refuses even that, and must not hide why the writing failed."""
    shutil.rmtree(path, ignore_errors=True)  # if it is a folder
    with suppress(OSError):
        path.unlink()
