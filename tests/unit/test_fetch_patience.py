"""How a fetch waits, how it counts, and what a person reads of it."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glmplan.errors import FetchError, InputError
from glmplan.fetched import FetchedFile, FetchPhase, FetchProgress, FetchReport
from glmplan.launchers.fetch.limits import FetchLimits, Interrupted, Patience, limits_of, retry_after_s
from glmplan.launchers.fetch.pace import Pace, Tally
from glmplan.render.fetch import progress_text, report_lines
from glmplan.units import GIB, MIB, format_seconds

BROKE = FetchError("the connection broke", hint="try later")


def test_pauses_double_and_end() -> None:
    said: list[str] = []
    patience = Patience(FetchLimits(attempts=4, backoff_s=0.001), said.append)
    for _ in range(3):
        patience.wait(Interrupted(BROKE))
    assert len(said) == 3
    with pytest.raises(FetchError, match="the connection broke"):
        patience.wait(Interrupted(BROKE))


def test_progress_begins_the_count_anew() -> None:
    patience = Patience(FetchLimits(attempts=2, backoff_s=0.001), lambda _: None)
    for _ in range(5):
        patience.progressed()
        patience.wait(Interrupted(BROKE))
    with pytest.raises(FetchError):
        patience.wait(Interrupted(BROKE))


def test_a_server_that_wants_hours_is_believed() -> None:
    patience = Patience(FetchLimits(), lambda _: None)
    with pytest.raises(FetchError) as raised:
        patience.wait(Interrupted(BROKE, pause_s=7200))
    assert "7200 s" in raised.value.hint


@pytest.mark.parametrize(("text", "seconds"), [(None, None), ("17", 17.0), ("soon", None), ("-3", None), ("", None)])
def test_retry_after_in_seconds(text: str | None, seconds: float | None) -> None:
    assert retry_after_s(text) == seconds


def test_retry_after_as_a_date() -> None:
    in_a_minute = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=60)
    found = retry_after_s(in_a_minute.strftime("%a, %d %b %Y %H:%M:%S GMT"))
    assert found is not None
    assert 55 < found <= 60
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 -0000") == 0


@given(st.text(max_size=40))
def test_retry_after_survives_anything(text: str) -> None:
    found = retry_after_s(text)
    assert found is None or found >= 0


def test_the_time_out_of_the_hub_library_counts() -> None:
    assert limits_of({}).http.read_s == 30
    assert limits_of({"HF_HUB_DOWNLOAD_TIMEOUT": "2.5"}).http.read_s == 2.5
    for wrong in ("soon", "0", "-1", "1e9"):
        with pytest.raises(InputError, match="not a number of seconds"):
            limits_of({"HF_HUB_DOWNLOAD_TIMEOUT": wrong})


def test_the_rate_is_of_the_last_seconds() -> None:
    now = 0.0
    pace = Pace(clock=lambda: now)
    assert pace.bytes_per_s is None
    for _ in range(20):
        pace.add(1000)
        now += 1
    steady = pace.bytes_per_s
    assert steady is not None
    assert 850 < steady <= 1000
    now += 60
    pace.add(1000)
    slower = pace.bytes_per_s
    assert slower is not None
    assert slower < 100


def test_parts_add_up_to_one_progress() -> None:
    seen: list[FetchProgress] = []
    tally = Tally(300, seen.append)
    tally.begin("a", FetchPhase.FETCHING)
    tally.at(100, 100)
    tally.end_file(100)
    tally.begin("b", FetchPhase.CHECKING)
    tally.at(50, 50)
    assert [(at.file, at.phase, at.done_bytes, at.total_bytes) for at in seen] == [
        ("a", "fetching", 100, 300),
        ("b", "checking", 150, 300),
    ]


def test_progress_for_people() -> None:
    at = FetchProgress(file="m.gguf", phase=FetchPhase.FETCHING, done_bytes=3 * GIB, total_bytes=17 * GIB)
    assert progress_text(at) == "17 %, 3.0 GiB of 17.0 GiB  m.gguf"
    full = FetchProgress(
        file="m.gguf", phase=FetchPhase.CHECKING, done_bytes=3 * GIB, total_bytes=17 * GIB,
        rate_bytes_per_s=85.3 * MIB, left_s=168,
    )  # fmt: skip
    assert progress_text(full) == "17 %, 3.0 GiB of 17.0 GiB, 85.3 MiB/s, 2 min 48 s left  checking m.gguf"
    assert progress_text(full, 20) == "17 %, 3.0 GiB of 17"
    assert (format_seconds(59.4), format_seconds(3599), format_seconds(7500)) == ("59 s", "59 min 59 s", "2 h 5 min")


def test_a_report_says_what_was_done() -> None:
    file = FetchedFile(path="/m", bytes=GIB, fetched_bytes=GIB // 2, resumed_from_bytes=GIB // 2)
    report = FetchReport(path="/m", store="huggingface", files=(file,), notes=("a note",))
    assert report_lines(report) == [
        "fetched 512.0 MiB, 512.0 MiB were here from an earlier run; 1.0 GiB verified",
        "a note",
    ]
    here = FetchReport(path="/m", store="lm-studio", files=(FetchedFile(path="/m", bytes=GIB),))
    assert report_lines(here) == ["already here in the lm-studio store: 1.0 GiB, used in place"]
