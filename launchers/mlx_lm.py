"""Plan to `mlx_lm.server`: MLX weights in a folder, and what of a plan its command line can say.

Source: mlx-lm 0.32.2 mlx_lm/server.py. It listens before its model is loaded and says it is healthy from then on; after
a failed load or a lost generation thread /health says 503, and the process stays.
"""

import re
from typing import Final

from glmplan.engine import Engine
from glmplan.errors import EngineTooOld
from glmplan.launchers.export import mlx, targets
from glmplan.launchers.export.exported import ExportRequest
from glmplan.launchers.knobs import Knob, words
from glmplan.launchers.launch import Endpoint, Launch
from glmplan.plan import Plan

DEFAULT_MODEL: Final = mlx.DEFAULT_MODEL
# Any web page could otherwise call a keyless server on this machine; its own default is every origin.
_ORIGINS: Final = "http://localhost"
_NEEDED: Final = {
    "--model": "the weights",
    "--host": "the address",
    "--port": "the port",
    "--max-tokens": "answers longer than 512 tokens",
}


def launch(plan: Plan, engine: Engine, endpoint: Endpoint) -> Launch:
    """The server of the folder of MLX weights that `plan` names; it uses no network.

    Raises:
        NotExpressible: the plan needs what mlx-lm cannot do.
        EngineTooOld: a version before the model's KV cache became small, or without an option the plan needs.
    """
    request = ExportRequest(plan=plan, endpoint=endpoint)
    mlx.require_possible(request)
    _require_version(engine)
    options = {**mlx.options(request, plan.model.file), "--allowed-origins": _ORIGINS}
    knobs = [Knob(spellings=(name,), value=value, needed_for=_NEEDED.get(name)) for name, value in options.items()]
    return Launch(
        engine=engine.kind,
        argv=tuple(words(engine, knobs)),
        endpoint=endpoint,
        model_file=plan.model.file,
        model_bytes=plan.model.file_bytes,
        health_path="/health",
        timings=False,
        env=(("HF_HUB_OFFLINE", "1"), ("PYTHONUNBUFFERED", "1")),
        drop_env=("HF_TOKEN",),
        listens_before_it_loads=True,
        losses=mlx.losses_of(request),
    )


def _require_version(engine: Engine) -> None:
    floor = str(targets.of("mlx_lm")["minimum_version"])
    if engine.version is not None and _numbers(engine.version) < _numbers(floor):
        message = f"mlx-lm {engine.version} keeps a KV cache ten times larger for this model, or does not know it"
        raise EngineTooOld(
            message,
            hint=f"pip install -U mlx-lm: it takes {floor} or newer",
            facts={"version": engine.version, "needed": floor},
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
