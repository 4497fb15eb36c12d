"""What every command that starts an engine shares: the plan, the engine it names, the address, and the start."""

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from glmplan.engine import EngineKind
from glmplan.errors import EngineNotFound, InputError, PlanFileError, StalePlan
from glmplan.units import format_bytes

if TYPE_CHECKING:
    from glmplan.engine import Engine
    from glmplan.launchers.client import Target
    from glmplan.launchers.launch import Endpoint
    from glmplan.launchers.process import EngineProcess, LoadProgress
    from glmplan.plan import Plan, PlannedMachine

DEFAULT_PORT: Final = 8080
_KEY_VARIABLE: Final = "GLMPLAN_API_KEY"
_UNSEEN: Final = "its usable cores or the build of its engine are not those found here"
_PLAN_HINT: Final = "glmplan plan -o FILE writes one"


def load_plan(path: str | None) -> "Plan":
    """The plan in the file `path` (`-`: standard input); without one, a plan made for this machine now.

    Raises:
        PlanFileError: the file cannot be read or is no plan.
    """
    if path is None:
        from glmplan.commands.plan import make_plan

        return make_plan()
    from glmplan.jsonio import loads
    from glmplan.plan import Plan
    from glmplan.plan_schema import violations

    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        plan = loads(Plan, text, origin=path)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        message = f"cannot read the plan {path}: {why}"
        raise PlanFileError(message, hint=_PLAN_HINT) from error
    except InputError as error:
        raise PlanFileError(error.message, hint=_PLAN_HINT) from error
    wrong = next(violations(json.loads(text)), None)
    if wrong is not None:
        message = f"{path}: {wrong}"
        raise PlanFileError(message, hint=_PLAN_HINT)
    return plan


def for_this_machine(plan: "Plan", *, force: bool = False) -> "Plan":
    """`plan`, if it was made for this machine and this engine build; with `force`, restamped as if it was.

    Raises:
        StalePlan: it was made for something else; says what differs.
    """
    from glmplan.commands.situation import situation_of, without_gpus
    from glmplan.planner.machine_id import planned_machine

    here = situation_of(None, None, engine=plan.placement.engine.value)
    machine = planned_machine(here.machine if here.use_gpus else without_gpus(here.machine), here.engine)
    if machine.fingerprint == plan.machine.fingerprint:
        return plan
    require_same_machine(plan, machine, force=force, else_says=_UNSEEN)
    return dataclasses.replace(plan, machine=machine)


def require_same_machine(plan: "Plan", machine: "PlannedMachine", *, force: bool, else_says: str | None = None) -> None:
    """Prove that a person would call `machine` the plan's; `else_says` is what differs where nothing is seen.

    Raises:
        StalePlan: it is another one; says what differs. With `force` that is said on standard error.
    """
    differs = _differences(plan.machine, machine) or else_says
    if differs is None:
        return
    if not force:
        message = f"the plan was made for another machine or engine: {differs}"
        raise StalePlan(
            message,
            hint="glmplan plan makes one for this machine; --force launches this one as it is",
            facts={"planned": plan.machine.fingerprint, "here": machine.fingerprint},
        )
    sys.stderr.write(f"forced: the plan was made for another machine or engine: {differs}\n")


def _differences(planned: "PlannedMachine", here: "PlannedMachine") -> str | None:
    """What a person can see of two machines that differ; None where that is nothing."""
    pairs = [
        ("system", planned.os, here.os),
        ("processor", planned.cpu, here.cpu),
        ("main memory", format_bytes(planned.host_memory_bytes), format_bytes(here.host_memory_bytes)),
        ("GPUs", _names(planned), _names(here)),
    ]
    seen = [f"{what} {before}, here {now}" for what, before, now in pairs if before != now]
    return "; ".join(seen) or None


def _names(machine: "PlannedMachine") -> str:
    return ", ".join(gpu.name for gpu in machine.gpus) or "none"


def engine_for(plan: "Plan") -> "Engine":
    """The engine on this machine that the plan names.

    Raises:
        EngineNotFound: it is not here; says which others are.
    """
    from glmplan.profiles.host import LocalHost
    from glmplan.profiles.probes.engine import find_engines

    wanted = plan.placement.engine
    if not wanted.is_llama_cpp:
        return _other_engine(wanted)
    found = find_engines(LocalHost())
    engine = next((engine for engine in found if engine.kind is wanted), None)
    if engine is not None:
        return engine
    others = ", ".join(engine.kind.value for engine in found)
    message = f"the plan is for {wanted}, which is not on this machine; found: {others or 'no engine'}"
    raise EngineNotFound(
        message,
        hint=f"install it, or plan again for {found[0].kind}" if found else _INSTALL,
        facts={"wanted": wanted.value, "found": [engine.kind.value for engine in found]},
    )


