"""The one seam of all engines: a plan, an engine and an address become a `Launch`."""

import sys
from pathlib import Path

from glmplan.engine import Engine, EngineKind
from glmplan.errors import NotExpressible
from glmplan.launchers import llama_cpp_python, llama_server, xllamacpp
from glmplan.launchers.launch import Endpoint, Launch
from glmplan.plan import Plan


def assemble(plan: Plan, engine: Engine, endpoint: Endpoint, *, folder: Path) -> Launch:
    """The launch of `plan` by `engine` at `endpoint`; configuration files are to live in `folder`.

    Raises:
        NotExpressible: the engine is of another kind than the plan's, or lacks one of its knobs.
        EngineTooOld: this build lacks an option that the plan depends on.
    """
    if engine.kind is not plan.placement.engine:
        message = f"the plan was made for {plan.placement.engine}, the engine is {engine.kind}"
        raise NotExpressible(
            message,
            hint=f"plan again for {engine.kind}: its buffers differ",
            facts={"planned": plan.placement.engine.value, "engine": engine.kind.value},
        )
    if engine.kind is EngineKind.LLAMA_SERVER:
        return llama_server.launch(plan, engine, endpoint)
    if engine.kind is EngineKind.MLX_LM:
        from glmplan.launchers import mlx_lm

        return mlx_lm.launch(plan, engine, endpoint)
    if engine.kind is EngineKind.IK_LLAMA:
        from glmplan.launchers import ik_llama

        return ik_llama.launch(plan, engine, endpoint)
    config_file = str(folder / f"{engine.kind}-{endpoint.port}.json")
    if engine.kind is EngineKind.OLLAMA:
        from glmplan.launchers import ollama

        return ollama.launch(plan, engine, endpoint, config_file=config_file)
    build = llama_cpp_python.launch if engine.kind is EngineKind.LLAMA_CPP_PYTHON else xllamacpp.launch
    return build(plan, engine, endpoint, python=_interpreter(engine), config_file=config_file)


def _interpreter(engine: Engine) -> str:
    """The Python that has the engine's package: the engine's path if that is one, otherwise this one."""
    return engine.path if Path(engine.path).name.startswith("python") else sys.executable
