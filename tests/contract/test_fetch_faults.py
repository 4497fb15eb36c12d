"""A real hub that breaks off, stalls, drips, lies and refuses: the cache holds the exact file, or nothing usable."""

import contextlib
import hashlib
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hub_server import COMMIT, HubServer, http_date, hub_serving
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glmplan.errors import FetchError, GlmplanError, InputError
from glmplan.fetched import FetchedFile, FetchProgress, FetchReport, HubFile
from glmplan.http_requests import Credentials, HttpLimits, origin_of
from glmplan.launchers.fetch.cache import RepositoryCache
from glmplan.launchers.fetch.fetch import fetch
from glmplan.launchers.fetch.hub import Hub
from glmplan.launchers.fetch.limits import FetchLimits

REPO, FILE = "org/model-GGUF", "sub/model-Q4_K_M.gguf"
CONTENT: Final = random.Random(7).randbytes(300_000)
SHA256: Final = hashlib.sha256(CONTENT).hexdigest()
TOKEN: Final = "hf_" + "t" * 34
LIMITS: Final = FetchLimits(
    http=HttpLimits(connect_s=2, read_s=0.4, slack_s=0.8),
    attempts=4, backoff_s=0.01, longest_pause_s=2, window_s=0.3, slowest_bytes_per_s=10_000,
    progress_bytes=50_000, spare_bytes=0,
)  # fmt: skip
PASSING: Final = (
    "drops", "hangs_up", "stalls", "drips", "drips_headers", "announces_less", "announces_more", "sends_more",
    "no_length", "wrong_range", "wrong_total", "unsaid_range", "ignores_range", "ignores_range_and_drops",
    "unlabelled_web_page", "compressed", "status_403", "status_416", "status_429", "status_500",
)  # fmt: skip
FINAL: Final = ("wrong_bytes", "lying_range", "web_page")

HARMLESS: Final = frozenset({"sends_more", "no_length", "ignores_range", "lying_range"})  # alone, they bring the file


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_serving({f"{REPO}/{FILE}": CONTENT}) as server:
        yield server


def get(
    hub: HubServer,
    cache: Path,
    *,
    file: str = FILE,
    said: list[str] | None = None,
    progress: list[FetchProgress] | None = None,
    token: str | None = None,
) -> FetchReport:
    credentials = Credentials(token=token, origin=origin_of(hub.url)) if token else None
    client = Hub(hub.url, credentials, LIMITS)
    heard: list[str] = [] if said is None else said
    seen: list[FetchProgress] = [] if progress is None else progress
    try:
        return fetch(client, HubFile(repo=REPO, file=file), cache, say=heard.append, on_progress=seen.append)
    finally:
        client.close()


def usable(cache: Path) -> list[Path]:
    """What any tool would take for a model: files under snapshots, and blobs with a final name."""
    found = [*cache.glob("models--*/snapshots/**/*"), *cache.glob("models--*/blobs/*")]
    return [path for path in found if path.is_file() and not path.name.endswith(".incomplete")]


def assert_exact(report: FetchReport, cache: Path) -> None:
    path = Path(report.path)
    assert path.read_bytes() == CONTENT
    assert path == cache / f"models--{REPO.replace('/', '--')}" / "snapshots" / COMMIT / FILE
    assert path.resolve() == (cache / f"models--{REPO.replace('/', '--')}" / "blobs" / SHA256).resolve()
    assert all(found.read_bytes() == CONTENT for found in usable(cache))
    assert not list(cache.glob("models--*/blobs/*.incomplete"))


def test_a_whole_file_lands_in_the_layout(hub: HubServer, tmp_path: Path) -> None:
    progress: list[FetchProgress] = []
    report = get(hub, tmp_path, progress=progress)
    assert_exact(report, tmp_path)
    assert (tmp_path / "models--org--model-GGUF" / "refs" / "main").read_text() == COMMIT
    assert report.files == (
        FetchedFile(path=report.path, bytes=300_000, fetched_bytes=300_000, sha256=SHA256,
                    reference=f"hf:{REPO}/{FILE}", commit=COMMIT),
    )  # fmt: skip
    assert progress[0].total_bytes == 300_000
    again = get(hub, tmp_path)
    assert again.fetched_bytes == 0
    assert len(hub.stored) == 1


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_is_survived(hub: HubServer, tmp_path: Path, fault: str) -> None:
    hub.retry_after = "0"
    hub.faults = ["drops", fault]
    assert_exact(get(hub, tmp_path), tmp_path)
    assert len(hub.stored) >= 2


@pytest.mark.parametrize("fault", sorted({*PASSING, *FINAL} - HARMLESS))
def test_a_fault_that_stays_leaves_nothing_usable_and_a_good_server_mends_it(
    hub: HubServer, tmp_path: Path, fault: str
) -> None:
    hub.drop_after_bytes = 1000  # too little to count as progress
    hub.faults = [fault] * 40
    hub.retry_after = "0"
    with pytest.raises(GlmplanError) as raised:
        get(hub, tmp_path)
    assert raised.value.hint
    assert "signature" not in str(raised.value) + raised.value.hint + str(raised.value.facts)
    assert usable(tmp_path) == []
    hub.faults = []
    assert_exact(get(hub, tmp_path), tmp_path)


