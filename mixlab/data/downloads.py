"""Files that are whole or not there: download with a checksum, unpack what cannot do harm, write and rename.

Half a file never carries the name of a whole one. A download grows under `NAME.part` and gets its name when its md5
fits; everything else is written under a hidden temporary name and renamed in the end, which is one step for the disk.
"""

import errno
import gzip
import hashlib
import lzma
import os
import shutil
import sys
import tarfile
import time
import uuid
import zipfile
import zlib
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path, PureWindowsPath
from urllib.error import HTTPError
from urllib.request import Request, urlopen

ATTEMPTS = 3  # in a row that brought nothing new, before an address is given up
PAUSE = 1.0  # seconds before the second attempt, twice that before the third
PATIENCE = 30  # seconds to wait for a server that says nothing
BLOCK = 2**18


class Interrupted(Exception):
    """The network, not the disk, is at fault: another attempt or another address may work."""


def fetch(path: Path | str, urls: list[str], md5: str) -> Path:
    """The file at `path`, whole: as it is if its md5 fits, else from the first of `urls` that gives it.

    What an interrupted download left behind is resumed, where the server can, or begun again.
    """
    path = Path(path)
    complaints = []
    if path.exists():
        if checksum(path) == md5:
            return path
        complaints.append(f"{path} is there, but its md5 is not {md5}")
    part = path.with_name(path.name + ".part")
    with _explained(path):
        part.parent.mkdir(parents=True, exist_ok=True)
    for url in urls:
        complaint = _download(url, part, md5)
        if complaint is None:
            os.replace(part, path)
            return path
        complaints.append(complaint)
    tried = "".join(f"\n  {complaint}" for complaint in complaints)
    remedy = "Put the file there yourself, or name a server that has it in MIXLAB_MIRROR."
    raise OSError(f"cannot get {path}:{tried}\n{remedy}")


