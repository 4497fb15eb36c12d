"""mlx_lm.server command lines, its version gate, and what an engine that stays without its model died of."""

from pathlib import Path
from typing import Any

import pytest
from launch_plans import plan_of

from glmplan.engine import Engine, EngineKind
from glmplan.errors import EngineTooOld, InputError, NotExpressible
from glmplan.launchers import failures
from glmplan.launchers.assemble import assemble
from glmplan.launchers.launch import Endpoint, Launch
from glmplan.launchers.mlx_lm import DEFAULT_MODEL
from glmplan.profiles.mlx_weights import find_weights, read_weights
from glmplan.profiles.probes import other_servers
from glmplan.profiles.stores import Stores

FLAGS = frozenset({
    "--model", "--host", "--port", "--allowed-origins", "--temp", "--top-p", "--min-p", "--max-tokens",
    "--chat-template-args", "--decode-concurrency", "--prompt-concurrency", "--prefill-step-size",
    "--prompt-cache-bytes",
})  # fmt: skip


def launch_of(
    version: str | None = "0.32.2", flags: frozenset[str] = FLAGS, host: str = "127.0.0.1", **knobs: Any
) -> Launch:
    engine = Engine(kind=EngineKind.MLX_LM, path="/bin/mlx_lm.server", version=version, flags=flags)
    plan = plan_of(Path("/models/glm-4bit"), EngineKind.MLX_LM, file_bytes=1, **knobs)
    return assemble(plan, engine, Endpoint(host=host, port=8080, alias=DEFAULT_MODEL), folder=Path("/run"))


def test_the_command_line_says_what_it_can() -> None:
    launch = launch_of(n_ctx=65536, n_batch=1024, n_ubatch=1024, n_parallel=2)
    words = list(launch.argv)
    said = dict(zip(words[1::2], words[2::2], strict=True))
    wanted = {
        "--model": "/models/glm-4bit", "--host": "127.0.0.1", "--port": "8080", "--temp": "1", "--top-p": "0.95",
        "--min-p": "0.01", "--max-tokens": "32768", "--decode-concurrency": "2", "--prefill-step-size": "1024",
        "--prompt-cache-bytes": str(54144 * 65536), "--allowed-origins": "http://localhost",
    }  # fmt: skip
    assert {name: said[name] for name in wanted} == wanted
    assert "--kv-bits" not in said
    assert ("HF_HUB_OFFLINE", "1") in launch.env
    assert launch.listens_before_it_loads
    assert any("65536 tokens of context" in loss for loss in launch.losses)
    assert not any("ubatch" in loss or "the model name" in loss for loss in launch.losses)


@pytest.mark.parametrize("version", ["0.30.4", "0.29.1"])
def test_versions_with_the_large_kv_cache_are_refused(version: str) -> None:
    with pytest.raises(EngineTooOld, match=r"ten times larger") as caught:
        launch_of(version)
    assert caught.value.facts["needed"] == "0.30.5"


def test_a_build_without_an_option_goes_without_it_unless_the_plan_needs_it() -> None:
    assert "--prompt-cache-bytes" not in launch_of(flags=FLAGS - {"--prompt-cache-bytes"}).argv
    with pytest.raises(EngineTooOld, match=r"mlx-lm build 0\.32\.2 has no --max-tokens"):
        launch_of(flags=FLAGS - {"--max-tokens"})


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"cache_type_k": "q8_0", "cache_type_v": "q8_0"}, "a KV cache of q8_0"),
        ({"n_cpu_moe": 4}, "experts of 3 layers in main memory"),
        ({"host": "0.0.0.0"}, "open to everybody"),
    ],
)
def test_plans_it_cannot_run_are_refused(knobs: dict[str, Any], said: str) -> None:
    with pytest.raises(NotExpressible, match=said):
        launch_of(**knobs)


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("ERROR - mlx_lm.server generation thread died: [METAL] Insufficient Memory", "out-of-memory"),
        ("ERROR - mlx_lm.server generation thread died: Missing 18 parameters:", "model-broken"),
        ("ModuleNotFoundError: No module named 'mlx_lm.models.martian'", "model-unknown"),
        ("ERROR - mlx_lm.server generation thread died: top_k", "model-lost"),
        ("GET /health 503", "unknown"),
    ],
)
def test_a_process_that_stays_without_its_model_is_told_by_its_log(line: str, cause: str) -> None:
    failure = failures.classify(None, ["INFO - loading", line])
    assert failure.cause.value == cause
    assert "its process stayed" in failures.exited(failure, [line], log="x.log", when="while loading").message


def write_weights(folder: Path, config: str = '{"model_type": "glm4_moe_lite", "num_hidden_layers": 47}') -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config)
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"x" * 10)
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"x" * 5)
    return folder


def test_published_weights_are_found_in_the_hubs_cache(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--mlx-community--GLM-4.7-Flash-4bit"
    snapshot = write_weights(
        repository / "snapshots" / "abc",
        '{"model_type": "glm4_moe_lite", "num_hidden_layers": 47, "max_position_embeddings": 202752, '
        '"quantization": {"bits": 4, "group_size": 64}}',
    )
    stores = Stores(env={"HF_HUB_CACHE": str(tmp_path / "hub")}, home=tmp_path)
    assert find_weights(stores, "mlx-community/GLM-4.7-Flash-4bit") == snapshot
    assert find_weights(stores, "mlx-community/GLM-4.7-Flash-8bit") is None
    model = read_weights(snapshot)
    assert (model.name, model.quantization, model.file_bytes) == ("GLM-4.7-Flash-4bit", "4bit", 15)
    assert (model.architecture, model.n_layer, model.n_ctx_train) == ("glm4_moe_lite", 47, 202752)


@pytest.mark.parametrize("config", ["not json", "{}", '{"model_type": "glm4_moe_lite"}', "[]"])
def test_a_folder_that_is_no_model_is_told(tmp_path: Path, config: str) -> None:
    with pytest.raises(InputError, match="no folder of MLX weights"):
        read_weights(write_weights(tmp_path / "x", config))


def test_options_are_read_off_argparse_help() -> None:
    printed = (
        "usage: x [--host HOST]\n\noptions:\n  -h, --help  show\n  --model MODEL  The --path\n  --kv-bits KV_BITS\n"
    )
    assert set(other_servers.OPTION.findall(printed)) == {"--model", "--kv-bits"}
