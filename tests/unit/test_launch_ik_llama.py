"""Command lines for ik_llama.cpp, how its server is recognised, and when a race may hand a plan to it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from launch_plans import plan_of

from glmplan.engine import Engine, EngineKind
from glmplan.errors import EngineTooOld, NotExpressible
from glmplan.launchers.assemble import assemble
from glmplan.launchers.launch import Endpoint, Launch
from glmplan.placement import FlashAttention
from glmplan.planner.candidates import base_placement
from glmplan.planner.memory import MemoryModel
from glmplan.planner.neighbours import Surroundings, combined, neighbours
from glmplan.planner.spaces import HostSpace, Spaces
from glmplan.planner.variants import fits_while_loading
from glmplan.profiles.probes.other_servers import find_ik_llama
from glmplan.profiles.recipes import catalog_profile
from glmplan.profiles.tape import TapeHost
from glmplan.units import GIB

# Lines of its own help, as printed.
HELP = """usage: ./ik-llama-server [options]
  -t,    --threads N              number of threads to use during generation (default: 2)
  -tb,   --threads-batch N        number of threads to use during batch and prompt processing
  -c,    --ctx-size N             size of the prompt context (default: 0, 0 = loaded from model)
         --ctx-checkpoints N      max number of context checkpoints to create per slot (default: 32)
  -cram, --cache-ram N            set the maximum cache size in MiB (default: 8192, -1 - no limit, 0 - disable)
  -b,    --batch-size N           logical maximum batch size (default: 2048)
  -ub,   --ubatch-size N          physical maximum batch size (default: 512)
  -fa, --flash-attn (auto|on|off|0|1)
  -mla,  --mla-use                enable MLA (default: 3)
  -ctk,  --cache-type-k TYPE      KV cache data type for K (default: f16)
  -ctv,  --cache-type-v TYPE      KV cache data type for V (default: f16)
  -np,   --parallel N             number of parallel sequences to decode (default: 1)
         --mlock                  force system to keep model in RAM rather than swapping or compressing
         --no-mmap                do not memory-map model
         --run-time-repack        repack tensors if interleaved variant is available
         --numa TYPE              attempt optimizations that help on some NUMA systems
  -m,    --model FNAME            model path
         --host HOST              ip address to listen (default: 127.0.0.1)
         --port PORT              port to listen (default: 8080)
         --api-key-file FNAME     path to file containing API keys (default: none)
         --webui NAME             controls which webui to server:
