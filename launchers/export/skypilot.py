"""SkyPilot: rent GPUs of the plan's kind and serve with vLLM there."""

import math
from typing import Any, Final

from glmplan.errors import NotExpressible
from glmplan.launchers.export import targets, yaml_text
from glmplan.launchers.export.exported import Exported, ExportRequest, comments
from glmplan.launchers.export.gpu_servers import Serving, serving_of, vllm_notes, vllm_options
from glmplan.launchers.export.quoting import shell
from glmplan.launchers.export.ray_serve import vllm_replicas
from glmplan.units import GIB

_ANY: Final = "0.0.0.0"  # noqa: S104 - SkyServe's load balancer reaches the replica from outside
_KEY: Final = "VLLM_API_KEY"


def task(request: ExportRequest) -> Exported:
    """A task for `sky serve up`; the key clients must send is asked for at the start and is no part of the file.

    Raises:
        NotExpressible: vLLM cannot serve the plan, or no cloud rents such a GPU.
    """
    serving = serving_of(request, "vllm", "SkyPilot (vLLM)")
    facts, count = targets.of("skypilot"), serving.tensor_parallel
    replicas, left_out = vllm_replicas(request, serving)
    port = request.endpoint.port
    document: dict[str, Any] = {
        "name": "glm-4-7-flash",
        "resources": {
            "accelerators": f"{_rented(request)}:{count}",
            "disk_size": max(256, math.ceil(3 * serving.weights.weights_bytes / GIB)),
            "ports": port,
        },
        "service": {
            "readiness_probe": {"path": "/health", "initial_delay_seconds": facts["initial_delay_s"]},
            "replicas": replicas,
        },
        "secrets": {_KEY: None},
        "setup": f"uv pip install --system {shell('vllm>=' + targets.of('vllm')['minimum_version'])}",
        "run": _command(request, serving),
    }
    losses = (*serving.losses, *left_out)
    notes = (
        *vllm_notes(serving),
        f"start with: sky serve up FILE --secret {_KEY}",
        "the key clients must send is taken from your environment; without it anybody could ask",
    )
    return Exported(
        text=comments(request, losses, also=notes) + yaml_text.dump(document), suffix=".yaml", losses=losses
    )


def _rented(request: ExportRequest) -> str:
    """SkyPilot's name of the plan's GPU.

    Raises:
        NotExpressible: it has none.
    """
    name = request.plan.machine.gpus[0].name
    words: dict[str, str] = targets.of("skypilot")["accelerators"]
    found = next((word for word, part in words.items() if part.lower() in name.lower()), None)
    if found is None:
        message = f"SkyPilot has no name for {name}"
        raise NotExpressible(
            message,
            hint=f"plan for one that clouds rent: glmplan plan --on h100-sxm ({', '.join(words)})",
            facts={"gpu": name},
        )
    return found


def _command(request: ExportRequest, serving: Serving) -> str:
    options = {**vllm_options(request, serving), "host": _ANY}
    words = ["vllm serve", shell(serving.weights.repo)]
    words += [f"--{name}" if value is True else f"--{name} {shell(str(value))}" for name, value in options.items()]
    return " ".join(words)
