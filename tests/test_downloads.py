"""Downloads and archives: whole or not there, whatever fails, and the next attempt works."""

import errno
import gc
import hashlib
import io
import os
import stat
import tarfile
import zipfile

import numpy as np
import pytest
from failing_disk import files_limited_to, posix, read_only_folder
from local_server import serve

from mixlab.data.downloads import atomic_write, fetch, one_at_a_time, unpack

CONTENT = np.random.default_rng(0).bytes(100_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with serve() as running:
        running.files["a.bin"] = CONTENT
        yield running


def names(folder):
    return sorted(path.name for path in folder.rglob("*"))


def get(folder, *urls):
    return fetch(folder / "a.bin", list(urls), MD5)


def test_a_download_is_whole_and_is_not_asked_for_twice(site, tmp_path):
    for _ in range(2):
        assert get(tmp_path / "new", site.url("a.bin")).read_bytes() == CONTENT
    assert names(tmp_path / "new") == ["a.bin"] and site.asked == ["a.bin"]
    (tmp_path / "new" / "a.bin").write_bytes(CONTENT[:1000])  # half a file under the whole name
    with pytest.raises(OSError, match=r"a\.bin"):
        get(tmp_path / "new")
    assert get(tmp_path / "new", site.url("a.bin")).read_bytes() == CONTENT


BAD = {
    "busy": {"status": 503},
    "cut": {"content": CONTENT, "cuts": [40_000]},
    "length no number": {"heads": {"Content-Length": "many"}, "content": b"?"},
    "length negative": {"heads": {"Content-Length": "-5"}, "content": b"?"},
    "redirect to no address": {"status": 302, "heads": {"Location": "http://[bad"}, "content": b""},
    "redirect to a disk": {"status": 302, "heads": {"Location": "file:///etc/hostname"}, "content": b""},
    "redirect in a circle": {"status": 302, "heads": {"Location": "/bad.bin"}, "content": b""},
    "another file": {"content": CONTENT[:-1]},
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # urllib leaves odd redirects open
@pytest.mark.parametrize("how", BAD)
def test_a_bad_mirror_does_not_end_the_search_and_is_not_asked_for_ever(site, tmp_path, how):
    for field, value in BAD[how].items():
        {"content": site.files}.get(field, getattr(site, field, None))["bad.bin"] = value
    nameless = ("http://no host/a", "http://:x/a", "nothing")
    assert get(tmp_path, site.url("bad.bin"), *nameless, site.url("a.bin")).read_bytes() == CONTENT
    assert set(site.asked) == {"bad.bin", "a.bin"} and names(tmp_path) == ["a.bin"]
    assert len(site.asked) == 2 or "circle" in how
    gc.collect()


def test_every_failure_is_told_and_leaves_nothing(site, tmp_path):
    site.files["other.bin"] = CONTENT[:-1]
    urls = [site.url("gone"), "http://127.0.0.1:9/a.bin", site.url("other.bin")]
    with pytest.raises(OSError, match="MIXLAB_MIRROR") as caught:
        get(tmp_path, *urls)
    assert all(url in str(caught.value) for url in urls) and names(tmp_path) == []


@posix
def test_a_full_disk_and_a_read_only_folder_are_named(site, tmp_path):
    with files_limited_to(60_000), pytest.raises(OSError, match=r"cannot write .*a\.bin"):
        get(tmp_path, site.url("a.bin"), site.url("a.bin"))
    assert names(tmp_path) == [] and site.asked == ["a.bin"]  # another address would not help
    with read_only_folder() as folder, pytest.raises(PermissionError, match=r"MIXLAB_DATA"):
        get(folder, site.url("a.bin"))


def tar(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if not isinstance(content, bytes):
                (member.type,), member.linkname, content = content, "/etc/passwd", b""
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def zipped(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("pack", [tar, zipped])
def test_an_archive_becomes_the_folder_with_or_without_a_top_folder_of_its_own(tmp_path, pack):
    for top in ("", "set/"):
        folder = tmp_path / f"new{len(top)}" / "set"
        unpack(pack(tmp_path / "archive", {f"{top}one": b"1", f"{top}deep/two": b"2"}), folder)
        assert names(folder.parent) == ["deep", "one", "set", "two"] and (folder / "deep" / "two").read_bytes() == b"2"


@pytest.mark.parametrize("pack", [tar, zipped])
def test_what_leaves_its_folder_is_refused_before_anything_is_written(tmp_path, pack, monkeypatch):
    for kind in (tarfile.TarFile, zipfile.ZipFile):
        monkeypatch.setattr(kind, "extractall", lambda *_: pytest.fail("not all names were looked at first"))
    odd = [{name: b"2"} for name in ("../evil", "a/../../evil", "/evil", "C:/evil", "\\evil")]
    if pack is tar:
        kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)
        odd += [{"odd": (kind,), "odd/passwd": b"1"} for kind in kinds]
    for members in odd:
        with pytest.raises(ValueError, match="archive"):
            unpack(pack(tmp_path / "archive", {"good": b"1", **members}), tmp_path / "set")
        assert names(tmp_path) == ["archive"]


def xz(path, members):
    return tar(path, members, "w:xz")


# what tar.gz can hide from us here, the md5 of the download has told
@pytest.mark.parametrize(("pack", "how"), [(tar, "cut"), (zipped, "cut"), (zipped, "flipped"), (xz, "flipped")])
def test_a_damaged_archive_is_named_and_leaves_nothing(tmp_path, pack, how):
    archive = pack(tmp_path / "archive", {"one": CONTENT, "two": CONTENT[::-1]})
    content = archive.read_bytes()
    middle = len(content) // 2
    rest = b"" if how == "cut" else bytes([content[middle] ^ 1]) + content[middle + 1 :]
    archive.write_bytes(content[:middle] + rest)
    with pytest.raises(ValueError, match="archive"):
        unpack(archive, tmp_path / "set")
    assert names(tmp_path) == ["archive"]


@posix
def test_an_archive_that_does_not_fit_leaves_nothing(tmp_path):
    archive = tar(tmp_path / "archive", {"small": b"1", "large": CONTENT})
    with files_limited_to(60_000), pytest.raises(OSError, match=r"cannot write .*set"):
        unpack(archive, tmp_path / "set")
    assert names(tmp_path) == ["archive"]


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as temporary:
        temporary.write_text("half of the n")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["file"] and path.read_text() == "old"
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert names(tmp_path) == ["file"] and path.read_text() == "new"


def test_a_disk_that_refuses_even_to_delete_does_not_hide_the_reason(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    with pytest.raises(OSError, match=r"No space left"), atomic_write(tmp_path / "file"):
        raise OSError(errno.ENOSPC, "No space left on device")


@posix
def test_the_lock_of_another_user_does_not_block(tmp_path):
    with one_at_a_time(tmp_path):
        assert stat.S_IMODE((tmp_path / ".mixlab.lock").stat().st_mode) == 0o666  # others may hold it too
    with read_only_folder(lambda folder: (folder / ".mixlab.lock").touch(0o600), mode=0o777) as folder:
        with one_at_a_time(folder):
            assert names(folder) == [".mixlab.lock"]


def test_only_our_own_old_leftovers_are_cleared_away(tmp_path):
    (tmp_path / ".set.0123abcd.mixlab").mkdir()
    (tmp_path / ".set.0123abcd.mixlab" / "one").write_text("1")
    for name in (".set.pt.89abcdef.mixlab", ".set.pt.76543210.mixlab", ".mine.89abcdef.tmp", "notes"):
        (tmp_path / name).write_text("half")
    for path in tmp_path.iterdir():
        if "7654" not in path.name:  # another process writes this one just now
            os.utime(path, (0, 0))
    with one_at_a_time(tmp_path):
        assert names(tmp_path) == [".mine.89abcdef.tmp", ".mixlab.lock", ".set.pt.76543210.mixlab", "notes"]
