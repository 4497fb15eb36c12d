"""Ray Serve: replicas of the plan's engine (`ray-serve`) and vLLM's own deployments (`ray-serve-llm`)."""

import json
from dataclasses import replace
from typing import Any, Final

from glmplan import jsonio
from glmplan.cluster import NodePlan, ReplicaSlots
from glmplan.engine import Engine, EngineKind
from glmplan.launchers.cluster.application import (
    IMPORT_PATH,
    Application,
    ReplicaBounds,
    ReplicaGroup,
    deployment_options,
)
from glmplan.launchers.export import targets, yaml_text
from glmplan.launchers.export.exported import (
    Exported,
    ExportRequest,
    Use,
    applying,
    comments,
    model_path,
    require_absolute,
    require_private,
)
from glmplan.launchers.export.gpu_servers import Serving, serving_of, vllm_notes, vllm_options
from glmplan.plan import Plan

LLM_IMPORT_PATH: Final = "ray.serve.llm:build_openai_app"
# What Ray's description of the model says itself, and what Ray Serve decides.
_NOT_OF_THE_ENGINE: Final = frozenset({"served-model-name", "host", "port"})


def replicas(request: ExportRequest) -> Exported:
    """A file for `serve deploy`: replicas of the plan's engine behind a front, as `glmplan cluster up` makes them.

    Raises:
        NotExpressible: the model file has no absolute path.
    """
    application, losses = application_of(request)
    hints = [_start_of(group) for group in application.groups if group.node_resource is not None]
    notes = ("needs glmplan[cluster] and the model file on every node; start with: serve deploy FILE", *hints)
    return Exported(
        text=comments(request, losses, also=notes)
        + yaml_text.dump(serve_document(request, replica_entry(application))),
        suffix=".yaml",
        losses=losses,
    )


def _start_of(group: ReplicaGroup) -> str:
    """How a node for this group is started, so that Ray tells it from the others."""
    return f"{group.name}: ray start ... --resources='{{\"{group.node_resource}\": {group.most_per_node}}}'"


def llm(request: ExportRequest) -> Exported:
    """A file for `serve deploy`: vLLM through `ray.serve.llm`, for clusters of NVIDIA GPUs.

    Raises:
        NotExpressible: not to be served so, or open to others: Ray's own server asks for no key.
    """
    require_private("ray.serve.llm", request, hint="export ray-serve: its front asks for the key")
    entry, losses, notes = llm_entry(request)
    document = serve_document(request, entry)
    return Exported(
        text=comments(request, losses, also=(*notes, "start with: serve deploy FILE")) + yaml_text.dump(document),
        suffix=".yaml",
        losses=losses,
    )


def serve_document(request: ExportRequest, entry: dict[str, Any]) -> dict[str, Any]:
    """A whole configuration of Ray Serve with one application."""
    endpoint = request.endpoint
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": endpoint.host, "port": endpoint.port},
        "applications": [entry],
    }


def replica_entry(application: Application) -> dict[str, Any]:
    """The application of `ray-serve`."""
    return {
        "name": application.name,
        "route_prefix": "/",
        "import_path": IMPORT_PATH,
        "args": jsonio.to_jsonable(application),
        "deployments": [{"name": group.name, **deployment_options(group)} for group in application.groups],
    }


def application_of(request: ExportRequest) -> tuple[Application, tuple[str, ...]]:
    """The groups of replicas of a plan, or of every node of a cluster plan, and what is assumed.

    Raises:
        NotExpressible: the model file has no absolute path.
    """
    if request.cluster is None:
        groups = [_group("replicas", _alone(request), request, None)]
    else:
        groups = [
            _group(f"{node.name}-{place}" if len(node.slots) > 1 else node.name, slots, request, node)
            for node in request.cluster.nodes
            for place, slots in enumerate(node.slots, start=1)
        ]
    losses = model_path(request.plan)[1] + applying({
        "answers without thinking: requests say so themselves": not request.thinking,
        "sampling for coding: replicas use the model card's general advice": request.use is Use.CODING,
    })  # fmt: skip
    application = Application(
        groups=tuple(groups), alias=request.endpoint.alias, key_file=request.endpoint.api_key_file
    )
    return application, losses


def _alone(request: ExportRequest) -> ReplicaSlots:
    """The plan of one machine as one replica."""
    plan = request.plan
    gpus = plan.machine.gpus if plan.placement.n_gpu_layers else ()
    decode = plan.speed.decode_tokens_per_s
    return ReplicaSlots(
        replicas=1,
        gpu_ids=tuple(gpu.id for gpu in gpus),
        gpus_each=float(len(gpus)),
        cpu_cores_each=plan.placement.n_threads,
        users_each=plan.placement.n_parallel,
        decode_tokens_per_s=decode,
        prefill_tokens_per_s=plan.speed.prefill_tokens_per_s,
        decode_per_user_tokens_per_s=decode,
        plan=plan,
    )


