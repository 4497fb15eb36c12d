"""Cluster plans: replicas by node, sums, reasons, and the nodes file."""

import json
from pathlib import Path
from typing import Any

import pytest

from glmplan.cluster import ClusterPlan, NodePlan
from glmplan.commands.cluster_nodes import NamedNode
from glmplan.commands.cluster_plan import make_cluster_plan
from glmplan.commands.situation import situation_of
from glmplan.errors import InputError, NothingFits, ProfileError
from glmplan.jsonio import dumps, loads
from glmplan.planner.cluster_slots import layouts
from glmplan.profiles.cluster_nodes import read_nodes

TAPES = Path(__file__).parents[1] / "tapes"


def node(name: str, on: str, ram: str | None = None, count: int = 1) -> NamedNode:
    return NamedNode(name=name, count=count, situation=situation_of(on, ram))


def planned(*nodes: NamedNode, **options: Any) -> ClusterPlan:
    return make_cluster_plan(nodes, **options)


def by_name(plan: ClusterPlan, name: str) -> NodePlan:
    return next(node for node in plan.nodes if node.name == name)


def test_each_gpu_that_holds_the_file_gets_a_replica_of_its_own() -> None:
    plan = planned(node("a", "2x rtx-3090", "64GiB"), quant="q4_K_M")
    (slots,) = plan.nodes[0].slots
    assert (slots.replicas, slots.gpus_each, slots.gpu_ids) == (2, 1, ("gpu0", "gpu1"))
    assert [gpu.id for gpu in slots.plan.machine.gpus] == ["gpu0"]
    assert plan.total.replicas == 2


def test_a_large_gpu_holds_several_replicas() -> None:
    plan = planned(node("big", "h100-sxm", "256GiB"), quant="q4_K_M", replicas_per_gpu=3)
    (slots,) = plan.nodes[0].slots
    assert slots.replicas == 3
    assert slots.gpus_each == pytest.approx(1 / 3)
    gpu = slots.plan.memory.devices[0]
    assert 3 * gpu.usable_bytes <= 80 * 2**30
    assert gpu.margin_bytes >= 0


def test_replicas_on_one_gpu_share_its_speed() -> None:
    alone = planned(node("big", "h100-sxm", "256GiB"), quant="q4_K_M", replicas_per_gpu=1).nodes[0].slots[0]
    two = planned(node("big", "h100-sxm", "256GiB"), quant="q4_K_M", replicas_per_gpu=2).nodes[0].slots[0]
    assert two.users_each == alone.users_each
    together = two.decode_tokens_per_s.value / alone.decode_tokens_per_s.value
    assert together == pytest.approx(1, rel=0.05)
    assert two.decode_per_user_tokens_per_s.value == pytest.approx(
        alone.decode_per_user_tokens_per_s.value / 2, rel=0.05
    )


def test_a_file_larger_than_one_gpu_goes_over_several() -> None:
    plan = planned(node("a", "2x rtx-3090", "64GiB"), quant="q8_0")
    (slots,) = plan.nodes[0].slots
    assert (slots.replicas, slots.gpus_each) == (1, 2)
    assert len(slots.plan.machine.gpus) == 2


def test_the_context_holds_all_users_of_a_replica() -> None:
    plan = planned(node("a", "rtx-5090", "64GiB"), quant="q4_K_M", n_ctx="16k")
    (slots,) = plan.nodes[0].slots
    assert slots.users_each > 1
    assert slots.plan.placement.n_ctx == slots.users_each * 16384
    assert slots.plan.placement.n_parallel == slots.users_each


def test_totals_are_sums_of_all_nodes() -> None:
    alone = planned(node("a", "rtx-4090", "64GiB"), quant="q4_K_M").total
    three = planned(node("a", "rtx-4090", "64GiB", count=2), node("b", "rtx-4090", "64GiB"), quant="q4_K_M").total
    assert (three.nodes, three.nodes_used, three.replicas) == (3, 3, 3 * alone.replicas)
    for name in ("users", "decode_tokens_per_s", "prefill_tokens_per_s"):
        one, all_three = getattr(alone, name), getattr(three, name)
        assert (all_three.value, all_three.low, all_three.high) == pytest.approx(
            (3 * one.value, 3 * one.low, 3 * one.high)
        )
        assert all_three.basis is one.basis


def test_a_node_that_holds_nothing_says_what_it_lacks() -> None:
    plan = planned(node("a", "rtx-4090", "64GiB"), node("small", "cpu:8GiB"), quant="q4_K_M")
    small = by_name(plan, "small")
    assert small.slots == ()
    assert small.why_not is not None
    assert "GiB short" in small.why_not
    assert (plan.total.nodes, plan.total.nodes_used) == (2, 1)


def test_a_node_below_the_floor_is_left_out_where_another_reaches_it() -> None:
    slow = node("slow", "cpu:64GiB")
    beside = planned(node("a", "rtx-4090", "64GiB"), slow, quant="q8_0", min_decode=None)
    assert "--min-decode" in (by_name(beside, "slow").why_not or "")
    alone = planned(slow, quant="q8_0")
    assert alone.total.replicas == 1