"""
PROGRAM = "/opt/ik/ik-llama-server"


def tape(folder: Path, helped: str = HELP, version: str = "version: 4682 (1a2b3c4d)\nbuilt with cc") -> TapeHost:
    (folder / "meta.yaml").touch()
    (folder / "call").mkdir()
    (folder / "call" / "engine_places.json").write_text(
        json.dumps({"programs": {"ik-llama-server": PROGRAM}, "packages": {}})
    )
    runs = [
        {"argv": [PROGRAM, word], "returncode": 0, "stdout": out, "stderr": err}
        for word, out, err in (("--help", helped, ""), ("--version", "", version))
    ]
    (folder / "run.json").write_text(json.dumps(runs))
    return TapeHost(folder)


def engine_in(folder: Path) -> Engine:
    engine = find_ik_llama(tape(folder))
    assert engine is not None
    return engine


def launch_of(engine: Engine, *, key: str | None = None, **knobs: Any) -> Launch:
    wanted = {"n_gpu_layers": 0, "n_cpu_moe": 0, "flash_attn": FlashAttention.ON, **knobs}
    plan = plan_of(Path("/models/flash.gguf"), EngineKind.IK_LLAMA, file_bytes=1, **wanted)
    endpoint = Endpoint(host="127.0.0.1", port=8080, alias="flash", api_key_file=key)
    return assemble(plan, engine, endpoint, folder=Path("/run"))


def test_its_server_is_recognised_by_an_option_of_its_own(tmp_path: Path) -> None:
    engine = engine_in(tmp_path)
    assert (engine.kind, engine.path, engine.version) == (EngineKind.IK_LLAMA, PROGRAM, "4682 (1a2b3c4d)")
    assert {"--threads", "--flash-attn", "--mla-use", "--run-time-repack", "--cache-ram"} <= engine.flags


@pytest.mark.parametrize(
    "said", [{"helped": HELP.replace("--run-time-repack", "--no-repack")}, {"version": "cannot open shared object"}]
)
def test_what_is_another_program_or_does_not_start_is_not_it(tmp_path: Path, said: dict[str, str]) -> None:
    assert find_ik_llama(tape(tmp_path, **said)) is None


def test_the_command_line(tmp_path: Path) -> None:
    launch = launch_of(engine_in(tmp_path), n_ctx=4096, repack=True, use_mmap=False, huge_pages=True, n_threads=6)
    words = list(launch.argv)
    for flag, value in (
        ("--ctx-size", "4096"), ("--threads", "6"), ("--mla-use", "3"), ("--flash-attn", "on"), ("--alias", "flash"),
        ("--host", "127.0.0.1"), ("--ctx-checkpoints", "0"), ("--webui", "none"),
    ):  # fmt: skip
        assert words[words.index(flag) + 1] == value
    assert "--run-time-repack" in words
    assert not {"--no-repack", "--no-mmap", "--fit", "--n-gpu-layers"} & set(words)
    assert dict(launch.env) == {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def test_weights_as_they_are_and_mapped_or_not(tmp_path: Path) -> None:
    engine = engine_in(tmp_path)
    mapped = launch_of(engine, repack=False, use_mmap=True).argv
    assert not {"--run-time-repack", "--no-mmap"} & set(mapped)
    assert "--no-mmap" in launch_of(engine, repack=False, use_mmap=False).argv


def test_a_server_without_a_key_is_said_to_be_open_to_web_pages(tmp_path: Path) -> None:
    engine = engine_in(tmp_path)
    assert any("web page" in loss for loss in launch_of(engine).losses)
    assert launch_of(engine, key="/run/key").losses == ()


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"n_gpu_layers": 48}, "layers on a GPU"),
        ({"n_parallel": 2}, "several slots"),
        ({"load_mtp": True}, "multi-token"),
    ],
)
def test_what_it_is_not_handed(tmp_path: Path, knobs: dict[str, Any], said: str) -> None:
    with pytest.raises(NotExpressible, match=said):
        launch_of(engine_in(tmp_path), **knobs)


def test_a_build_without_what_the_plan_needs_is_refused(tmp_path: Path) -> None:
    engine = engine_in(tmp_path)
    with pytest.raises(EngineTooOld, match="--mla-use"):
        launch_of(replace(engine, flags=engine.flags - {"--mla-use"}))


@pytest.mark.parametrize(
    ("n_ctx", "n_ubatch", "seen_mib"),
    [
        (4096, 512, 306.50), (32768, 512, 1744.15), (32768, 128, 1696.04), (32768, 2048, 1936.62),
        (131072, 512, 6880.15),
    ],
)  # fmt: skip
def test_its_compute_buffer_is_what_its_log_said(n_ctx: int, n_ubatch: int, seen_mib: float) -> None:
    memory = MemoryModel(catalog_profile("q4_K_M"), Spaces(gpus=(), host=HostSpace(usable_bytes=64 * GIB)))
    base = base_placement(
        memory, engine=EngineKind.IK_LLAMA, n_ctx=n_ctx, cache="f16", n_parallel=1, n_threads=8, n_threads_batch=8
    )
    (host,) = memory.estimate(replace(base, n_ubatch=n_ubatch)).devices
    assert host.compute_bytes / 2**20 == pytest.approx(seen_mib, abs=0.02)


def test_its_plans_repack_in_place(tmp_path: Path) -> None:
    memory = MemoryModel(catalog_profile("q4_K_M"), Spaces(gpus=(), host=HostSpace(usable_bytes=22 * GIB)))
    kinds = (EngineKind.IK_LLAMA, EngineKind.LLAMA_SERVER)
    by_ik, by_llama = (
        base_placement(memory, engine=kind, n_ctx=8192, cache="f16", n_parallel=1, n_threads=8, n_threads_batch=8)
        for kind in kinds
    )
    assert (by_ik.repack, by_ik.use_mmap) == (True, False)
    # 17 GiB of file fit once into 22 GiB, but not beside a repacked copy.
    assert fits_while_loading(memory, by_ik)
    assert not fits_while_loading(memory, replace(by_llama, repack=True))
    assert "--run-time-repack" in launch_of(engine_in(tmp_path), repack=True, use_mmap=False).argv


def test_a_race_tries_it_on_processors_where_it_is_installed() -> None:
    memory = MemoryModel(catalog_profile("q4_K_M"), Spaces(gpus=(), host=HostSpace(usable_bytes=64 * GIB)))
    plan = base_placement(
        memory, engine=EngineKind.LLAMA_SERVER, n_ctx=8192, cache="f16", n_parallel=1, n_threads=8, n_threads_batch=8
    )
    around = Surroundings(physical_cores=8, usable_cores=16, n_tokens=2048)
    assert all(each.placement.engine is plan.engine for each in neighbours(plan, memory, around)[0])
    with_it = replace(around, engines=frozenset({EngineKind.IK_LLAMA}), no_huge_pages=None)
    found, _ = neighbours(plan, memory, with_it)
    handed = [each for each in found if each.placement.engine is EngineKind.IK_LLAMA]
    assert [(each.placement.repack, each.placement.use_mmap) for each in handed] == [(True, False), (False, True)]
    assert {each.placement.flash_attn for each in handed} == {FlashAttention.ON}
    pages = next(each for each in found if each.placement.huge_pages and each.placement.use_mmap)
    both = combined(plan, [handed[0], pages], memory)
    assert both is not None
    assert (both.placement.engine, both.placement.huge_pages) == (EngineKind.IK_LLAMA, True)
    several = replace(plan, n_parallel=2)
    assert all(each.placement.engine is plan.engine for each in neighbours(several, memory, with_it)[0])
    pinned = replace(with_it, pins=frozenset({"engine"}))
    assert all(each.placement.engine is plan.engine for each in neighbours(plan, memory, pinned)[0])
