"""What a launch is, whatever the engine: a command, its environment, and how to talk to what it starts."""

from pathlib import Path
from typing import Final

from glmplan.engine import EngineKind
from glmplan.noun import noun

ALIAS: Final = "glm-4.7-flash"
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, never bound


@noun
class Sampling:
    """Sampling defaults a server applies when a request names none."""

    temperature: float
    top_p: float
    min_p: float
    repeat_penalty: float


# Temperature and top-p: "Evaluation Parameters" of the model card of zai-org/GLM-4.7-Flash. min-p 0.01 because
# llama.cpp's own default is 0.05, repeat penalty off: unsloth.ai/docs/models/glm-4.7-flash.
MODEL_CARD: Final = Sampling(temperature=1.0, top_p=0.95, min_p=0.01, repeat_penalty=1.0)


@noun
class Endpoint:
    """Where an engine listens and under which model name; the key stays in its file."""

    host: str = "127.0.0.1"
    port: int
    alias: str = ALIAS
    api_key_file: str | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.host in LOOPBACK

    @property
    def url(self) -> str:
        """Where a client on this machine connects to."""
        host = _ANY_ADDRESS.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def api_key(self) -> str | None:
        """The key, read from its file; None when clients need none."""
        return first_key(Path(self.api_key_file)) if self.api_key_file else None


@noun
class LaunchFile:
    """A configuration file an engine reads; written before the start, readable by its owner only."""

    path: str
    text: str


@noun
class Launch:
    """One engine, ready to start.

    `env` is set for the child (`*LIBRARY_PATH`, `*_TUNABLES`: put before what is inherited), `drop_env` (upper-case
    patterns) removed. `key_env` names a variable that carries the API key, for engines that take it neither from a file
    nor safely from a command line.
    `timings`: replies tell the engine's own times, and prompts may be token ids.
    `listens_before_it_loads`: it says it is healthy while its model still loads, and 503 when its model is lost, its
    process staying. `joins`: the server at `endpoint` is somebody else's, so that its port is not to be free;
    `ready_line` in the log then says that it serves the plan. `has_children`: it starts servers of its own, which must
    not outlive it. `losses` are the parts of the plan that this engine has no words for.
    """

    engine: EngineKind
    argv: tuple[str, ...]
    endpoint: Endpoint
    model_file: str
    model_bytes: int
    health_path: str
    timings: bool
    env: tuple[tuple[str, str], ...] = ()
    drop_env: tuple[str, ...] = ()
    files: tuple[LaunchFile, ...] = ()
    key_env: str | None = None
    listens_before_it_loads: bool = False
    joins: bool = False
    ready_line: str | None = None
    has_children: bool = False
    losses: tuple[str, ...] = ()


def first_key(path: Path) -> str | None:
    """The first key of a key file: one per line, `#` starts a comment."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return next((line for line in lines if line and not line.startswith("#")), None)


def override_patterns(n_cpu_moe: int) -> tuple[str, ...]:
    """What `--n-cpu-moe N` expands to: the routed experts of the first N layers.

    Source: llama.cpp common/common.h `llm_ffn_exps_block_regex`.
    """
    return tuple(rf"blk\.{layer}\.ffn_(up|down|gate|gate_up)_(ch|)exps" for layer in range(n_cpu_moe))
