"""Exports for clusters by the targets' own classes: Ray's and SkyPilot's, as installed."""

import json
from dataclasses import replace
from typing import Any

import pytest
from cluster_plans import cluster_of, slots_of
from export_plans import cpu_only, full_gpu, request_of

from glmplan.cluster import NodePlan
from glmplan.launchers.cluster.application import IMPORT_PATH
from glmplan.launchers.cluster.replica import build
from glmplan.launchers.export import yaml_text
from glmplan.launchers.export.checks.report import CheckReport, Tools
from glmplan.launchers.export.exported import Exported, ExportRequest
from glmplan.launchers.export.formats import check, export
from glmplan.plan import Plan, PlannedGpu
from glmplan.units import GIB

# What Ray and SkyPilot warn of when they are imported is their own affair.
pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("default")]


def h100s(count: int = 2) -> Plan:
    plan = full_gpu(n_parallel=4)
    gpus = tuple(
        PlannedGpu(id=f"gpu{index}", name="NVIDIA H100 80GB HBM3", memory_total_bytes=80 * GIB)
        for index in range(count)
    )
    return replace(plan, machine=replace(plan.machine, gpus=gpus))


def two_kinds() -> ExportRequest:
    plan = h100s(1)
    nodes = [
        NodePlan(name="big", count=2, machine=plan.machine, slots=(slots_of(plan, replicas=2, gpus_each=0.5),)),
        NodePlan(name="spare", count=1, machine=cpu_only().machine, slots=(slots_of(cpu_only()),)),
    ]
    return request_of(plan, port=8000, cluster=cluster_of(nodes))


def judged(name: str, request: ExportRequest, *changes: tuple[str, str]) -> CheckReport:
    exported = export(name, request)
    text = exported.text
    for there, instead in changes:
        assert there in text
        text = text.replace(there, instead)
    return check(name, replace(exported, text=text), Tools())


@pytest.mark.parametrize("name", ["ray-serve", "ray-serve-llm", "kuberay"])
def test_ray_accepts_what_is_written(name: str) -> None:
    for request in (request_of(h100s()), two_kinds()):
        report = judged(name, request)
        assert report.problems == ()
        assert any("ServeDeploySchema" in judge for judge in report.by)
        if name != "ray-serve":
            assert any(judge.startswith("Ray ") and judge.endswith("LLMConfig") for judge in report.by)


def test_ray_refuses_what_our_own_lists_let_pass() -> None:
    names = ("one", "two")
    rows: list[dict[str, Any]] = [
        {"name": name, "route_prefix": "/", "import_path": IMPORT_PATH, "args": {}} for name in names
    ]
    plain: dict[str, Any] = {"applications": rows}
    report = check("ray-serve", Exported(text=yaml_text.dump(plain), suffix=".yaml"), Tools())
    assert any("route_prefix" in problem for problem in report.problems)


def test_ray_builds_the_application_of_the_file() -> None:
    document = yaml_text.load(export("ray-serve", two_kinds()).text)
    (application,) = document["applications"]
    assert type(build(json.loads(json.dumps(application["args"])))).__name__ == "Application"


def test_skypilot_accepts_what_is_written_and_refuses_other_keys() -> None:
    report = judged("skypilot", request_of(h100s()))
    assert report.problems == ()
    assert report.by[0].startswith("SkyPilot ")
    wrong = judged("skypilot", request_of(h100s()), ('accelerators: "H100:2"', 'accelerators: "H100:0"'))
    assert wrong.problems != ()
