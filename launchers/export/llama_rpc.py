"""llama.cpp's RPC: one file cut over several machines. A recipe for people, with its warning."""

from typing import Final

from glmplan.launchers.export import targets
from glmplan.launchers.export.exported import (
    Exported,
    ExportRequest,
    applying,
    comments,
    model_path,
    without_huge_pages,
)
from glmplan.launchers.export.quoting import shell
from glmplan.launchers.export.server_knobs import knobs_of, words_of
from glmplan.launchers.knobs import Knob

# Where tensors lie is decided anew, over devices that the plan does not know.
_OF_ONE_MACHINE: Final = frozenset(
    {"--n-gpu-layers", "--n-cpu-moe", "--override-tensor", "--split-mode", "--tensor-split", "--fit"}
)


def recipe(request: ExportRequest) -> Exported:
    """The commands of every machine: ggml-rpc-server on the others, llama-server on the first."""
    facts = targets.of("llama_rpc")
    path, assumed = model_path(request.plan)
    workers = _workers(request)
    servers = ",".join(f"{name}:{facts['port_of_workers']}" for name in workers)
    knobs = [knob for knob in knobs_of(request) if knob.spellings[0] not in _OF_ONE_MACHINE]
    knobs += [
        Knob(spellings=("--n-gpu-layers",), value="999"),
        Knob(spellings=("--fit",), value="off"),
        Knob(spellings=("--rpc",), value=servers),
    ]
    losses = (
        *assumed,
        "the plan's memory and speed: nothing here is planned; every token crosses the network once per machine",
        *applying(without_huge_pages(request.placement)),
        "where tensors lie: llama-server shares them out by the free memory of all machines",
    )
    warning = (
        f"WARNING: {facts['warning']}",
        "for models that no single machine holds; where one does, replicas are faster (glmplan cluster plan)",
        f"every machine needs llama.cpp built with -DGGML_RPC=ON, of the same version; {path} lies on the first alone",
    )
    lines = [
        "# on every other machine, with its address in the closed network (never a public one):",
        *(f"# {name}: ggml-rpc-server --host {name} --port {facts['port_of_workers']} --cache" for name in workers),
        "# then on the first machine:",
        " ".join(["llama-server", *(shell(word) for word in words_of(knobs))]),
    ]
    return Exported(
        text=comments(request, losses, also=warning) + "\n".join(lines) + "\n", suffix=".txt", losses=losses
    )


def _workers(request: ExportRequest) -> list[str]:
    """Names of the other machines: those of the cluster plan, or a place to fill in."""
    if request.cluster is None:
        return ["WORKER-1", "WORKER-2"]
    names = [
        node.name if node.count == 1 else f"{node.name}-{number}"
        for node in request.cluster.nodes
        for number in range(1, node.count + 1)
    ]
    return names[1:] or ["WORKER-1"]
