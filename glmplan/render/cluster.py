"""Cluster plans for people: a line per node, what it runs or why not, and the totals with their ranges."""

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from glmplan.cluster import ClusterPlan, ClusterTotal, NodePlan
from glmplan.cluster_status import ClusterStatus, ReplicaStatus
from glmplan.estimate import Estimate
from glmplan.units import format_bytes


def show_cluster_plan(made: ClusterPlan) -> None:
    """Print the plan on stdout."""
    console = Console(highlight=False)
    workload = made.workload
    title = f"{made.model.name} {made.model.quantization}, {workload.n_ctx_per_user} tokens of context per user"
    console.print(Text(title, style="bold"))
    for reason in made.reasons:
        console.print(f"  - {reason}")
    console.print()
    table = Table(
        Column("node", no_wrap=True), "machine", "replicas", "users", "decode together", "per user",
        title="Nodes", title_justify="left",
    )  # fmt: skip
    for node in made.nodes:
        table.add_row(*_cells(node))
    console.print(table)
    for node in made.nodes:
        for line in (*((f"not used: {node.why_not}",) if node.why_not else ()), *node.reasons):
            console.print(f"  - {node.name}: {line}")
    console.print()
    for line in total_lines(made.total, workload.min_decode_tokens_per_s, workload.depth_tokens):
        console.print(line)
    for warning in made.warnings:
        console.print(Text(f"  ! {warning}", style="yellow"))
    for other in made.alternatives:
        gives = f"{other.total.decode_tokens_per_s.value:.0f} tokens/s for {other.total.users.value:.0f} users"
        console.print(f"  - {other.quantization} would give {gives}: {other.why_not}")


def total_lines(total: ClusterTotal, floor: float, depth_tokens: int) -> list[str]:
    """What all nodes give together."""
    users = total.users
    at_floor = f"{users.low:.0f} to {users.high:.0f} of them at {floor:g} tokens/s or more, {users.basis}"
    return [
        f"    total  {total.replicas} replicas on {total.nodes_used} of {total.nodes} nodes",
        f"    users  {users.value:.0f} answers at once ({at_floor})",
        f"   decode  {_spell(total.decode_tokens_per_s)} with every user busy at {depth_tokens} tokens of depth",
        f"  prefill  {_spell(total.prefill_tokens_per_s)}",
    ]


def _cells(node: NodePlan) -> tuple[str, ...]:
    machine = node.machine
    gpus = ", ".join(f"{gpu.name}" for gpu in machine.gpus)
    name = node.name if node.count == 1 else f"{node.count} x {node.name}"
    if not node.slots:
        return name, gpus or machine.cpu, "none", "-", "-", "-"
    decode = sum(slot.decode_tokens_per_s.value for slot in node.slots) * node.count
    each = ", ".join(f"{slot.decode_per_user_tokens_per_s.value:.1f}" for slot in node.slots)
    users = sum(slot.replicas * slot.users_each for slot in node.slots) * node.count
    return name, gpus or machine.cpu, str(node.replicas), str(users), f"{decode:.1f}", each


def _spell(estimate: Estimate) -> str:
    return f"{estimate.value:.1f} tokens/s ({estimate.low:.1f} to {estimate.high:.1f}, {estimate.basis})"


def status_lines(found: ClusterStatus) -> list[str]:
    """A service for people: its address, its replicas by node, and what is asked of it."""
    key = f", API key in {found.api_key_file}" if found.api_key_file else ""
    lines = [
        f"{found.name}: {found.state}, {found.replicas_running} of {found.replicas_wanted} replicas answer",
        f"  url      {found.url}/v1 (model {found.model}{key})",
        f"  cluster  {found.address}, up since {found.started_at}",
    ]
    if found.message:
        lines.append(f"  why      {found.message}")
    if found.requests is not None:
        asked = found.requests
        waiting = "" if found.waiting is None else f", {found.waiting} wait for a slot"
        lines.append(
            f"  requests {asked.under_way} being answered{waiting}; {asked.answered} answered, {asked.retried} asked "
            f"again of another replica, {asked.broken} broken off"
        )
    if found.decode_tokens_per_s is not None:
        lines.append(f"  decode   {found.decode_tokens_per_s:.1f} tokens/s, the engines' own means together")
    for node in found.nodes:
        lines.append(f"  node     {node.name} ({node.ray_node_id[:8]}{'' if node.alive else ', not in the cluster'})")
        lines += [f"           {_replica(replica)}" for replica in node.replicas]
    return lines


def _replica(replica: ReplicaStatus) -> str:
    engine = replica.engine
    if engine is None:
        return f"{replica.group} {replica.state}"
    resident = "" if engine.resident_bytes is None else f", {format_bytes(engine.resident_bytes)} resident"
    return f"{replica.group} {replica.state}: {engine.engine} {engine.state}, process {engine.pid}{resident}"
