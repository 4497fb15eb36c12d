"""The closed form against llama.cpp's own allocator, on GPUs that are not there and on remote ones that are."""

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
from oracle_errors import Errors, exact_parts
from oracle_samples import CARDS, Sample, draw, memory_of, seed_of_run

from glmplan.engine import Engine, EngineKind
from glmplan.launchers import fit_params
from glmplan.launchers.dry_run import DryRun, request_of
from glmplan.placement import FlashAttention, Placement
from glmplan.planner.memory import MemoryModel
from glmplan.planner.spaces import GpuKind, HostSpace, Spaces
from glmplan.profiles.recipes import catalog_profile
from glmplan.units import MIB

pytestmark = pytest.mark.compiled

EngineOn = Callable[[str], AbstractContextManager[DryRun]]
HeaderTrue = Callable[..., Path]


def on_cpu(**changes: object) -> Placement:
    placement = Placement(
        engine=EngineKind.LLAMA_SERVER, n_ctx=32768, n_gpu_layers=0, n_cpu_moe=0, n_batch=2048, n_ubatch=512,
        cache_type_k="f16", cache_type_v="f16", flash_attn=FlashAttention.ON, n_threads=2, n_threads_batch=2,
        use_mmap=False, use_mlock=False,
    )  # fmt: skip
    return replace(placement, **changes)  # type: ignore[arg-type]  # keyword names are checked at run time


@pytest.mark.parametrize(("model", "per_card_set"), [("glm-4.7-flash", 150), ("qwen3-30b-a3b", 40), ("glm-4.7", 40)])
def test_random_configurations_equal_the_engine(
    model: str, per_card_set: int, engine_on: EngineOn, header_true: HeaderTrue
) -> None:
    """Weights, KV and host buffers to the byte; device compute within the stated bounds."""
    generator = random.Random(seed_of_run())
    errors = Errors()
    for cards in CARDS:
        with engine_on(cards) as engine:
            for _ in range(per_card_set):
                sample = draw(generator, cards.count(",") + 1, model)
                file = header_true(sample.quant, sample.n_nextn_layers, model)
                errors.compare(sample, cards, engine.ask(request_of(sample.placement, str(file))))
    print(f"{model}: {len(CARDS) * per_card_set} configurations; {errors.hold_medians()}")


def test_a_draft_context_takes_a_layer_of_cache_and_no_more_than_the_main_one(
    engine_on: EngineOn, header_true: HeaderTrue
) -> None:
    """KV to the byte; compute buffers within the bound, which is not far above them where all is on GPUs."""
    generator = random.Random(seed_of_run())
    file = str(header_true("q8_0", 1))
    for cards in ("81920:80000", "81920:80000,24564:23964"):
        with engine_on(cards) as engine:
            for _ in range(15):
                drawn = draw(generator, cards.count(",") + 1)
                full = generator.random() < 0.7
                placement = replace(
                    drawn.placement, n_gpu_layers=49 if full else generator.randint(10, 48), n_cpu_moe=0,
                    override_tensor=(), load_mtp=True, n_parallel=1, n_outputs=1,
                )  # fmt: skip
                sample = replace(drawn, quant="q8_0", n_nextn_layers=1, placement=placement)
                gpus, host = memory_of(sample, cards).draft_bytes(placement)
                answer = engine.ask(replace(request_of(placement, file), drafts=True))
                assert answer.refusal is None, answer.refusal
                main = engine.ask(request_of(placement, file))
                for device, ours in (*enumerate(gpus), (None, host)):
                    _, kv_cache, compute = answer.device_bytes(device)
                    assert ours >= kv_cache + compute - 10 * MIB, (sample, device, ours, kv_cache, compute)
                    if full and ours:
                        most = main.device_bytes(device)[2]
                        assert ours <= kv_cache + max(compute, most) * 1.15 + 16 * MIB, (sample, device)


