"""What other runtimes and older builds store per token, and what an estimate makes of it."""

import json
from typing import Any

import pytest

from glmplan.cli import application
from glmplan.errors import GlmplanError, InputError
from glmplan.ggml_types import GgmlType
from glmplan.placement import FlashAttention
from glmplan.planner.runtimes import layout_of, stored_bytes_per_token, stored_widths
from glmplan.profiles.recipes import catalog_profile
from glmplan.profiles.runtime_layouts import runtime_history, runtime_names
from glmplan.runtime_layout import CacheContent

app = application()

GLM = catalog_profile("q4_K_M")
QWEN = catalog_profile("q4_K_M", model="qwen3-30b-a3b")


@pytest.mark.parametrize(
    ("stores", "f16", "q8_0", "q4_0"),
    [
        (CacheContent.LATENT_K, 54_144, 28_764, 15_228),
        (CacheContent.LATENT_K_V, 102_272, 54_332, 28_764),
        (CacheContent.PER_HEAD, 962_560, 511_360, 270_720),
    ],
)
def test_bytes_per_token(stores: CacheContent, f16: int, q8_0: int, q4_0: int) -> None:
    found = [stored_bytes_per_token(GLM, stores, kind) for kind in (GgmlType.F16, GgmlType.Q8_0, GgmlType.Q4_0)]
    assert found == [f16, q8_0, q4_0]


def test_grouped_query_models_are_stored_the_same_everywhere() -> None:
    assert len({stored_widths(QWEN.attention, stores) for stores in CacheContent}) == 1


@pytest.mark.parametrize(
    ("runtime", "version", "stores", "flash_attention"),
    [
        ("llama.cpp", "b7779", "latent_k_v", False),
        ("llama.cpp", "7828", "latent_k_v", False),
        ("llama.cpp", "b7829", "latent_k", False),
        ("llama.cpp", "b7835", "latent_k", False),
        ("llama.cpp", "b7836", "latent_k", True),
        ("llama.cpp", "b10488", "latent_k", True),
        ("llama.cpp", "0.5.0", "latent_k", True),
        ("llama.cpp", "2026-01-20", "latent_k_v", False),
        ("llama.cpp", "2026-02", "latent_k", True),
        ("llama.cpp", None, "latent_k", True),
        ("ollama", "0.14.3-rc2", "per_head", True),
        ("ollama", "0.15.0", "per_head", True),
        ("ollama", "v0.15.1", "latent_k_v", True),
        ("ollama", "0.20.0", "latent_k_v", True),
        ("ollama", "0.30.0", "latent_k", True),
        ("ollama", "0.33.0-rc2", "latent_k", True),
        ("mlx-lm", "0.30.4", "per_head", True),
        ("mlx-lm", "0.30.5", "latent_k", True),
        ("vllm", "0.14.1", "per_head", True),
        ("vllm", "0.15.0", "latent_k", True),
        ("per-head", None, "per_head", None),
    ],
)
def test_layout_by_version(runtime: str, version: str | None, stores: str, flash_attention: bool | None) -> None:
    layout = layout_of(runtime_history(runtime), version)
    assert (layout.stores.value, layout.flash_attention) == (stores, flash_attention)


@pytest.mark.parametrize(
    ("runtime", "version", "floor"),
    [
        ("llama.cpp", "b7700", "b7779"),
        ("llama.cpp", "2025-12-31", "b7779"),
        ("ollama", "0.14.2", "0.14.3"),
        ("mlx-lm", "0.30.3", "0.30.4"),
        ("vllm", "0.13.0", "0.14.0"),
    ],
)
def test_versions_before_the_model_are_refused_with_the_floor(runtime: str, version: str, floor: str) -> None:
    with pytest.raises(InputError) as caught:
        layout_of(runtime_history(runtime), version)
    assert caught.value.facts["floor"] == floor
    assert floor in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize("nonsense", ["", "latest", "b", "1.2.x", "2026-1"])
def test_what_is_no_version_is_refused(nonsense: str) -> None:
    with pytest.raises(InputError):
        layout_of(runtime_history("ollama"), nonsense)