def test_the_next_run_goes_on_where_the_last_ended(hub: HubServer, tmp_path: Path) -> None:
    hub.drop_after_bytes = 30_000
    hub.faults = ["drops"] * 4
    with pytest.raises(GlmplanError):
        get(hub, tmp_path)
    partial = RepositoryCache(hub=tmp_path, repo=REPO).incomplete(SHA256)
    have = partial.stat().st_size
    assert have == 120_000
    said: list[str] = []
    report = get(hub, tmp_path, said=said)
    assert_exact(report, tmp_path)
    assert hub.stored[-1].range == f"bytes={have}-"
    assert (report.files[0].resumed_from_bytes, report.files[0].fetched_bytes) == (have, 300_000 - have)
    assert any("here already: going on" in text for text in said)


def test_bytes_that_came_count_against_giving_up(hub: HubServer, tmp_path: Path) -> None:
    """Ten drops in a row, each after real progress, are no reason to stop at four."""
    hub.drop_after_bytes = 50_000
    hub.faults = ["drops", "hangs_up"] * 5
    assert_exact(get(hub, tmp_path), tmp_path)


@pytest.mark.parametrize("left", [b"other bytes" * 1000, CONTENT[:-1] + b"x", CONTENT + b"too long"])
def test_a_spoiled_partial_file_is_given_up(hub: HubServer, tmp_path: Path, left: bytes) -> None:
    partial = RepositoryCache(hub=tmp_path, repo=REPO).incomplete(SHA256)
    partial.parent.mkdir(parents=True)
    partial.write_bytes(left)
    assert_exact(get(hub, tmp_path), tmp_path)


def test_a_whole_partial_file_only_needs_its_name(hub: HubServer, tmp_path: Path) -> None:
    partial = RepositoryCache(hub=tmp_path, repo=REPO).incomplete(SHA256)
    partial.parent.mkdir(parents=True)
    partial.write_bytes(CONTENT)
    assert_exact(get(hub, tmp_path), tmp_path)
    assert hub.stored == []


def test_wrong_bytes_are_named_and_thrown_away(hub: HubServer, tmp_path: Path) -> None:
    hub.faults = ["wrong_bytes"]
    with pytest.raises(FetchError, match="other content than the hub announced"):
        get(hub, tmp_path)
    assert usable(tmp_path) == []
    assert not list(tmp_path.glob("models--*/blobs/*"))


def test_the_wrong_part_of_the_file_is_noticed(hub: HubServer, tmp_path: Path) -> None:
    hub.faults = ["drops", "lying_range"]
    with pytest.raises(FetchError, match="other content"):
        get(hub, tmp_path)
    assert usable(tmp_path) == []
    assert_exact(get(hub, tmp_path), tmp_path)


def test_a_new_version_is_another_file(hub: HubServer, tmp_path: Path) -> None:
    hub.drop_after_bytes = 30_000
    hub.faults = ["drops"] * 4
    with pytest.raises(GlmplanError):
        get(hub, tmp_path)
    newer = random.Random(8).randbytes(200_000)
    hub.files[f"{REPO}/{FILE}"], hub.commit = newer, "b" * 40
    report = get(hub, tmp_path)
    assert Path(report.path).read_bytes() == newer
    assert hub.stored[-1].range is None
    assert "unfinished downloads" in report.notes[0]


def test_the_token_goes_to_the_hub_and_nowhere_else(hub: HubServer, tmp_path: Path) -> None:
    said: list[str] = []
    hub.faults = ["status_500"]
    get(hub, tmp_path, token=TOKEN, said=said)
    assert {request.headers.get("Authorization") for request in hub.asked} == {f"Bearer {TOKEN}"}
    assert [request.headers.get("Authorization") for request in hub.stored] == [None, None]
    assert TOKEN not in "".join(said)
    assert "signature" not in "".join(said)


@pytest.mark.parametrize(("status", "hint"), [(401, "HF_TOKEN"), (403, "HF_TOKEN"), (404, "revision"), (410, "gone")])
def test_a_refusal_of_the_hub_is_final(hub: HubServer, tmp_path: Path, status: int, hint: str) -> None:
    hub.hub_status = [status]
    with pytest.raises(InputError, match=str(status)) as raised:
        get(hub, tmp_path, token=TOKEN)
    assert hint in raised.value.hint
    assert len(hub.asked) == 1
    assert TOKEN not in str(raised.value) + raised.value.hint


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_hub_is_asked_again(hub: HubServer, tmp_path: Path, status: int) -> None:
    hub.hub_status = [status, status]
    assert_exact(get(hub, tmp_path), tmp_path)


@pytest.mark.parametrize("written", ["1", "date"])
def test_retry_after_is_kept(hub: HubServer, tmp_path: Path, written: str) -> None:
    hub.retry_after = "1" if written == "1" else http_date(2)
    hub.faults = ["status_429"]
    began = time.monotonic()
    assert_exact(get(hub, tmp_path), tmp_path)
    assert time.monotonic() - began > 0.9


