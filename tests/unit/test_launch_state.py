"""Files a launch leaves and reads: ports, locks, records, logs, keys, model files."""

import dataclasses
import json
import os
import re
import resource
import socket
import stat
import sys
from pathlib import Path

import pytest
from launch_plans import plan_of

from glmplan import paths
from glmplan.engine import EngineKind
from glmplan.errors import GgufError, GlmplanError, InputError, PortTaken
from glmplan.launchers import api_keys, history, identity, logs, model_file, port, process, records
from glmplan.launchers.launch import Endpoint, Launch
from glmplan.launchers.restarts import NEVER, RestartPolicy, Restarts
from glmplan.measurement import Measurement


def record(
    number: int,
    process: identity.ProcessIdentity,
    endpoint: Endpoint | None = None,
    supervisor: identity.ProcessIdentity | None = None,
) -> records.RunRecord:
    return records.RunRecord(
        endpoint=endpoint or Endpoint(port=number),
        engine="xllamacpp",
        engine_version="1",
        process=process,
        supervisor=supervisor or identity.own_identity(),
        detached=False,
        started_at="2026-01-01T00:00:00Z",
        model="m",
        quantization="q",
        synthetic=True,
        n_ctx=1,
        log="/l",
        health_path="/health",
        timings=True,
    )


def test_a_free_port_is_free_and_a_taken_one_names_who() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        number = held.getsockname()[1]
        with pytest.raises(
            PortTaken, match=f"port {number} on 127.0.0.1 is in use by .*process {os.getpid()}"
        ) as caught:
            port.require_free("127.0.0.1", number)
        assert caught.value.facts["pid"] == os.getpid()
        assert caught.value.facts["free_port"] != number
    port.require_free("127.0.0.1", number)


def test_an_address_that_is_not_ours_is_bad_input() -> None:
    with pytest.raises(InputError, match=r"cannot listen on 192\.0\.2\.1"):
        port.require_free("192.0.2.1", 8080)


def test_one_launch_per_port() -> None:
    with (
        records.hold_port("127.0.0.1", 18990),
        pytest.raises(PortTaken, match="another glmplan"),
        records.hold_port("127.0.0.1", 18990),
    ):
        pytest.fail("held twice")
    with records.hold_port("127.0.0.1", 18990):
        pass


def test_records_of_the_dead_and_of_reused_numbers_are_not_believed() -> None:
    alive = identity.own_identity()
    gone = identity.ProcessIdentity(pid=2**22 - 1, started_at=1.0)
    records.write(record(1001, alive))
    records.write(record(1002, gone, supervisor=gone))
    records.write(record(1003, dataclasses.replace(alive, started_at=alive.started_at - 3600), supervisor=gone))
    (records.folder() / "1004.run.json").write_text("{half")
    assert [found.endpoint.port for found in records.running()] == [1001]
    assert sorted(path.name for path in records.folder().glob("*.run.json")) == ["1001.run.json"]


def test_an_engine_that_is_being_started_again_runs_and_one_given_up_is_only_known() -> None:
    gone = identity.ProcessIdentity(pid=2**22 - 1, started_at=1.0)
    records.write(record(1001, gone))
    given_up = dataclasses.replace(record(1002, gone, supervisor=gone), gave_up=True)
    records.write(given_up)
    assert [found.endpoint.port for found in records.running()] == [1001]
    assert [found.endpoint.port for found in records.known()] == [1001, 1002]
    records.stop(given_up)
    assert [found.endpoint.port for found in records.known()] == [1001]


def test_choosing_among_engines() -> None:
    alive = identity.own_identity()
    two = (record(1001, alive), record(1002, alive))
    assert records.choose(two, 1002) is two[1]
    assert records.choose(two[:1], None) is two[0]
    with pytest.raises(InputError, match="2 engines run, on ports 1001, 1002"):
        records.choose(two, None)
    with pytest.raises(InputError, match="on port 9"):
        records.choose(two, 9)
    with pytest.raises(InputError, match="no engine started by glmplan runs"):
        records.choose((), None)


