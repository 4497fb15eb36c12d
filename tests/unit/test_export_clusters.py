"""Exports for several machines: nodes become groups, files read back, and checks refuse what was changed."""

import json
from dataclasses import replace
from typing import Any

import pytest
from cluster_plans import cluster_of, slots_of
from export_plans import cpu_only, full_gpu, request_of
from hypothesis import given, settings
from hypothesis import strategies as st

from glmplan.cluster import ClusterPlan, NodePlan
from glmplan.errors import NotExpressible
from glmplan.jsonio import loads
from glmplan.launchers.cluster.application import Application
from glmplan.launchers.export import yaml_text
from glmplan.launchers.export.checks.report import Tools
from glmplan.launchers.export.exported import Exported, ExportRequest
from glmplan.launchers.export.formats import FORMATS, check, export
from glmplan.plan import Plan, PlannedGpu
from glmplan.units import GIB

CLUSTERS = [name for name, known in FORMATS.items() if known.takes_cluster]


def on(plan: Plan, gpus: int, name: str = "NVIDIA H100 80GB HBM3", size: int = 80) -> Plan:
    """`plan` on this many GPUs of a kind that has a name everywhere."""
    planned = tuple(PlannedGpu(id=f"gpu{i}", name=name, memory_total_bytes=size * GIB) for i in range(gpus))
    return replace(plan, machine=replace(plan.machine, gpus=planned))


def node(name: str, plan: Plan, *, count: int = 1, **slots: Any) -> NodePlan:
    return NodePlan(name=name, count=count, machine=plan.machine, slots=(slots_of(plan, **slots),))


def mixed() -> ClusterPlan:
    """Two nodes of two GPUs, one node of a GPU that holds two replicas, and one with a CPU."""
    one = on(full_gpu(n_parallel=4), 1)
    return cluster_of([
        node("pair", on(one, 2), count=2, replicas=2, gpus_each=1.0, cores=4),
        node("big", one, replicas=2, gpus_each=0.5, cores=4),
        node("spare", cpu_only(), cores=8),
    ])  # fmt: skip


def cluster_request(made: ClusterPlan, **wanted: Any) -> ExportRequest:
    plan = made.nodes[0].slots[0].plan
    return request_of(plan, port=8000, cluster=made, **wanted)


def document(exported: Exported) -> Any:
    return yaml_text.load(exported.text)


def args_of(exported: Exported) -> Application:
    (application,) = document(exported)["applications"]
    return loads(Application, json.dumps(application["args"]), origin="test")


def test_every_node_of_a_cluster_plan_becomes_a_group() -> None:
    exported = export("ray-serve", cluster_request(mixed()))
    groups = {group.name: group for group in args_of(exported).groups}
    assert {name: group.replicas.most for name, group in groups.items()} == {"pair": 4, "big": 2, "spare": 1}
    assert [group.num_gpus for group in groups.values()] == [1.0, 0.5, 0.0]
    for name, group in groups.items():
        assert group.node_resource == f"glmplan-{name}"
        assert f"--resources='{{\"glmplan-{name}\": {group.most_per_node}}}'" in exported.text
    deployments = document(exported)["applications"][0]["deployments"]
    assert [row["num_replicas"] for row in deployments] == [4, 2, 1]
    assert deployments[0]["ray_actor_options"]["resources"] == {"glmplan-pair": 1}


def test_a_plan_reads_back_from_its_ray_serve_file() -> None:
    plan = full_gpu()
    (group,) = args_of(export("ray-serve", request_of(plan))).groups
    assert (group.plan.placement, group.plan.model) == (plan.placement, plan.model)
    assert (group.replicas.most, group.num_gpus, group.node_resource) == (1, 1.0, None)


@settings(max_examples=50, deadline=None)
@given(text=st.text(st.characters(blacklist_categories=["Cs"]), max_size=40))
def test_whatever_a_plan_is_called_it_reads_back(text: str) -> None:
    plan = full_gpu()
    gpu = replace(plan.machine.gpus[0], name=f"NVIDIA {text}")
    named = replace(plan, created_at=text, machine=replace(plan.machine, gpus=(gpu,), fingerprint=text, cpu=text))
    (group,) = args_of(export("ray-serve", request_of(named))).groups
    assert (group.plan.created_at, group.plan.machine) == (text, named.machine)