def test_a_long_retry_after_is_told_and_not_waited_for(hub: HubServer, tmp_path: Path) -> None:
    hub.retry_after = "3600"
    hub.faults = ["status_429"]
    with pytest.raises(InputError, match="429") as raised:
        get(hub, tmp_path)
    assert "3600 s" in raised.value.hint


@pytest.mark.parametrize(
    ("headers", "what"),
    [
        ({"X-Repo-Commit": None}, "commit"),
        ({"X-Repo-Commit": "../../../etc"}, "commit"),
        ({"X-Linked-Size": None}, "length"),
        ({"X-Linked-Size": "-5"}, "length"),
        ({"X-Linked-Etag": '"../../../../etc/passwd"'}, "checksum"),
        ({"X-Linked-Etag": '"abc"'}, "checksum"),
    ],
)
def test_a_hub_that_tells_too_little_is_not_believed(
    hub: HubServer, tmp_path: Path, headers: dict[str, str | None], what: str
) -> None:
    hub.hub_headers = headers
    with pytest.raises(FetchError, match=f"does not tell the file's {what}"):
        get(hub, tmp_path)
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("size", [299_000, 301_000])
def test_a_hub_that_lies_about_the_size(hub: HubServer, tmp_path: Path, size: int) -> None:
    hub.hub_headers = {"X-Linked-Size": str(size)}
    with pytest.raises(FetchError):
        get(hub, tmp_path)
    assert usable(tmp_path) == []


def test_no_room_is_known_before_the_first_byte(hub: HubServer, tmp_path: Path) -> None:
    hub.hub_headers = {"X-Linked-Size": str(10**17)}
    with pytest.raises(FetchError, match="not enough room") as raised:
        get(hub, tmp_path)
    assert raised.value.facts["needed_bytes"] == 10**17
    assert hub.stored == []
    assert not list(tmp_path.rglob("*"))


def test_a_cache_that_cannot_be_written_is_the_users_to_mend(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(FetchError, match="cannot write to the model cache"):
        get(hub, tmp_path / "file" / "hub")


def test_all_parts_or_none(hub: HubServer, tmp_path: Path) -> None:
    names = [f"BF16/m-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    for name in names:
        hub.files[f"{REPO}/{name}"] = name.encode() * 5000
    hub.faults = ["well", "well", "wrong_bytes"]
    with pytest.raises(FetchError):
        get(hub, tmp_path, file=names[0])
    assert not [path for path in tmp_path.glob("models--*/snapshots/**/*") if path.is_file()]
    report = get(hub, tmp_path, file=names[0])
    assert Path(report.path).name == "m-00001-of-00003.gguf"
    assert [Path(file.path).read_bytes() for file in report.files] == [name.encode() * 5000 for name in names]
    assert [file.fetched_bytes > 0 for file in report.files] == [False, False, True]


def test_small_files_are_checked_by_gits_name_for_them(hub: HubServer, tmp_path: Path) -> None:
    body = b"{}\n"
    hub.files[f"{REPO}/config.json"] = body
    good = hashlib.sha1(b"blob 3\0" + body).hexdigest()
    hub.hub_headers = {"X-Linked-Etag": f'W/"{good}"'}
    report = get(hub, tmp_path, file="config.json")
    assert Path(report.path).read_bytes() == body
    assert report.files[0].sha256 is None
    hub.hub_headers = {"X-Linked-Etag": '"' + "0" * 40 + '"'}
    with pytest.raises(FetchError, match="other content"):
        get(hub, tmp_path, file="config.json")


STEPS = st.lists(st.sampled_from(["run", "new version", *PASSING, *FINAL]), min_size=1, max_size=8)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, drop=st.integers(0, 200_000))
def test_after_any_faults_the_cache_holds_the_exact_file_or_nothing(steps: list[str], drop: int) -> None:
    versions = {CONTENT}
    folder = Path(tempfile.mkdtemp())
    try:
        with hub_serving({f"{REPO}/{FILE}": CONTENT}) as hub:
            hub.retry_after, hub.drop_after_bytes = "0", drop
            for step in [*steps, "run"]:
                if step == "new version":
                    newer = random.Random(len(versions)).randbytes(150_000)
                    versions.add(newer)
                    hub.files[f"{REPO}/{FILE}"], hub.commit = newer, f"{len(versions):040x}"
                elif step != "run":
                    hub.faults.append(step)
                else:
                    _run_and_judge(hub, folder, versions)
            hub.faults = []
            report = get(hub, folder)
            assert Path(report.path).read_bytes() == hub.files[f"{REPO}/{FILE}"]
    finally:
        shutil.rmtree(folder)


def _run_and_judge(hub: HubServer, folder: Path, versions: set[bytes]) -> None:
    with contextlib.suppress(GlmplanError):
        report = get(hub, folder)
        assert Path(report.path).read_bytes() == hub.files[f"{REPO}/{FILE}"]
    assert {path.read_bytes() for path in usable(folder)} <= versions
