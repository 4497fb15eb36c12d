"""`glmplan cluster` without Ray: plans from a file, and errors that say what to install."""

import json
from pathlib import Path
from typing import Any

import pytest
from console import Console

from glmplan.cluster import ClusterPlan
from glmplan.jsonio import loads
from glmplan.plan_schema import violations

pytestmark = pytest.mark.e2e
NODES = """
- {name: cards, machine: rtx-3090, gpus: 2, ram: 64GiB, count: 2}
- {name: big, machine: h100-sxm, ram: 256GiB}
- {name: small, machine: "cpu:8GiB"}
"""


@pytest.fixture
def nodes(console: Console) -> Path:
    path = console.folder / "nodes.yaml"
    path.write_text(NODES, encoding="utf-8")
    return path


@pytest.fixture
def without_ray(console: Console) -> Console:
    """A machine where Ray cannot be imported, whatever this one has."""
    hidden = console.folder / "hidden"
    hidden.mkdir()
    (hidden / "ray.py").write_text("raise ImportError(\"No module named 'ray'\")\n", encoding="utf-8")
    console.environment["PYTHONPATH"] = str(hidden)
    return console


def error_of(console: Console, *words: str) -> tuple[int, dict[str, Any]]:
    done = console.run("cluster", *words, "--json")
    assert "Traceback" not in done.stderr
    error: dict[str, Any] = json.loads(done.stdout)["error"]
    return done.returncode, error


def test_a_nodes_file_becomes_a_plan_that_reads_back(console: Console, nodes: Path) -> None:
    out = console.folder / "cluster.json"
    done = console.run("cluster", "plan", "--nodes", str(nodes), "--json", "-o", str(out))
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "glmplan/cluster/1"
    assert json.loads(out.read_text(encoding="utf-8")) == document
    assert [node["name"] for node in document["nodes"]] == ["cards", "big", "small"]
    assert document["nodes"][2]["why_not"]
    for name in ("users", "decode_tokens_per_s", "prefill_tokens_per_s"):
        estimate = document["total"][name]
        assert estimate["low"] <= estimate["value"] <= estimate["high"]
        assert estimate["basis"] in {"measured", "calibrated", "roofline", "assumed"}
    for node in document["nodes"]:
        for slots in node["slots"]:
            assert list(violations(slots["plan"])) == []
    assert loads(ClusterPlan, done.stdout, origin="test").total.nodes == 4


def test_the_same_nodes_for_people(console: Console, nodes: Path) -> None:
    done = console.run("cluster", "plan", "--nodes", str(nodes))
    assert done.returncode == 0, done.stderr
    for words in ("2 x cards", "not used: nothing fits", "answers at once", "tokens/s"):
        assert words in done.stdout


def test_nothing_fits_is_a_result(console: Console, nodes: Path) -> None:
    nodes.write_text('- {name: small, machine: "cpu:4GiB"}\n', encoding="utf-8")
    code, error = error_of(console, "plan", "--nodes", str(nodes))
    assert (code, error["type"]) == (3, "NothingFits")
    assert set(error["facts"]["nodes"]) == {"small"}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("plan", "--nodes", "none.yaml"), 2, "cannot read the nodes file"),
        (("plan", "--nodes", "nodes.yaml", "--n-ctx", "300k"), 2, "outside what the model was trained for"),
        (("plan", "--nodes", "nodes.yaml", "--cache-type", "q9"), 2, "q9"),
        (("plan", "--nodes", "nodes.yaml", "--quant", "q9"), 2, "q9"),
        (("up", "none.json"), 2, "cannot read the cluster plan"),
        (("up", "nodes.yaml"), 2, "nodes.yaml"),
        (("status",), 2, "no service was brought up"),
        (("down",), 2, "no service was brought up"),
    ],
)
def test_bad_input_is_named(console: Console, nodes: Path, words: tuple[str, ...], code: int, said: str) -> None:
    assert nodes.is_file()
    found, error = error_of(console, *words)
    assert found == code
    assert said in error["message"]


@pytest.mark.parametrize("words", [("plan",), ("up",)])
def test_without_ray_the_extra_is_named(without_ray: Console, words: tuple[str, ...]) -> None:
    code, error = error_of(without_ray, *words)
    assert (code, error["type"]) == (4, "ClusterError")
    assert "Ray is not installed" in error["message"]
    assert error["hint"] == "pip install 'glmplan[cluster]'"


def test_a_cluster_plan_is_exported_as_it_is(console: Console, nodes: Path) -> None:
    out = console.folder / "cluster.json"
    assert console.run("cluster", "plan", "--nodes", str(nodes), "-o", str(out)).returncode == 0
    done = console.run("export", "ray-serve", str(out), "--check", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["checked_by"]
    assert "glmplan-cards" in document["text"]
    refused = console.run("export", "systemd", str(out), "--json")
    assert refused.returncode == 4
    assert "is for one machine" in json.loads(refused.stdout)["error"]["message"]
