"""The hub cache on disk: locks, links, refs, room."""

import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import pytest

from glmplan.errors import FetchError
from glmplan.fetched import HubFile
from glmplan.launchers.fetch.cache import RepositoryCache
from glmplan.launchers.fetch.fetch import free_bytes, require_room
from glmplan.launchers.fetch.hub import Blob
from glmplan.launchers.fetch.limits import FetchLimits
from glmplan.units import GIB, MIB

ETAG: Final = "a" * 64
COMMIT: Final = "c" * 40


@pytest.fixture
def cache(tmp_path: Path) -> RepositoryCache:
    made = RepositoryCache(hub=tmp_path / "hub", repo="org/name")
    made.blob(ETAG).parent.mkdir(parents=True)
    return made


def blob(size_bytes: int) -> Blob:
    file = HubFile(repo="org/name", file="m.gguf")
    return Blob(file=file, commit=COMMIT, etag=ETAG, size_bytes=size_bytes, url="https://hub.invalid/m")


def test_a_link_is_relative_and_replaces_an_older_one(cache: RepositoryCache) -> None:
    cache.blob(ETAG).write_bytes(b"new")
    place = cache.snapshot(COMMIT, "sub/m.gguf")
    place.parent.mkdir(parents=True)
    place.symlink_to("nowhere")
    assert cache.link(COMMIT, "sub/m.gguf", ETAG) == place
    assert place.readlink() == Path("../../../blobs") / ETAG
    assert place.read_bytes() == b"new"
    assert [path.name for path in place.parent.iterdir()] == ["m.gguf"]


def test_without_links_the_file_itself_moves(cache: RepositoryCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")  # exFAT on Linux

    monkeypatch.setattr(Path, "symlink_to", refuse)
    cache.blob(ETAG).write_bytes(b"bytes")
    place = cache.link(COMMIT, "m.gguf", ETAG)
    assert (place.read_bytes(), place.is_symlink(), cache.blob(ETAG).exists()) == (b"bytes", False, False)


def test_branches_are_noted_and_commits_are_not(cache: RepositoryCache) -> None:
    cache.write_ref("main", COMMIT)
    cache.write_ref("refs/pr/1", COMMIT)
    cache.write_ref(COMMIT, COMMIT)
    refs = cache.folder / "refs"
    assert sorted(str(path.relative_to(refs)) for path in refs.rglob("*") if path.is_file()) == ["main", "refs/pr/1"]
    assert (refs / "main").read_text() == COMMIT


def test_what_is_here_is_counted(cache: RepositoryCache) -> None:
    assert cache.have_bytes(ETAG, 100) == 0
    cache.incomplete(ETAG).write_bytes(bytes(40))
    assert cache.have_bytes(ETAG, 100) == 40
    assert cache.have_bytes(ETAG, 30) == 30
    cache.blob(ETAG).write_bytes(bytes(90))  # cut by somebody else: not the file
    assert (cache.has(ETAG, 100), cache.have_bytes(ETAG, 100)) == (False, 40)
    cache.blob(ETAG).write_bytes(bytes(100))
    assert (cache.has(ETAG, 100), cache.have_bytes(ETAG, 100)) == (True, 100)


def lock_file(cache: RepositoryCache) -> Path:
    return cache.hub / ".locks" / "models--org--name" / f"{ETAG}.lock"


def test_who_comes_second_waits_and_is_told_once(cache: RepositoryCache) -> None:
    said: list[str] = []
    order: list[str] = []

    def second() -> None:
        with cache.locked(ETAG, said.append):
            order.append("second")

    with cache.locked(ETAG, said.append):
        assert lock_file(cache).is_file()
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.7)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert len(said) == 1
    assert "waiting" in said[0]


def test_locks_exclude_even_when_their_file_is_deleted(cache: RepositoryCache) -> None:
    """Newer versions of filelock delete the file when they let go: a lock on a deleted file protects nothing."""
    inside: list[int] = []
    most: list[int] = []

    def rounds(number: int) -> None:
        for _ in range(6):
            with cache.locked(ETAG, lambda _: None):
                inside.append(number)
                time.sleep(0.005)
                most.append(len(inside))
                inside.remove(number)
                lock_file(cache).unlink()

    threads = [threading.Thread(target=rounds, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == [1] * 18


def free_space(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    usage = SimpleNamespace(total=2 * GIB, used=0, free=free)

    def reading(_: Path) -> SimpleNamespace:
        return usage

    monkeypatch.setattr(shutil, "disk_usage", reading)


def test_room_is_asked_for_what_is_still_missing(cache: RepositoryCache, monkeypatch: pytest.MonkeyPatch) -> None:
    free_space(monkeypatch, GIB + 64 * MIB)
    limits = FetchLimits(spare_bytes=64 * MIB)
    require_room(cache, [blob(GIB)], limits)
    with pytest.raises(FetchError, match=r"1\.0 GiB are still to come, 1\.1 GiB are free") as raised:
        require_room(cache, [blob(GIB + 1)], limits)
    assert raised.value.facts == {"needed_bytes": GIB + 1, "free_bytes": GIB + 64 * MIB, "spare_bytes": 64 * MIB}
    assert "HF_HUB_CACHE" in raised.value.hint
    cache.incomplete(ETAG).write_bytes(b"1")
    require_room(cache, [blob(GIB + 1)], limits)
    cache.blob(ETAG).write_bytes(bytes(10))
    free_space(monkeypatch, 0)
    require_room(cache, [blob(10)], limits)


def test_room_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "a" / "b" / "c") > 0