def test_a_key_made_for_an_engine_goes_with_it_and_a_users_own_stays(tmp_path: Path) -> None:
    made, own = records.new_key_file(), tmp_path / "mine.key"
    api_keys.generate(made)
    api_keys.store(own, "k")
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    alive = identity.own_identity()
    for key_file in (made, own):
        records.forget(record(1, alive, Endpoint(port=1, api_key_file=str(key_file))))
    assert (made.exists(), own.exists()) == (False, True)


def test_a_key_lives_as_long_as_its_engine() -> None:
    path = records.new_key_file()
    api_keys.generate(path)
    with records.key_while(Endpoint(port=1, api_key_file=str(path))):
        assert path.exists()
    assert not path.exists()


def test_an_empty_key_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    with pytest.raises(InputError, match="cannot read"):
        api_keys.require_key(path)
    path.write_text("# nothing\n")
    with pytest.raises(InputError, match="holds no key"):
        api_keys.require_key(path)


def test_logs_are_private_rotated_and_read_from_their_end() -> None:
    assert logs.newest_log() is None
    path = [logs.new_log(8080) for _ in range(logs.KEPT + 3)][-1]
    kept = sorted(path.parent.glob("*.log"))
    assert (len(kept), kept[-1]) == (logs.KEPT, logs.newest_log())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("# glmplan's own line\n" + "".join(f"line {number}\n" for number in range(5)))
    assert logs.tail(path, 2) == ("line 3", "line 4")
    assert len(logs.tail(path, 100)) == 5
    assert "".join(logs.follow(path, lambda: False)).endswith("line 4\n")
    with path.open("a") as stream:
        stream.write(f"{logs.STARTED}again\nline 9\n")
    logs.note(path, "glmplan's own")
    assert logs.tail(path, 100) == ("line 9",)


def test_a_model_that_is_absent_short_or_no_gguf_is_named(tmp_path: Path, tiny_gguf: Path) -> None:
    whole = plan_of(tiny_gguf, EngineKind.XLLAMACPP).model
    model_file.require_model(whole)
    with pytest.raises(InputError, match="is not on this machine"):
        model_file.require_model(dataclasses.replace(whole, file=str(tmp_path / "none.gguf")))
    with pytest.raises(GgufError, match=r"is incomplete: .* of 9999999 bytes"):
        model_file.require_model(dataclasses.replace(whole, file_bytes=9_999_999))
    other = tmp_path / "other.gguf"
    other.write_bytes(b"PK\x03\x04")
    with pytest.raises(GgufError, match="is not a GGUF file"):
        model_file.require_model(dataclasses.replace(whole, file=str(other), file_bytes=4))


def test_a_split_model_needs_all_its_parts(tmp_path: Path) -> None:
    first = tmp_path / "m-00001-of-00002.gguf"
    first.write_bytes(b"GGUF" + bytes(6))
    model = plan_of(first, EngineKind.XLLAMACPP, file_bytes=20).model
    with pytest.raises(InputError, match=r"m-00002-of-00002\.gguf is not on this machine"):
        model_file.require_model(model)
    (tmp_path / "m-00002-of-00002.gguf").write_bytes(bytes(10))
    model_file.require_model(model)


