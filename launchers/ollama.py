"""Plan to a launch through Ollama: a model made from the plan's own file, loaded by a daemon.

Clients talk to the daemon. The process that is launched (`ollama_child`) creates the model, loads it, keeps it loaded
and unloads it at the end. It uses the daemon that runs already, or starts one of its own with the plan's environment.
"""

import json
import re
import sys
from typing import Final

from glmplan.engine import Engine, engine_environment
from glmplan.errors import EngineTooOld, NotExpressible
from glmplan.launchers.export import ollama, targets
from glmplan.launchers.export.exported import ExportRequest
from glmplan.launchers.launch import Endpoint, Launch, LaunchFile
from glmplan.plan import Plan

MODEL: Final = "glmplan-glm-4.7-flash"
READY_LINE: Final = "glmplan: the model is loaded"
# What the daemon of a launch must not inherit: the plan says it. OLLAMA_MODELS and the like stay.
_DROP_ENV: Final = (
    "LLAMA_ARG_*", "LLAMA_API_KEY", "HF_TOKEN", "OLLAMA_HOST", "OLLAMA_CONTEXT_LENGTH", "OLLAMA_KV_CACHE_TYPE",
    "OLLAMA_FLASH_ATTENTION", "OLLAMA_NUM_PARALLEL", "OLLAMA_MAX_LOADED_MODELS", "OLLAMA_GPU_OVERHEAD",
    "OLLAMA_SCHED_SPREAD", "OLLAMA_KEEP_ALIVE",
)  # fmt: skip


def joins_daemon(engine: Engine) -> bool:
    """Whether a daemon runs already: the engine is then known by its address, not by its program."""
    return engine.path.startswith("http://")


def launch(plan: Plan, engine: Engine, endpoint: Endpoint, *, config_file: str) -> Launch:
    """The child that has the daemon at `endpoint` serve `plan`; its configuration lives in `config_file`.

    Raises:
        NotExpressible: the plan needs what Ollama cannot be told.
        EngineTooOld: a version that cannot run the model.
    """
    joins = joins_daemon(engine)
    request = ExportRequest(plan=plan, endpoint=endpoint)
    ollama.require_possible(request)
    if ollama.is_split(plan.model.file):
        message = f"Ollama takes models of one file; {plan.model.file} is the first of several"
        raise NotExpressible(
            message, hint="merge them: llama-gguf-split --merge FIRST OUT", facts={"file": plan.model.file}
        )
    old = _require_version(engine)
    config = {
        "url": endpoint.url,
        "serve": None if joins else engine.path,
        "file": plan.model.file,
        "create": ollama.create_request(request, MODEL),
    }
    losses = ollama.modelfile_losses(request) if joins or old else ollama.environment_losses(request)
    environment = {} if joins else {**engine_environment(engine, {}), **ollama.variables(request)}
    return Launch(
        engine=engine.kind,
        argv=(sys.executable, "-m", "glmplan.launchers.ollama_child", config_file),
        endpoint=endpoint,
        model_file=plan.model.file,
        model_bytes=plan.model.file_bytes,
        health_path="/api/version",
        timings=False,
        env=tuple(environment.items()),
        drop_env=_DROP_ENV,
        files=(LaunchFile(path=config_file, text=json.dumps(config, indent=2)),),
        losses=(*old, *losses),
        ready_line=READY_LINE,
        joins=joins,
        has_children=not joins,
    )


def _require_version(engine: Engine) -> tuple[str, ...]:
    """What is to be said of a version that runs the model, but not with llama-server.

    Raises:
        EngineTooOld: it cannot run the model.
    """
    facts = targets.of("ollama")
    version, floor, llama_server = engine.version, facts["minimum_version"], facts["llama_server_version"]
    if version is None:
        return ()
    if _numbers(version) < _numbers(floor):
        message = f"Ollama {version} cannot run this model"
        hint = f"update it to {llama_server} or newer (ollama.com/download); {floor} is the oldest that can"
        raise EngineTooOld(message, hint=hint, facts={"version": version, "needed": floor})
    if _numbers(version) >= _numbers(llama_server):
        return ()
    loss = (
        f"the plan's memory: Ollama {version} keeps a V cache beside the latent keys, about 1.9 times the KV cache; "
        f"{llama_server} or newer runs llama-server"
    )
    return (loss,)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
