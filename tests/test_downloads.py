"""Downloads and archives: whole or not there, whatever fails, and the next attempt works."""

import errno
import hashlib
import io
import os
import sys
import tarfile
import threading
import time
import zipfile

import numpy as np
import pytest
from failing_disk import files_limited_to, read_only_folder
from local_server import serve

from mixlab.data import downloads
from mixlab.data.downloads import alone, fetch, unpack, whole

CONTENT = np.random.default_rng(0).bytes(700_000)
posix = pytest.mark.skipif(sys.platform == "win32", reason="limits and locks of POSIX systems")


def md5(content):
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(downloads, "PAUSE", 0)
    monkeypatch.setenv("no_proxy", "*")
    with serve() as running:
        running.files["a.bin"] = CONTENT
        yield running


def names(folder):
    return sorted(path.name for path in folder.rglob("*"))


def get(site, folder, content=CONTENT):
    return fetch(folder / "a.bin", [site.url("a.bin")], md5(content))


def test_a_download_is_whole_and_is_not_asked_for_twice(site, tmp_path):
    for _ in range(2):
        assert get(site, tmp_path / "new").read_bytes() == CONTENT
    assert names(tmp_path / "new") == ["a.bin"]
    assert site.asked == [("a.bin", None)]


def test_a_connection_cut_in_the_middle_is_resumed_where_it_broke(site, tmp_path):
    site.cuts["a.bin"] = [300_000, 150_000, 1, 1, 1]
    assert get(site, tmp_path).read_bytes() == CONTENT
    begins = [wanted and int(wanted[6:-1]) for _, wanted in site.asked]
    assert begins == [None, 300_000, 450_000, 450_001, 450_002, 450_003]


def test_what_a_killed_process_left_is_resumed(site, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:123_456])
    assert get(site, tmp_path).read_bytes() == CONTENT
    assert site.asked == [("a.bin", "bytes=123456-")]
    assert names(tmp_path) == ["a.bin"]


