"""The cache: entries are whole or absent, made by one process at a time, and cleared by name."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from intarsia.errors import BadInput, IntarsiaError
from intarsia.models import cache


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("INTARSIA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make(name: str, text: str = "x") -> Path:
    with cache.entry(name) as (final, part):
        if part is not None:
            (part / "file").write_text(text)
    return final


def test_where_it_is(home, monkeypatch):
    assert cache.cache_dir() == home
    monkeypatch.delenv("INTARSIA_CACHE")
    assert "intarsia" in cache.cache_dir().name


def test_entries_and_clear(home):
    assert cache.entries() == []
    make("gguf/abc", "four")
    make("wheels/some-1.0")
    (home / "gguf" / "notes.txt").write_text("not ours")
    assert [(e.name, e.bytes) for e in cache.entries()] == [("gguf/abc", 4), ("wheels/some-1.0", 1)]
    with pytest.raises(BadInput, match=r"no 'wheels/som-1\.0' in the cache .* \(did you mean wheels/some-1\.0"):
        cache.clear("wheels/som-1.0")
    assert cache.clear("gguf/abc") == 4
    assert cache.clear() == 1
    assert cache.entries() == []
    assert (home / "gguf" / "notes.txt").is_file()


def test_made_once(home):
    make("gguf/abc", "first")
    assert (make("gguf/abc", "second") / "file").read_text() == "first"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_failure_leaves_nothing(home, error):
    with pytest.raises(error):
        with cache.entry("gguf/abc") as (_, part):
            (part / "file").write_text("half")
            raise error
    assert list((home / "gguf").iterdir()) == []


def test_full_disk_is_said(home):
    with pytest.raises(IntarsiaError, match=r"the disk is full while writing .* set INTARSIA_CACHE"):
        with cache.entry("gguf/abc"):
            raise OSError(28, "No space left on device")
    assert list((home / "gguf").iterdir()) == []


def test_cache_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INTARSIA_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(IntarsiaError, match="cannot write"):
        make("gguf/abc")


def test_what_a_killed_process_left_is_removed(home):
    stale = home / "gguf" / ".abc.1-aaaaaa.part"
    stale.mkdir(parents=True)
    make("gguf/abc")
    assert not stale.exists()


def _worker(root: str, log: str) -> None:
    os.environ["INTARSIA_CACHE"] = root
    with cache.entry("gguf/abc") as (final, part):
        if part is not None:
            with Path(log).open("a") as file:
                file.write("made\n")
            time.sleep(0.3)
            (part / "file").write_text("whole")
    assert (final / "file").read_text() == "whole"


def test_two_processes_make_it_once(home, tmp_path):
    context = multiprocessing.get_context("spawn")
    jobs = [context.Process(target=_worker, args=(str(home), str(tmp_path / "log"))) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(60)
    assert [job.exitcode for job in jobs] == [0, 0]
    assert (tmp_path / "log").read_text() == "made\n"


def test_digests_are_remembered_until_the_file_changes(tmp_path, monkeypatch):
    file = tmp_path / "big"
    file.write_bytes(b"a" * 1_500_000)
    wanted = hashlib.sha256(b"a" * 1_500_000).hexdigest()
    assert cache.sha256_of(file) == wanted
    with monkeypatch.context() as patch:
        patch.setattr(cache.hashlib, "sha256", lambda: pytest.fail("hashed again"))
        assert cache.sha256_of(file) == wanted
    file.write_bytes(b"b" * 1_500_000)
    os.utime(file, ns=(1, 1))
    assert cache.sha256_of(file) == hashlib.sha256(b"b" * 1_500_000).hexdigest()


def test_damaged_memory_of_digests_only_costs_time(home, tmp_path):
    home.mkdir()
    (home / "digests.json").write_text("{")
    (tmp_path / "big").write_bytes(b"a" * 1_500_000)
    assert len(cache.sha256_of(tmp_path / "big")) == 64