def test_nothing_fits_names_every_node() -> None:
    with pytest.raises(NothingFits) as caught:
        planned(node("a", "cpu:4GiB"), node("b", "cpu:6GiB"))
    reasons = caught.value.facts["nodes"]
    assert isinstance(reasons, dict)
    assert set(reasons) == {"a", "b"}
    assert caught.value.exit_code == 3


def test_users_asked_for_choose_the_cut_that_serves_them() -> None:
    fast = planned(node("a", "rtx-4090", "64GiB"), quant="q4_K_M")
    many = planned(node("a", "rtx-4090", "64GiB"), quant="q4_K_M", users=int(fast.total.users.value) + 1)
    assert many.total.users.value > fast.total.users.value
    too_many = planned(node("a", "rtx-4090", "64GiB"), quant="q4_K_M", users=500)
    assert any("500 users asked for" in warning for warning in too_many.warnings)


def test_one_file_serves_all_nodes_and_the_others_say_why_not() -> None:
    plan = planned(node("a", "rtx-4090", "64GiB"), node("b", "h100-sxm", "256GiB"))
    used = {slots.plan.model.quantization for node in plan.nodes for slots in node.slots}
    assert used == {plan.model.quantization}
    assert {other.quantization for other in plan.alternatives} == {"q4_K_M", "q8_0", "bf16"} - used
    assert all(other.why_not for other in plan.alternatives)


def test_smaller_files_count_only_where_nothing_else_fits() -> None:
    assert planned(node("a", "gpu:12GiB", "4GiB")).model.quantization not in {"q4_K_M", "q8_0", "bf16"}


def test_no_slot_takes_more_than_the_node_has() -> None:
    situation = situation_of("2x h100-sxm", "256GiB")
    from glmplan.commands.cluster_plan import case_of

    case = case_of(NamedNode(name="a", count=1, situation=situation), "q4_K_M", None)
    cuts = list(layouts(case, case.models[0]))
    assert len(cuts) > 3
    for cut in cuts:
        for slot in cut:
            gpus = sum(gpu.memory_usable_bytes or 0 for gpu in slot.machine.gpus) * slot.replicas
            assert gpus <= sum(gpu.memory_usable_bytes or 0 for gpu in situation.machine.gpus)
            host = (slot.machine.memory.available_bytes or 0) * slot.replicas
            assert host <= (situation.machine.memory.available_bytes or 0)
            assert slot.gpus_each * slot.replicas <= 2 + 1e-9


def test_the_document_reads_back() -> None:
    plan = planned(node("a", "rtx-4090", "64GiB"), quant="q4_K_M")
    assert loads(ClusterPlan, dumps(plan), origin="test") == plan


def write(folder: Path, text: str) -> Path:
    path = folder / "nodes.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_nodes_file_takes_every_form_of_machine(tmp_path: Path) -> None:
    machine = json.loads(dumps(situation_of("gpu:24GiB", "32GiB").machine))
    (tmp_path / "box.json").write_text(json.dumps(machine), encoding="utf-8")
    (tmp_path / "tape").symlink_to(TAPES / "linux-rtx3060-12g")
    text = f"""
nodes:
- {{name: cards, machine: rtx-3090, gpus: 2, ram: 64GiB, count: 3}}
- {{machine: "gpu:24GiB", gpus: 2}}
- cpu:32GiB
- {{name: box, machine: box.json}}
- {{name: tape, machine: tape}}
- {{name: inline, machine: {json.dumps(machine)}}}
"""
    nodes = read_nodes(write(tmp_path, text))
    assert [(node.name, node.count, len(node.machine.gpus)) for node in nodes] == [
        ("cards", 3, 2), ("node2", 1, 2), ("node3", 1, 0), ("box", 1, 1), ("tape", 1, 1), ("inline", 1, 1),
    ]  # fmt: skip
    assert nodes[4].machine.source == "tape: linux-rtx3060-12g"


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("[]", InputError, "lists no nodes"),
        ("{a: 1}", InputError, "lists no nodes"),
        ("- 7", InputError, "is no machine"),
        ("- {name: a}", InputError, "no machine"),
        ("- {machine: cpu:32GiB, cpus: 3}", InputError, "unknown key 'cpus'"),
        ("- {machine: cpu:32GiB, count: 0}", InputError, "is no number from 1"),
        ("- {machine: cpu:32GiB, count: true}", InputError, "is no number from 1"),
        ("- {machine: rtx-30900}", ProfileError, "node 1: no device named"),
        ("- {machine: missing.json}", InputError, "cannot read the machine"),
        ("- {name: a, machine: cpu:32GiB}\n- {name: a, machine: cpu:32GiB}", InputError, "two nodes are called 'a'"),
        ("- [", InputError, "not YAML"),
        ("- {machine: {schema: glmplan/machine/1}}", InputError, "node 1: machine"),
    ],
)
def test_a_malformed_nodes_file_is_refused(tmp_path: Path, text: str, kind: type[InputError], said: str) -> None:
    with pytest.raises(kind) as caught:
        read_nodes(write(tmp_path, text))
    assert said in caught.value.message


def test_a_missing_nodes_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the nodes file"):
        read_nodes(tmp_path / "none.yaml")