def test_a_complete_part_only_needs_its_name(site, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    assert get(site, tmp_path).read_bytes() == CONTENT
    assert len(site.asked) == 1


def test_a_server_without_ranges_is_asked_for_all_of_it_again(site, tmp_path):
    site.ranges, site.cuts["a.bin"] = False, [300_000]
    assert get(site, tmp_path).read_bytes() == CONTENT


def test_the_beginning_of_another_file_is_not_kept(site, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(b"something else")
    assert get(site, tmp_path).read_bytes() == CONTENT
    assert [wanted for _, wanted in site.asked] == ["bytes=14-", None]


def test_a_download_that_never_ends_well_is_refused_and_the_next_attempt_works(site, tmp_path):
    site.ranges, site.cuts["a.bin"] = False, [300_000] * 9
    with pytest.raises(OSError, match="the connection ended after 300,000 of 700,000 bytes") as caught:
        get(site, tmp_path)
    assert "MIXLAB_MIRROR" in str(caught.value)
    assert not (tmp_path / "a.bin").exists()
    site.cuts.clear()
    assert get(site, tmp_path).read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused_with_both_and_leaves_nothing(site, tmp_path):
    site.files["a.bin"] = CONTENT[:-1]
    with pytest.raises(OSError, match=f"md5 is {md5(CONTENT[:-1])}, not {md5(CONTENT)}"):
        get(site, tmp_path)
    assert names(tmp_path) == []
    site.files["a.bin"] = CONTENT
    assert get(site, tmp_path).read_bytes() == CONTENT


def test_half_a_file_under_the_whole_name_is_replaced_or_named(site, tmp_path):
    (tmp_path / "a.bin").write_bytes(CONTENT[:1000])
    with pytest.raises(OSError, match=r"a\.bin is there, but its md5 is not"):
        fetch(tmp_path / "a.bin", [site.url("gone")], md5(CONTENT))
    assert get(site, tmp_path).read_bytes() == CONTENT


def test_addresses_are_tried_in_order_and_each_failure_is_told(site, tmp_path):
    site.status["busy"] = 503
    gone, busy, nobody = site.url("gone"), site.url("busy"), "http://127.0.0.1:9/a.bin"
    with pytest.raises(OSError, match="404") as caught:
        fetch(tmp_path / "a.bin", [gone, busy, nobody], md5(CONTENT))
    assert all(url in str(caught.value) for url in (gone, busy, nobody))
    assert [path for path, _ in site.asked] == ["gone", "busy", "busy", "busy"]  # no use in asking twice for a 404
    assert fetch(tmp_path / "a.bin", [gone, site.url("a.bin")], md5(CONTENT)).read_bytes() == CONTENT


@posix
def test_a_full_disk_is_named_and_left_as_it_was(site, tmp_path):
    with files_limited_to(400_000), pytest.raises(OSError, match=r"cannot write .*a\.bin"):
        get(site, tmp_path)
    assert names(tmp_path) == []
    assert get(site, tmp_path).read_bytes() == CONTENT


@posix
def test_a_read_only_folder_is_named(site):
    with read_only_folder() as folder, pytest.raises(PermissionError, match=r"cannot write .* root= or MIXLAB_DATA"):
        get(site, folder)


def tar(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if content is None:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            member.size = len(content or b"")
            archive.addfile(member, io.BytesIO(content or b""))
    return path


def zipped(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("pack", [tar, zipped])
@pytest.mark.parametrize("top", ["", "set/"])
def test_an_archive_becomes_the_folder_with_or_without_a_top_folder_of_its_own(tmp_path, pack, top):
    archive = pack(tmp_path / "archive", {f"{top}one": b"1", f"{top}deep/two": b"2"})
    unpack(archive, tmp_path / "new" / "set")
    assert names(tmp_path / "new") == ["deep", "one", "set", "two"]
    assert (tmp_path / "new" / "set" / "deep" / "two").read_bytes() == b"2"


@pytest.mark.parametrize("pack", [tar, zipped])
@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "C:/evil", "C:evil", "..\\evil", "\\evil"])
def test_paths_that_leave_the_folder_are_refused_before_anything_is_written(tmp_path, pack, name):
    archive = pack(tmp_path / "archive", {"good": b"1", name: b"2"})
    with pytest.raises(ValueError, match="would write outside of its folder"):
        unpack(archive, tmp_path / "new" / "set")
    assert names(tmp_path) == ["archive", "new"]


def test_links_in_an_archive_are_refused(tmp_path):
    archive = tar(tmp_path / "archive", {"good": b"1", "link": None})
    with pytest.raises(ValueError, match="'link', a link or a device"):
        unpack(archive, tmp_path / "set")
    assert names(tmp_path) == ["archive"]


@pytest.mark.parametrize("pack", [tar, zipped, lambda path, members: tar(path, members, "w:xz")])
def test_a_truncated_archive_is_named_and_leaves_nothing(tmp_path, pack):
    archive = pack(tmp_path / "archive", {"one": CONTENT, "two": CONTENT[::-1]})
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="archive is damaged or cut short"):
        unpack(archive, tmp_path / "set")
    assert names(tmp_path) == ["archive"]
    archive.write_bytes(content)
    assert (unpack(archive, tmp_path / "set") / "one").read_bytes() == CONTENT


def test_a_flipped_byte_in_an_archive_is_noticed(tmp_path):
    archive = zipped(tmp_path / "archive", {"one": CONTENT})
    content = bytearray(archive.read_bytes())
    content[5000] ^= 1
    archive.write_bytes(content)
    with pytest.raises(ValueError, match="archive is damaged"):
        unpack(archive, tmp_path / "set")


@posix
def test_an_archive_that_does_not_fit_leaves_nothing(tmp_path):
    archive = tar(tmp_path / "archive", {"small": b"1", "large": CONTENT})
    with files_limited_to(400_000), pytest.raises(OSError, match=r"cannot write .*set"):
        unpack(archive, tmp_path / "set")
    assert names(tmp_path) == ["archive"]


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole(path) as temporary:
        temporary.write_text("half of the n")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["file"] and path.read_text() == "old"
    with whole(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert names(tmp_path) == ["file"] and path.read_text() == "new"


def test_a_disk_that_refuses_even_to_delete_does_not_hide_the_reason(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    with pytest.raises(OSError, match=r"cannot write .*file \(No space left"), whole(tmp_path / "file"):
        raise OSError(errno.ENOSPC, "No space left on device")


@posix
def test_one_at_a_time_prepares_a_folder(tmp_path):
    log = []

    def work(who):
        with alone(tmp_path):
            log.append(who)
            time.sleep(0.05)
            log.append(who)

    threads = [threading.Thread(target=work, args=(who,)) for who in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log[::2] == log[1::2] and sorted(log[::2]) == [0, 1, 2]


@posix
def test_what_a_killed_process_left_half_written_is_cleared_away(tmp_path):
    (tmp_path / ".set.0123abcd.tmp").mkdir()
    (tmp_path / ".set.0123abcd.tmp" / "one").write_text("1")
    (tmp_path / ".set.pixels.89abcdef.tmp").write_text("half")
    (tmp_path / "set.zip.part").write_text("to be resumed")
    with alone(tmp_path):
        assert os.listdir(tmp_path) == ["set.zip.part"]