@pytest.mark.parametrize("cache", ["f16", "q8_0", "q4_0"])
@pytest.mark.parametrize("n_ctx", [4096, 32768, 131072, 202752])
def test_kv_cache_equals_the_engine(cache: str, n_ctx: int, engine_on: EngineOn, header_true: HeaderTrue) -> None:
    placement = on_cpu(n_ctx=n_ctx, cache_type_k=cache, cache_type_v=cache)
    sample = Sample(quant="q4_K_M", n_nextn_layers=0, placement=placement)
    with engine_on("") as engine:
        answer = engine.ask(request_of(sample.placement, str(header_true("q4_K_M", 0))))
    per_token = {"f16": 54_144, "q8_0": 28_764, "q4_0": 15_228}[cache]
    assert (
        answer.device_bytes(None)[1] == memory_of(sample, "").buffers(placement)[1].kv_cache_bytes == per_token * n_ctx
    )


@pytest.mark.parametrize(("quant", "mib"), [("q4_K_M", 17_283.7), ("q8_0", 30_358.6), ("bf16", 57_124.5)])
@pytest.mark.parametrize("repack", [True, False])
def test_weights_equal_the_engine(
    quant: str, mib: float, repack: bool, engine_on: EngineOn, header_true: HeaderTrue
) -> None:
    sample = Sample(quant=quant, n_nextn_layers=0, placement=on_cpu(repack=repack))
    with engine_on("") as engine:
        answer = engine.ask(request_of(sample.placement, str(header_true(quant, 0))))
    ours = memory_of(sample, "").buffers(sample.placement)[1]
    assert answer.device_bytes(None) == (ours.weights_bytes, ours.kv_cache_bytes, ours.compute_bytes)
    assert round(ours.weights_bytes / MIB, 1) == mib


@pytest.mark.parametrize("flash", [FlashAttention.ON, FlashAttention.OFF])
def test_cpu_compute_buffer_is_never_under(flash: FlashAttention, engine_on: EngineOn, header_true: HeaderTrue) -> None:
    model = MemoryModel(catalog_profile("q4_K_M"), Spaces(gpus=(), host=HostSpace(usable_bytes=2**40)))
    with engine_on("") as engine:
        for n_ctx in (2048, 8192, 32768, 131072):
            for n_ubatch in (64, 256, 512, 2048):
                for n_outputs in (1, n_ubatch):
                    placement = on_cpu(n_ctx=n_ctx, n_ubatch=n_ubatch, n_outputs=n_outputs, flash_attn=flash)
                    sample = Sample(quant="q4_K_M", n_nextn_layers=0, placement=placement)
                    theirs = engine.ask(request_of(sample.placement, str(header_true("q4_K_M", 0)))).device_bytes(None)[
                        2
                    ]
                    error = model.buffers(placement)[1].compute_bytes - theirs
                    assert -16384 <= error < 0.25 * theirs, (placement, error)


def test_short_batches_are_bounded(engine_on: EngineOn, header_true: HeaderTrue) -> None:
    """Batches that nobody copies weights in for are computed beside them: never more memory than is said."""
    with engine_on(CARDS[1]) as engine:
        for n_gpu_layers, n_cpu_moe in ((48, 0), (48, 20), (24, 0), (0, 0)):
            for n_ubatch, n_parallel in ((1, 1), (16, 1), (31, 1), (64, 4)):
                placement = on_cpu(
                    n_gpu_layers=n_gpu_layers, n_cpu_moe=n_cpu_moe, n_ubatch=n_ubatch, n_parallel=n_parallel,
                    n_outputs=n_parallel, kv_unified=False,
                )  # fmt: skip
                sample = Sample(quant="q4_0", n_nextn_layers=0, placement=placement)
                memory = memory_of(sample, CARDS[1])
                answer = engine.ask(request_of(placement, str(header_true("q4_0", 0))))
                devices, host = memory.buffers(placement)
                theirs = [answer.device_bytes(index)[2] for index in (None, 0, 1)]
                ours = [part.compute_bytes for part in (host, *devices)]
                assert all(a > b - MIB for a, b in zip(ours, theirs, strict=True)), (sample, ours, theirs)
                if not memory.notes(placement):
                    assert ours[0] == theirs[0], sample