def test_rows_are_in_order_and_name_their_sources() -> None:
    assert {"llama.cpp", "ollama", "mlx-lm", "vllm"} <= {*runtime_names()}
    for name in runtime_names():
        history = runtime_history(name)
        assert history.layouts[0].since == history.floor
        dates = [layout.date for layout in history.layouts]
        assert dates == sorted(dates)
        assert all(layout.sources for layout in history.layouts)
        assert [layout_of(history, layout.since) for layout in history.layouts] == list(history.layouts)
    newest = [runtime_history(name).layouts[-1].stores for name in ("llama.cpp", "ollama", "mlx-lm", "vllm")]
    assert newest == [CacheContent.LATENT_K] * 4


def estimate(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    app(["estimate", "--json", "--n-ctx", "8192", *words], standalone_mode=False)
    return json.loads(capsys.readouterr().out)


def kv(document: Any) -> int:
    return sum(row["kv_cache_bytes"] for row in document["memory"]["devices"])


def test_the_estimate_follows_the_layout(capsys: pytest.CaptureFixture[str]) -> None:
    on = ("--on", "2x rtx-4090")
    now, old, twice = (
        estimate(capsys, *on, *words)
        for words in ((), ("--runtime", "ollama", "--runtime-version", "0.14.3"), ("--runtime-version", "b7800"))
    )
    assert (now["runtime"]["kv_bytes_per_token"], kv(now)) == (54_144, 54_144 * 8192)
    # Published at 8,192 tokens: 800 MiB + 6.6 GiB.
    assert (old["runtime"]["kv_bytes_per_token"], kv(old)) == (962_560, 962_560 * 8192)
    assert kv(twice) == 102_272 * 8192
    assert now["warnings"] == []
    assert "962560 bytes per token" in old["warnings"][0]
    assert old["memory"]["basis"] == "assumed"
    assert old["runtime"]["sources"]


def test_builds_without_flash_attention_run_without_it(capsys: pytest.CaptureFixture[str]) -> None:
    on_gpu = estimate(capsys, "--on", "rtx-4090", "--runtime-version", "b7800")
    assert on_gpu["placement"]["flash_attn"] == FlashAttention.OFF
    assert any("no flash attention" in warning for warning in on_gpu["warnings"])
    on_cpu = estimate(capsys, "--on", "cpu:64GiB", "--runtime-version", "b7800")
    assert on_cpu["placement"]["flash_attn"] == FlashAttention.ON


def test_f32_masks_cost_what_the_mask_says(capsys: pytest.CaptureFixture[str]) -> None:
    """Four bytes per token of context and of the batch more on the only card, two on the host."""
    old, new = (
        estimate(capsys, "--on", "rtx-4090", "--runtime-version", version, "--outputs", "1")["memory"]["devices"]
        for version in ("b9359", "b9360")
    )
    mask = 8192 * 512
    # The rows of logits that both builds reserve are larger than either mask here.
    assert old[0]["compute_bytes"] == new[0]["compute_bytes"]
    assert old[1]["compute_bytes"] - new[1]["compute_bytes"] == 2 * mask


def test_a_converted_cache_is_somewhere(capsys: pytest.CaptureFixture[str]) -> None:
    """Before June 2026 in CUDA's pool, since then in the compute buffer."""
    words = ("--on", "rtx-4090", "--cache-type", "q8_0", "--n-ctx", "131072")
    old, new = (
        estimate(capsys, *words, "--runtime-version", version)["memory"]["devices"][0] for version in ("b9499", "b9500")
    )
    assert old["overhead_bytes"] - new["overhead_bytes"] == 1152 * 131072
    assert old["compute_bytes"] < new["compute_bytes"]


@pytest.mark.parametrize(
    "words",
    [
        ("--runtime", "mlx-lm", "--cache-type", "q8_0"),
        ("--runtime", "vllm", "--cache-type", "q4_0"),
        ("--runtime-version", "b7800", "--cache-type", "q8_0"),
        ("--runtime", "ollama", "--exact"),
        ("--runtime-version", "b8000", "--exact"),
        ("--runtime", "tensorrt"),
    ],
)
def test_what_a_version_cannot_do_is_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(GlmplanError) as caught:
        app(["estimate", "--on", "rtx-4090", *words], standalone_mode=False)
    assert caught.value.exit_code == 2
    assert caught.value.hint


def test_mlx_runs_at_its_own_speed(capsys: pytest.CaptureFixture[str]) -> None:
    theirs, ours = (
        estimate(capsys, "--on", "apple-m4-max:64", "--runtime", runtime)["speed"]["decode_tokens_per_s"]["value"]
        for runtime in ("mlx-lm", "llama.cpp")
    )
    assert theirs > 1.1 * ours