def unpack(archive: Path | str, folder: Path | str) -> Path:
    """Unpack a tar or zip archive as `folder`, all of it or nothing. A top folder of the same name is not doubled."""
    archive, folder = Path(archive), Path(folder)
    temporary = _beside(folder)
    try:
        with _explained(folder):
            temporary.mkdir(parents=True)
            _extract(archive, temporary)
            inner = temporary / folder.name
            os.rename(inner if inner.is_dir() else temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


@contextmanager
def whole(path: Path | str):
    """Yields a name to write to. It becomes `path` if the block ends well; if not, nothing is left of it."""
    path = Path(path)
    temporary = _beside(path)
    try:
        with _explained(path):
            yield temporary
            os.replace(temporary, path)
    finally:
        _remove(temporary)


@contextmanager
def alone(folder: Path | str):
    """One process at a time prepares data in `folder`; the others wait, and then find what it made.

    Whoever enters clears away what a killed process left. Without such locks (Windows, some network drives) two
    processes do the same work twice, under names of their own, and nobody is harmed.
    """
    folder = Path(folder)
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    handle = _lock(folder)
    try:
        if handle is not None:
            for leftover in folder.glob(".*.tmp"):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        yield
    finally:
        if handle is not None:
            os.close(handle)  # which also unlocks


def checksum(path: Path | str) -> str:
    """The md5 of a file, as the origins of these data sets publish it: against accidents, not against forgers."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def bar(total: int | None, what: str, quiet: bool = False, **options):
    """A progress bar for a person who looks on, in a terminal or a notebook; silent in logs and CI."""
    from tqdm import tqdm

    watched = sys.stderr.isatty() or "ipykernel" in sys.modules
    options = {"ncols": 79, "desc": os.environ.get("MIXLAB_WORKER", "") + what, **options}
    return tqdm(total=total, disable=quiet or not watched or "CI" in os.environ, **options)


def _download(url: str, part: Path, md5: str) -> str | None:
    """Bring url to `part`, in as many attempts as bring something new. What went wrong, or None."""
    fruitless = 0
    while True:
        before = _size(part)
        try:
            _receive(url, part)
        except Interrupted as problem:
            fruitless = 0 if _size(part) > before else fruitless + 1
            if fruitless == ATTEMPTS:
                return f"{url}: {problem}"
            time.sleep(PAUSE * fruitless)
            continue
        except HTTPError as problem:
            return f"{url}: the server answers {problem.code} {problem.reason}"
        except OSError:
            _remove(part)  # a full disk is not helped by what fills it
            raise
        found = checksum(part)
        if found == md5:
            return None
        part.unlink()
        if not before:
            return f"{url}: the md5 is {found}, not {md5}"
        # The beginning may come from somewhere else: once more, all of it.


def _receive(url: str, part: Path) -> None:
    """Append to `part` what it lacks, or write it anew where the server does not do parts."""
    start = _size(part)
    response = _open(url, start)
    if response is None:
        return
    with response:
        resumed = response.status == 206
        begin = start if resumed else 0
        length = response.headers.get("Content-Length")
        total = begin + int(length) if length else None
        with _explained(part), open(part, "ab" if resumed else "wb") as file:
            with bar(total, part.stem, initial=begin, unit="B", unit_scale=True) as progress:
                for block in _blocks(response):
                    file.write(block)
                    progress.update(len(block))
    if total is not None and _size(part) < total:
        raise Interrupted(f"the connection ended after {_size(part):,} of {total:,} bytes")


def _open(url: str, start: int):
    """The server's answer from byte `start` on, or all of it; None if there is nothing left to send."""
    request = Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urlopen(request, timeout=PATIENCE)
    except HTTPError as problem:
        problem.close()
        if problem.code == 416 and start:
            return None
        if problem.code >= 500:
            raise Interrupted(f"the server answers {problem.code} {problem.reason}") from None
        raise
    except (OSError, HTTPException) as problem:
        raise Interrupted(f"no answer ({problem})") from problem
    if response.status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        response.close()
        raise Interrupted("the server sent another part than the one asked for")
    return response


def _blocks(response):
    while True:
        try:
            block = response.read(BLOCK)
        except (OSError, HTTPException) as problem:
            raise Interrupted(f"the connection broke ({problem})") from problem
        if not block:
            return
        yield block


def _extract(archive: Path, folder: Path) -> None:
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                _check_names(archive, packed.namelist())
                packed.extractall(folder)
        else:
            with tarfile.open(archive) as packed:
                _check_members(archive, packed.getmembers())
                packed.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 and later
                packed.extractall(folder)
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError) as problem:
        raise ValueError(f"{archive} is damaged or cut short ({problem}): delete it and get it again") from problem


def _check_members(archive: Path, members: list[tarfile.TarInfo]) -> None:
    _check_names(archive, [member.name for member in members])
    for member in members:
        if not (member.isfile() or member.isdir()):
            raise ValueError(f"{archive} holds {member.name!r}, a link or a device: nothing was unpacked")


def _check_names(archive: Path, names: list[str]) -> None:
    for name in names:
        path = PureWindowsPath(name)  # knows both slashes and drive letters
        if path.drive or path.root or ".." in path.parts:
            raise ValueError(f"{archive} would write outside of its folder, to {name!r}: nothing was unpacked")


@contextmanager
def _explained(path: Path):
    """Turn the disk's complaint into a sentence that says what to do; its errno stays."""
    try:
        yield
    except OSError as problem:
        reason = problem.strerror or problem
        remedy = "name another folder with root= or MIXLAB_DATA"
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = f"make room, or {remedy}"
        raise OSError(problem.errno, f"cannot write {path} ({reason}): {remedy}") from problem


def _lock(folder: Path) -> int | None:
    """A handle that holds the lock on a folder, or None where there are no such locks."""
    try:
        import fcntl
    except ImportError:
        return None
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that prepares data in {folder}", file=sys.stderr)
            fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:
        os.close(handle)
        return None
    return handle


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def _remove(path: Path) -> None:
    """Delete what may not be there. A read-only disk refuses even that, and must not hide why the writing failed."""
    with suppress(OSError):
        path.unlink()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