def test_refusals_are_the_engines_own(engine_on: EngineOn, header_true: HeaderTrue) -> None:
    mixed = Sample(quant="q4_K_M", n_nextn_layers=0, placement=on_cpu(cache_type_k="q8_0"))
    with engine_on("") as engine:
        refused = engine.ask(request_of(mixed.placement, str(header_true("q4_K_M", 0))))
        missing = engine.ask(request_of(mixed.placement, "/nowhere/model.gguf"))
        after = engine.ask(request_of(on_cpu(), str(header_true("q4_K_M", 0))))
    assert "different K" in (refused.refusal or "")
    assert missing.refusal
    assert after.refusal is None


def test_an_abort_of_the_engine_is_an_answer(engine_on: EngineOn, tmp_path: Path) -> None:
    """A header whose data would lie beyond the file, and a file that is no model: the child survives or is replaced."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(64))
    sample = Sample(quant="q4_K_M", n_nextn_layers=0, placement=on_cpu())
    with engine_on("") as engine:
        assert engine.ask(request_of(sample.placement, str(broken))).refusal
        assert engine.ask(request_of(sample.placement, str(tmp_path))).refusal


def test_the_program_and_the_library_give_the_same_table(
    engine_programs: Path, engine_on: EngineOn, header_true: HeaderTrue
) -> None:
    """`llama-fit-params` reserves logits for the whole batch and prints whole MiB."""
    placement = on_cpu(n_outputs=512, repack=False)
    file = str(header_true("q4_K_M", 0))
    server = Engine(
        kind=EngineKind.LLAMA_SERVER,
        path=str(engine_programs / "llama-server"),
        version=None,
        library_path=str(engine_programs.parent / "lib"),
    )
    program = fit_params.program_beside(server)
    assert program is not None
    table = fit_params.ask(program, server, placement, file)
    with engine_on("") as engine:
        library = engine.ask(request_of(placement, file))
    for ours, theirs in zip(table.device_bytes(None), library.device_bytes(None), strict=True):
        assert abs(ours - theirs) < 2 * MIB
    refused = fit_params.ask(program, server, on_cpu(cache_type_k="q8_0"), file)
    assert refused.refusal


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def rpc_servers(engine_programs: Path) -> Iterator[str]:
    """Two real remote devices on the loopback interface."""
    ports = [free_port(), free_port()]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(engine_programs.parent / "lib")}
    servers = [
        subprocess.Popen(
            [str(engine_programs / "ggml-rpc-server"), "-H", "127.0.0.1", "-p", str(port)],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for port in ports
    ]  # fmt: skip
    try:
        for port in ports:
            wait_for_port(port)
        yield ",".join(f"127.0.0.1:{port}" for port in ports)
    finally:
        for server in servers:
            server.kill()
            server.wait()


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail(f"nothing listens on {port}")


def test_splits_over_remote_devices_equal_the_engine(rpc_servers: str, header_true: HeaderTrue) -> None:
    """Devices that really compute, behind llama.cpp's RPC backend: everything offloaded, unequal shares."""
    generator = random.Random(seed_of_run())
    with DryRun(sys.executable, {"GLMPLAN_RPC_SERVERS": rpc_servers}) as engine:
        for _ in range(40):
            drawn = draw(generator, 2)
            n_all = 47 + drawn.n_nextn_layers
            shares = (round(generator.uniform(0.3, 4), 2), 1.0)
            placement = replace(drawn.placement, n_cpu_moe=0, n_gpu_layers=n_all + 1, tensor_split=shares)
            sample = replace(drawn, placement=placement)
            answer = engine.ask(request_of(sample.placement, str(header_true(sample.quant, sample.n_nextn_layers))))
            assert answer.refusal is None, answer.refusal
            devices, host = memory_of(sample, "9000:9000,9000:9000", kind=GpuKind.REMOTE_CPU).buffers(placement)
            exact_parts(answer.device_bytes(None), host)
            for index, ours in enumerate(devices):
                theirs = answer.device_bytes(index)
                exact_parts(theirs, ours)
                assert ours.compute_bytes - theirs[2] > -10 * MIB, (sample, ours, theirs)