def test_the_environment_loses_what_would_change_the_plan(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("secret\n")
    launch = Launch(
        engine=EngineKind.LLAMA_SERVER,
        argv=("x",),
        endpoint=Endpoint(port=1, api_key_file=str(key_file)),
        model_file="m",
        model_bytes=1,
        health_path="/health",
        timings=True,
        env=(("LD_LIBRARY_PATH", "/w/lib"), ("SOME", "value"), ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")),
        drop_env=("LLAMA_ARG_*", "HOST"),
        key_env="API_KEY",
    )
    parent = {"LLAMA_ARG_N_CTX": "1", "host": "evil", "PATH": "/bin", "LD_LIBRARY_PATH": "/old", "SOME": "other"}
    parent["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=0"  # what is said last holds: the user's word
    assert process.child_environment(launch, parent) == {
        "PATH": "/bin", "LD_LIBRARY_PATH": "/w/lib:/old", "SOME": "value", "API_KEY": "secret",
        "GGML_NO_BACKTRACE": "1", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.hugetlb=0",
    }  # fmt: skip
    assert "secret" not in repr(launch)


def test_bigger_files_get_longer_to_load() -> None:
    assert process.load_deadline_s(0) == 120
    assert process.load_deadline_s(18 * 2**30) == pytest.approx(120 + 368.6, abs=0.1)


def test_measurements_are_appended_and_read_back() -> None:
    first = Measurement(
        created_at="2026-01-01T00:00:00Z", glmplan_version="0", engine="e", engine_version=None, model="m",
        quantization="q", synthetic=True, machine_fingerprint="f" * 16, samples=(),
    )  # fmt: skip
    second = dataclasses.replace(first, load_ms=5.0)
    path = history.append(first)
    assert history.append(second) == path
    assert history.read("f" * 16) == (first, second)
    assert history.read("0" * 16) == ()


def test_half_a_record_is_taken_back() -> None:
    first = Measurement(
        created_at="2026-01-01T00:00:00Z", glmplan_version="0", engine="e", engine_version=None, model="m",
        quantization="q", synthetic=True, machine_fingerprint="f" * 16, samples=(),
    )  # fmt: skip
    path = history.append(first)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))
    try:
        with pytest.raises(
            GlmplanError, match=rf"cannot write {re.escape(str(path))}: File too large \(files may have"
        ):
            history.append(first)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    history.append(first)
    assert history.read("f" * 16) == (first, first)


def test_records_of_older_versions_still_load() -> None:
    old = {
        "created_at": "2026-01-01T00:00:00Z", "glmplan_version": "0.1.0", "engine": "xllamacpp", "engine_version": None,
        "model": "m", "quantization": "q", "synthetic": True, "machine_fingerprint": "f" * 16,
        "samples": [
            {
                "prompt_tokens": 1, "output_tokens": 2, "ttft_ms": 1.0, "prefill_tokens_per_s": 1.0,
                "decode_tokens_per_s": 1.0, "tpot_ms": 1.0, "depth_tokens": 0, "server_timed": True,
            }
        ],
        "memory": None, "load_ms": None, "resident_bytes": None,
    }  # fmt: skip
    path = paths.data_folder() / "measurements" / f"{'f' * 16}.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(old) + "\n")
    (read,) = history.read("f" * 16)
    assert (read.placement, read.file, read.machine, read.energy) == (None, None, None, None)
    assert read.samples[0].n_streams == 1


def test_the_kernel_counts_its_kills_where_it_counts() -> None:
    kills = identity.oom_kills()
    assert (kills is None) == (sys.platform != "linux")
    assert kills is None or kills >= 0


def test_restarts_wait_longer_each_time_and_are_bounded() -> None:
    restarts = Restarts(RestartPolicy())
    assert [restarts.next_delay_s(now_s) for now_s in (0, 1, 2, 3, 4, 5)] == [0.5, 1, 2, 4, 8, None]
    assert restarts.next_delay_s(599) is None
    assert restarts.next_delay_s(600) == 8  # the first is ten minutes old
    assert restarts.next_delay_s(5000) == 0.5
    assert restarts.total == 7
    assert Restarts(NEVER).next_delay_s(0) is None
    patient = Restarts(RestartPolicy(most=9, longest_delay_s=5))
    assert [patient.next_delay_s(0) for _ in range(6)] == [0.5, 1, 2, 4, 5, 5]