def test_the_key_stays_in_its_file() -> None:
    application = args_of(export("ray-serve", cluster_request(mixed(), api_key_file="/etc/key")))
    assert (application.key, application.key_file) == (None, "/etc/key")
    inside = document(export("kuberay", cluster_request(mixed(), api_key_file="/etc/key")))
    served = yaml_text.load(inside["spec"]["serveConfigV2"])
    mounted = inside["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert served["applications"][0]["args"]["key_file"].startswith(mounted[0]["mountPath"])


@pytest.mark.parametrize(("gpus", "parallel"), [(1, 1), (2, 2), (3, 2), (4, 4), (6, 5), (8, 5)])
def test_tensor_parallel_divides_the_heads(gpus: int, parallel: int) -> None:
    exported = export("ray-serve-llm", request_of(on(full_gpu(), gpus)))
    (config,) = document(exported)["applications"][0]["args"]["llm_configs"]
    assert config["engine_kwargs"]["tensor_parallel_size"] == parallel
    assert config["accelerator_type"] == "H100"
    assert check("ray-serve-llm", exported, Tools()).problems == ()


def test_vllm_is_counted_on_the_nodes_that_hold_it() -> None:
    exported = export("ray-serve-llm", cluster_request(mixed()))
    (config,) = document(exported)["applications"][0]["args"]["llm_configs"]
    # Two GPUs serve each replica of the first plan: two such nodes, and none of the others.
    assert config["deployment_config"]["autoscaling_config"]["max_replicas"] == 2
    assert any("big, spare: only nodes with" in loss for loss in exported.losses)
    values = document(export("production-stack", cluster_request(mixed())))
    assert values["servingEngineSpec"]["modelSpec"][0]["replicaCount"] == 2
    assert document(export("skypilot", cluster_request(mixed())))["service"]["replicas"] == 2


def test_kuberay_serves_with_vllm_where_it_can_and_with_the_plans_engine_elsewhere() -> None:
    by_vllm = document(export("kuberay", request_of(on(full_gpu(), 1))))
    assert "ray.serve.llm" in by_vllm["spec"]["serveConfigV2"]
    by_engine = document(export("kuberay", request_of(cpu_only())))
    assert "glmplan.launchers.cluster.replica" in by_engine["spec"]["serveConfigV2"]
    pod = by_engine["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]
    assert pod["volumes"][0]["hostPath"]["path"] == "/models"


def test_the_rpc_recipe_names_every_machine_and_its_warning() -> None:
    text = export("llama-rpc", cluster_request(mixed())).text
    assert "WARNING" in text
    assert "never on an open network" in text
    assert "--rpc pair-2:50052,big:50052,spare:50052" in text


@pytest.mark.parametrize("name", CLUSTERS)
def test_every_cluster_export_is_accepted(name: str) -> None:
    for wanted in ({}, {"api_key_file": "/etc/key"}, {"thinking": False}):
        report = check(name, export(name, cluster_request(mixed(), **wanted)), Tools())
        assert report.problems == ()
        assert report.by


def test_other_formats_refuse_a_cluster_plan() -> None:
    with pytest.raises(NotExpressible, match="is for one machine") as caught:
        export("systemd", cluster_request(mixed()))
    assert "ray-serve" in caught.value.hint


def test_a_gpu_that_nobody_rents_is_refused() -> None:
    with pytest.raises(NotExpressible, match="SkyPilot has no name for"):
        export("skypilot", request_of(on(full_gpu(), 1, "NVIDIA GB10")))


SPOILT = [
    ("ray-serve", "num_replicas: 1", "num_replica: 1"),
    ("ray-serve", "users_each: 1", "users_every: 1"),
    ("ray-serve", "route_prefix: /", "route_prefix: glm"),
    ("ray-serve", "proxy_location: HeadOnly", "proxy_location: Everywhere"),
    ("ray-serve-llm", "tensor_parallel_size: 1", "tensor_parallel_size: 3"),
    ("ray-serve-llm", "max_model_len", "max_model_length"),
    ("ray-serve-llm", "model_source", "model_sauce"),
    ("ray-serve-llm", "accelerator_type: H100", "accelerator_type: H1000"),
    ("kuberay", "rayVersion", "rayVersions"),
    ("kuberay", "num_cpus", "num_cpu"),
    ("production-stack", "replicaCount: 1", "replicaCount: one"),
    ("production-stack", "modelURL", "modelUrl"),
    ("production-stack", "--kv-cache-dtype", "--kv-cache-type"),
    ("skypilot", "disk_size: 256", "disc_size: 256"),
    ("skypilot", "--max-model-len", "--max-model-length"),
    ("llama-rpc", "--ctx-size", "--context-size"),
    ("llama-rpc", "never on an open network", "try it"),
]


@pytest.mark.parametrize(("name", "there", "instead"), SPOILT)
def test_checks_refuse_what_was_changed(name: str, there: str, instead: str) -> None:
    plan = cpu_only() if name == "kuberay" else on(full_gpu(), 1)
    exported = export(name, request_of(plan))
    assert there in exported.text
    assert check(name, replace(exported, text=exported.text.replace(there, instead)), Tools()).problems != ()


@pytest.mark.parametrize("name", [name for name in CLUSTERS if name != "llama-rpc"])
def test_checks_refuse_what_is_no_yaml(name: str) -> None:
    assert check(name, Exported(text="a: [", suffix=".yaml"), Tools()).problems != ()
    assert check(name, Exported(text="- 1\n", suffix=".yaml"), Tools()).problems != ()