def _other_engine(wanted: EngineKind) -> "Engine":
    """An engine that takes plans in its own words.

    Raises:
        EngineNotFound: it is not here, or does not start.
    """
    from glmplan.commands.situation import how_to_install
    from glmplan.profiles.host import LocalHost
    from glmplan.profiles.probes.other_servers import find_ik_llama, find_mlx_lm, find_ollama

    find = {EngineKind.OLLAMA: find_ollama, EngineKind.MLX_LM: find_mlx_lm, EngineKind.IK_LLAMA: find_ik_llama}
    engine = find[wanted](LocalHost(budget_s=_PATIENT_S))
    if engine is None:
        message = f"the plan is for {wanted}, which is not on this machine, or does not start"
        raise EngineNotFound(message, hint=how_to_install(wanted), facts={"wanted": wanted.value})
    return engine


def llama_cpp_engine_for(plan: "Plan", what: str) -> "Engine":
    """The engine of a plan that `what` (a command) can turn the knobs of.

    Raises:
        InputError: the plan is for one that hides them.
        EngineNotFound: it is not here.
    """
    kind = plan.placement.engine
    if not kind.answers_as_llama_server:
        message = f"glmplan {what} turns knobs of llama.cpp, which {kind} keeps to itself"
        raise InputError(
            message, hint="plan for llama-server, or another engine of these knobs", facts={"engine": kind.value}
        )
    return engine_for(plan)


_PATIENT_S: Final = 60.0
_INSTALL: Final = (
    "pip install 'glmplan[quick]' (prebuilt) or 'glmplan[engine]' (compiled here), or put llama-server on PATH"
)


def endpoint_for(host: str, port: int, api_key_file: Path | None, engine: "Engine | None" = None) -> "Endpoint":
    """Where to listen; port 0 takes a free one. `engine` may have a model name, or even an address, of its own.

    A key is used when one is given by file or in GLMPLAN_API_KEY. An address that other machines can reach demands
    one: it is then generated, and shown on standard error this once.

    Raises:
        InputError: the key file cannot be used.
    """
    from glmplan.launchers import api_keys, records
    from glmplan.launchers import port as ports
    from glmplan.launchers.launch import Endpoint

    chosen = port or ports.free_port(host)
    given = os.environ.get(_KEY_VARIABLE)
    key_file: Path | None = None
    if api_key_file is not None:
        api_keys.require_key(api_key_file)
        key_file = api_key_file.resolve()
    elif given:
        key_file = records.new_key_file()
        api_keys.store(key_file, given)
    elif not Endpoint(host=host, port=chosen).is_loopback:
        key_file = records.new_key_file()
        key = api_keys.generate(key_file)
        sys.stderr.write(f"{host} can be reached from other machines. API key, shown this once: {key}\n")
    endpoint = Endpoint(host=host, port=chosen, api_key_file=None if key_file is None else str(key_file))
    return endpoint if engine is None else _as_engine_has_it(endpoint, engine)


def _as_engine_has_it(endpoint: "Endpoint", engine: "Engine") -> "Endpoint":
    """`endpoint` with the model name of an engine that chooses it; at its daemon's address where that runs already."""
    if engine.kind is EngineKind.MLX_LM:
        from glmplan.launchers.mlx_lm import DEFAULT_MODEL

        return dataclasses.replace(endpoint, alias=DEFAULT_MODEL)
    if engine.kind is not EngineKind.OLLAMA:
        return endpoint
    from glmplan.launchers.ollama import MODEL, joins_daemon

    named = dataclasses.replace(endpoint, alias=MODEL)
    if not joins_daemon(engine):
        return named
    address = urlsplit(engine.path)
    sys.stderr.write(f"the Ollama that runs at {engine.path} is used, and stays when this ends\n")
    return dataclasses.replace(named, host=address.hostname or named.host, port=address.port or named.port)


@contextlib.contextmanager
def launched(
    plan: "Plan",
    engine: "Engine",
    endpoint: "Endpoint",
    *,
    timeout_s: float | None = None,
    on_progress: "Callable[[LoadProgress], None]",
) -> "Generator[tuple[EngineProcess, float], None, None]":
    """A healthy engine serving `plan` at `endpoint` as long as the block lasts, and the milliseconds that took.

    For measurements: the engine is started once, with this very plan.

    Raises:
        EngineError: it cannot be started, dies, or does not answer in time.
        InputError: the model file is not here or not whole.
    """
    from glmplan.commands.serving import ONCE, serving

    with serving(plan, engine, endpoint, ONCE, timeout_s=timeout_s, on_progress=on_progress) as service:
        yield service.process, service.load_ms


def target_of(endpoint: "Endpoint", plan: "Plan | None" = None) -> "Target":
    """The running engine at `endpoint` as something to send requests to; one that says little is taken by its plan."""
    from glmplan.launchers.client import ApiKey, Target, look

    key = endpoint.api_key()
    if plan is not None and not plan.placement.engine.answers_as_llama_server:
        placement = plan.placement
        return Target(
            url=endpoint.url, model=endpoint.alias, timings=False, tells_usage=True,
            n_ctx=placement.n_ctx // placement.n_parallel, n_slots=placement.n_parallel,
        )  # fmt: skip
    return look(endpoint.url, api_key=ApiKey(key) if key else None)
