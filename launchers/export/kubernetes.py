"""Kubernetes: KubeRay's RayService, and the Helm values of vLLM's production stack."""

import math
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, Final

from glmplan.errors import NotExpressible
from glmplan.launchers.export import targets, yaml_text
from glmplan.launchers.export.exported import Exported, ExportRequest, comments, path_of
from glmplan.launchers.export.gpu_servers import serving_of, vllm_notes, vllm_options
from glmplan.launchers.export.quoting import shell
from glmplan.launchers.export.ray_serve import application_of, llm_entry, replica_entry, vllm_replicas
from glmplan.units import GIB

_NAME: Final = "glm-4-7-flash"
_SECRET: Final = "glmplan-api-key"  # noqa: S105 - the name of a Kubernetes secret, not the secret
_MOUNTED: Final = PurePosixPath("/run/secrets/glmplan/key")
# Beside the weights: Python, CUDA and pinned buffers of a vLLM, as its charts ask for.
_BESIDE_WEIGHTS: Final = 16 * GIB


def kuberay(request: ExportRequest) -> Exported:
    """A RayService: vLLM where it can serve the plan and no key is wanted, otherwise replicas of the plan's engine."""
    if request.endpoint.api_key_file is None:
        try:
            entry, losses, notes = llm_entry(request)
        except NotExpressible as error:
            return _of_replicas(request, why=error.message)
        facts = targets.of("ray")
        gpus = entry["args"]["llm_configs"][0]["engine_kwargs"]["tensor_parallel_size"]
        count = entry["args"]["llm_configs"][0]["deployment_config"]["autoscaling_config"]["max_replicas"]
        memory = math.ceil((serving_of(request, "vllm", "vLLM").weights.weights_bytes + _BESIDE_WEIGHTS) / GIB)
        worker = _worker(facts["llm_image"], cpus=8, memory_gib=memory, gpus=gpus, count=count)
        return _service(request, entry, [worker], facts["llm_image"], losses, notes)
    return _of_replicas(request, why="ray.serve.llm asks for no API key")


def _of_replicas(request: ExportRequest, *, why: str) -> Exported:
    application, losses = application_of(request)
    if application.key_file is not None:
        application = replace(application, key_file=str(_MOUNTED))
    image, entry = targets.of("ray")["own_image"], replica_entry(application)
    workers: list[dict[str, Any]] = []
    for group in application.groups:
        per_node = group.most_per_node or 1
        source = path_of(group.plan.model.file)
        memory = math.ceil((sum(_taken(device) for device in group.plan.memory.devices) * per_node + 2 * GIB) / GIB)
        worker = _worker(
            image, cpus=math.ceil(group.num_cpus * per_node), memory_gib=memory,
            gpus=math.ceil(group.num_gpus * per_node), count=group.replicas.most // per_node,
        )  # fmt: skip
        worker["groupName"] = _label(group.name)
        if group.node_resource is not None:
            worker["rayStartParams"]["resources"] = f'"{{\\"{group.node_resource}\\": {per_node}}}"'
        pod = worker["template"]["spec"]
        pod["volumes"] = [{"name": "models", "hostPath": {"path": str(source.parent), "type": "Directory"}}]
        pod["containers"][0]["volumeMounts"] = [{"name": "models", "mountPath": str(source.parent), "readOnly": True}]
        workers.append(worker)
    notes = (
        f"replicas of {request.placement.engine}, not of vLLM: {why}",
        f"{image} is yours to build: rayproject/ray with glmplan[cluster] and an engine",
    )
    return _service(request, entry, workers, image, losses, notes)


def _taken(device: Any) -> int:  # noqa: ANN401 - a row of the ledger
    taken: int = device.weights_bytes + device.kv_cache_bytes + device.compute_bytes + device.overhead_bytes
    return taken if device.id == "host" else 0


def _service(
    request: ExportRequest,
    entry: dict[str, Any],
    workers: list[dict[str, Any]],
    image: str,
    losses: tuple[str, ...],
    notes: tuple[str, ...],
) -> Exported:
    version = targets.of("ray")["version"]
    head: dict[str, Any] = {
        "rayStartParams": {"num-cpus": "0", "num-gpus": "0"},
        "template": {"spec": {"containers": [{
            "name": "ray-head",
            "image": image,
            "ports": [{"containerPort": request.endpoint.port, "name": "serve"},
                      {"containerPort": 6379, "name": "gcs"}, {"containerPort": 8265, "name": "dashboard"}],
            "resources": _resources(2, 8, 0),
            "env": [{"name": "RAY_DISABLE_USAGE_STATS", "value": "1"}],
        }]}},
    }  # fmt: skip
    if request.endpoint.api_key_file is not None:
        pod = head["template"]["spec"]
        pod["volumes"] = [{"name": "api-key", "secret": {"secretName": _SECRET}}]
        mount = {"name": "api-key", "mountPath": str(_MOUNTED.parent), "readOnly": True}
        pod["containers"][0]["volumeMounts"] = [mount]
        notes = (*notes, _secret_note(request.endpoint.api_key_file))
    served = {"http_options": {"host": "0.0.0.0", "port": request.endpoint.port}, "applications": [entry]}  # noqa: S104
    document = {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": _NAME},
        "spec": {
            "serveConfigV2": yaml_text.dump(served).rstrip("\n"),
            "rayClusterConfig": {"rayVersion": version, "headGroupSpec": head, "workerGroupSpecs": workers},
        },
    }
    inside = "the address is that of a Service inside the cluster; whoever reaches it is answered, " + (
        "with the key" if request.endpoint.api_key_file else "without an API key"
    )
    text = comments(request, losses, also=(*notes, inside, "start with: kubectl apply -f FILE"))
    return Exported(text=text + yaml_text.dump(document), suffix=".yaml", losses=losses)


