"""Buffer sizes from load logs: lines printed by real engines, and older spellings."""

import pytest

from glmplan.launchers.load_log import parse
from glmplan.measurement import ROUNDING_BYTES, BufferSize
from glmplan.units import MIB

# llama-server 0c1e570 at --log-verbosity 4, a 3-layer model on a CPU.
SERVER = """\
0.00.010.018 I load_tensors: loading model tensors, this can take a while... (load_mode = mmap)
0.00.010.888 I load_tensors: offloading 0 repeating layers to GPU
0.00.010.907 I load_tensors: offloaded 0/4 layers to GPU
0.00.010.914 I load_tensors:   CPU_Mapped model buffer size =     1.24 MiB
0.00.011.274 I llama_context: constructing llama_context
0.00.011.332 I llama_context:        CPU  output buffer size =     0.00 MiB
0.00.011.574 I llama_kv_cache:        CPU KV buffer size =     2.25 MiB
0.00.013.557 I llama_kv_cache: size =    2.25 MiB (  4096 cells,   3 layers,  1/1 seqs), K (f16):    2.25 MiB
0.00.015.591 I sched_reserve:        CPU compute buffer size =     1.63 MiB
""".splitlines()
# llama-cpp-python 0.3.36 with verbose: the same lines without times.
PYTHON = [line[16:].strip() for line in SERVER]
# The spelling of 2024 builds, two GPUs.
OLD = """\
llm_load_tensors: offloaded 48/48 layers to GPU
llm_load_tensors:        CPU buffer size =   170.16 MiB
llm_load_tensors:      CUDA0 buffer size = 10000.50 MiB
llm_load_tensors:      CUDA1 buffer size =  7113.18 MiB
llama_new_context_with_model: n_ctx      = 4096
llama_kv_cache_init:      CUDA0 KV buffer size =   108.00 MiB
llama_kv_cache_init:      CUDA1 KV buffer size =   103.50 MiB
llama_new_context_with_model: KV self size  =  211.50 MiB, K (f16):  211.50 MiB, V (f16):    0.00 MiB
llama_new_context_with_model:  CUDA_Host  output buffer size =     0.59 MiB
llama_new_context_with_model:      CUDA0 compute buffer size =   300.00 MiB
llama_new_context_with_model:      CUDA1 compute buffer size =   310.25 MiB
llama_new_context_with_model:  CUDA_Host compute buffer size =    20.01 MiB
""".splitlines()


@pytest.mark.parametrize("lines", [SERVER, PYTHON], ids=["llama-server", "llama-cpp-python"])
def test_lines_of_today(lines: list[str]) -> None:
    report = parse(lines)
    assert report.buffers == (
        BufferSize(device="CPU_Mapped", kind="model", n_bytes=round(1.24 * MIB)),
        BufferSize(device="CPU", kind="output", n_bytes=0),
        BufferSize(device="CPU", kind="kv", n_bytes=round(2.25 * MIB)),
        BufferSize(device="CPU", kind="compute", n_bytes=round(1.63 * MIB)),
    )
    assert (report.offloaded_layers, report.total_layers) == (0, 4)


def test_lines_of_older_builds() -> None:
    report = parse(OLD)
    assert report.sum_bytes("model") == round(170.16 * MIB) + round(10000.5 * MIB) + round(7113.18 * MIB)
    assert report.sum_bytes("kv") == round(211.5 * MIB)
    assert report.sum_bytes("compute") == 300 * MIB + round(310.25 * MIB) + round(20.01 * MIB)
    assert report.sum_bytes("output") == round(0.59 * MIB)
    assert (report.offloaded_layers, report.total_layers) == (48, 48)
    assert [buffer.device for buffer in report.buffers if buffer.kind == "model"] == ["CPU", "CUDA0", "CUDA1"]


def test_a_second_reservation_replaces_and_a_second_context_adds() -> None:
    reserve = "sched_reserve:        CPU compute buffer size =     {} MiB"
    again = parse([*SERVER, reserve.format("2.00")])
    assert again.sum_bytes("compute") == 2 * MIB
    draft = parse([*SERVER, "llama_context: constructing llama_context", reserve.format("2.00")])
    assert draft.sum_bytes("compute") == 2 * MIB + round(1.63 * MIB)


def test_two_caches_of_one_device_add_up() -> None:
    cache = "llama_kv_cache:        CPU KV buffer size =     1.00 MiB"
    assert parse([cache, cache]).sum_bytes("kv") == 2 * MIB


def test_a_log_without_sizes_is_empty_not_zero() -> None:
    report = parse(["0.00.1 I srv llama_server: initializing ..."])
    assert report.buffers == ()
    assert report.offloaded_layers is None


def test_rounding_is_half_a_hundredth_of_a_mebibyte() -> None:
    assert ROUNDING_BYTES == 5243