def _group(name: str, slots: ReplicaSlots, request: ExportRequest, node: NodePlan | None) -> ReplicaGroup:
    path, _ = model_path(_as_exported(slots.plan, request))
    plan = replace(
        slots.plan,
        model=replace(slots.plan.model, file=require_absolute(path, "a replica")),
        alternatives=(), prices=(), reasons=(), warnings=(),
    )  # fmt: skip
    count = slots.replicas * (1 if node is None else node.count)
    return ReplicaGroup(
        name=name,
        plan=plan,
        engine=_engine(plan, request),
        users_each=slots.users_each,
        replicas=ReplicaBounds(least=count, most=count),
        num_cpus=float(slots.cpu_cores_each),
        num_gpus=int(slots.gpus_each * 10_000) / 10_000,
        node_resource=None if node is None else f"glmplan-{name}",
        most_per_node=None if node is None else slots.replicas,
    )


def _as_exported(plan: Plan, request: ExportRequest) -> Plan:
    """`plan` with the file that the request names, which a cluster plan's own replicas may not name yet."""
    return replace(plan, model=replace(plan.model, file=request.plan.model.file))


def _engine(plan: Plan, request: ExportRequest) -> Engine:
    """The engine as the nodes are assumed to have it: a current build."""
    kind = plan.placement.engine
    if kind is EngineKind.LLAMA_SERVER:
        return request.llama_server
    return Engine(kind=kind, path=kind.value, version=None)


def llm_entry(request: ExportRequest) -> tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]]:
    """The application of `ray-serve-llm`, what it cannot say, and what is to be known.

    Raises:
        NotExpressible: vLLM cannot serve the plan.
    """
    serving = serving_of(request, "vllm", "Ray Serve LLM (vLLM)")
    kind, unknown = accelerator_type(request.plan)
    count, left_out = vllm_replicas(request, serving)
    config: dict[str, Any] = {
        "model_loading_config": {"model_id": request.endpoint.alias, "model_source": serving.weights.repo},
        **({} if kind is None else {"accelerator_type": kind}),
        "deployment_config": {
            "autoscaling_config": {
                "min_replicas": count,
                "max_replicas": count,
                "target_ongoing_requests": request.placement.n_parallel,
            },
            "max_ongoing_requests": 2 * request.placement.n_parallel,
        },
        "engine_kwargs": engine_kwargs(request, serving),
    }
    entry = {
        "name": "glmplan",
        "route_prefix": "/",
        "import_path": LLM_IMPORT_PATH,
        "args": {"llm_configs": [config]},
    }
    key = request.endpoint.api_key_file
    lost = ("an API key: ray.serve.llm asks for none; keep the address on loopback",) if key else ()
    return entry, (*serving.losses, *unknown, *left_out, *lost), vllm_notes(serving)


def engine_kwargs(request: ExportRequest, serving: Serving) -> dict[str, Any]:
    """Options of vLLM by their names in Python; objects as objects."""
    kwargs: dict[str, Any] = {}
    for name, value in vllm_options(request, serving).items():
        if name not in _NOT_OF_THE_ENGINE:
            is_object = isinstance(value, str) and value.startswith("{")
            kwargs[name.replace("-", "_")] = json.loads(value) if is_object else value
    return kwargs


def accelerator_type(plan: Plan) -> tuple[str | None, tuple[str, ...]]:
    """Ray's word for the plan's GPU, or None and what that means."""
    words: dict[str, str] = targets.of("ray")["accelerators"]
    name = plan.machine.gpus[0].name
    found = next((word for word, part in words.items() if part.lower() in name.lower()), None)
    lost = f"the kind of GPU: Ray has no name for {name}, and takes any GPU of the cluster"
    return found, () if found else (lost,)


def vllm_replicas(request: ExportRequest, serving: Serving) -> tuple[int, tuple[str, ...]]:
    """How many times the plan's nodes hold a vLLM with `serving.tensor_parallel` GPUs, and which nodes are left out."""
    if request.cluster is None:
        return 1, ()
    wanted = request.plan.machine.gpus[0].name
    count, other = 0, list[str]()
    for node in request.cluster.nodes:
        alike = sum(gpu.name == wanted for gpu in node.machine.gpus)
        held = alike // serving.tensor_parallel
        count += node.count * held
        if not held:
            other.append(node.name)
    lost = f"{', '.join(other)}: only nodes with {serving.tensor_parallel} x {wanted} are used"
    return max(1, count), (lost,) if other else ()