def _worker(image: str, *, cpus: int, memory_gib: int, gpus: int, count: int) -> dict[str, Any]:
    return {
        "groupName": "workers",
        "replicas": count,
        "minReplicas": count,
        "maxReplicas": count,
        "numOfHosts": 1,
        "rayStartParams": {},
        "template": {"spec": {"containers": [{
            "name": "ray-worker",
            "image": image,
            "resources": _resources(cpus, memory_gib, gpus),
            "env": [{"name": "RAY_DISABLE_USAGE_STATS", "value": "1"}],
        }]}},
    }  # fmt: skip


def _resources(cpus: int, memory_gib: int, gpus: int) -> dict[str, Any]:
    wanted: dict[str, Any] = {"cpu": str(cpus), "memory": f"{memory_gib}Gi"}
    if gpus:
        wanted["nvidia.com/gpu"] = str(gpus)
    return {"limits": wanted, "requests": wanted}


def _label(name: str) -> str:
    """A name that Kubernetes takes: small letters, digits and hyphens, at most 63 of them."""
    kept = "".join(char if char.isascii() and char.isalnum() else "-" for char in name.lower())
    return kept.strip("-")[:63] or "workers"


def production_stack(request: ExportRequest) -> Exported:
    """Values for the Helm chart `vllm/vllm-stack`.

    Raises:
        NotExpressible: vLLM cannot serve the plan.
    """
    facts, serving = targets.of("production_stack"), serving_of(request, "vllm", "vLLM's production stack")
    count, left_out = vllm_replicas(request, serving)
    options = vllm_options(request, serving)
    named = {
        "maxModelLen": options.pop("max-model-len"),
        "maxNumSeqs": options.pop("max-num-seqs"),
        "gpuMemoryUtilization": options.pop("gpu-memory-utilization"),
        "tensorParallelSize": options.pop("tensor-parallel-size"),
        "enablePrefixCaching": options.pop("enable-prefix-caching"),
    }
    for name in ("host", "port"):
        options.pop(name)
    extra = [word for name, value in options.items() for word in _words(name, value)]
    weights = serving.weights.weights_bytes
    model: dict[str, Any] = {
        "name": _NAME,
        "repository": facts["image"],
        "tag": facts["tag"],
        "modelURL": serving.weights.repo,
        "replicaCount": count,
        "requestCPU": 8,
        "requestMemory": f"{math.ceil((weights + _BESIDE_WEIGHTS) / GIB)}Gi",
        "requestGPU": serving.tensor_parallel,
        "pvcStorage": f"{math.ceil(2 * weights / GIB)}Gi",
        "vllmConfig": {**named, "extraArgs": extra},
    }
    engine: dict[str, Any] = {"runtimeClassName": "", "modelSpec": [model]}
    key = request.endpoint.api_key_file
    if key is not None:
        engine["vllmApiKey"] = {"secretName": _SECRET, "secretKey": _MOUNTED.name}
    document = {
        "servingEngineSpec": engine,
        "routerSpec": {
            "enableRouter": True, "replicaCount": 1, "routingLogic": "session", "sessionKey": "x-user-id",
            "servicePort": request.endpoint.port,
        },
    }  # fmt: skip
    notes = (
        *vllm_notes(serving),
        *((_secret_note(key),) if key else ("whoever reaches the Service is answered: it has no API key",)),
        f"start with: helm install glm vllm/vllm-stack --version {facts['chart_version']} -f FILE",
    )
    losses = (*serving.losses, *left_out)
    text = comments(request, losses, also=notes) + yaml_text.dump(document)
    return Exported(text=text, suffix=".yaml", losses=losses)


def _secret_note(key_file: str) -> str:
    """How the key gets into the cluster."""
    return f"the key first: kubectl create secret generic {_SECRET} --from-file={_MOUNTED.name}={shell(key_file)}"


def _words(name: str, value: object) -> list[str]:
    return [f"--{name}"] if value is True else [f"--{name}", str(value)]
