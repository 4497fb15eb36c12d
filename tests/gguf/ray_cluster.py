"""Two Ray nodes on loopback, as `ray start` makes them, and `glmplan cluster` in subprocesses against them."""

import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any, Final

import psutil
from console import SCRIPT, wait_until

from glmplan.launchers.port import free_port

_MARK: Final = "GLMPLAN_TEST_CLUSTER"
_NODE: Final = "GLMPLAN_TEST_NODE"
_RAY: Final = Path(sys.executable).with_name("ray")
_HOST: Final = "127.0.0.1"
_ASK_RAY: Final = """
import json, os, ray
ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
nodes = sorted((n for n in ray.nodes() if n["Alive"]), key=lambda n: "node:__internal_head__" not in n["Resources"])
print(json.dumps([n["NodeID"] for n in nodes]))
"""


class RayCluster:
    """A head and a second node; every process of theirs carries a mark, so that none is missed at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "glmplan"
        # Ray's sockets live below it, and their paths may have 107 characters.
        self._temporary = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
        self.port = free_port(_HOST)
        self.http_port = free_port(_HOST)
        self.environment = {
            **os.environ,
            _MARK: uuid.uuid4().hex,
            "GLMPLAN_HOME": str(self.home),
            "RAY_DISABLE_USAGE_STATS": "1",
            "RAY_ADDRESS": f"{_HOST}:{self.port}",
        }
        self._nodes = 0

    @property
    def url(self) -> str:
        """Where the service listens."""
        return f"http://{_HOST}:{self.http_port}"

    @property
    def ray_folder(self) -> Path:
        """Where Ray keeps its logs and sockets."""
        return Path(self._temporary.name)

    def start(self) -> None:
        """Start both nodes."""
        self._start("--head", f"--port={self.port}", f"--temp-dir={self._temporary.name}", "--include-dashboard=false")
        self.add_node()

    def add_node(self) -> int:
        """Start a node beside the head; its number."""
        self._start(f"--address={_HOST}:{self.port}")
        return self._nodes

    def _start(self, *words: str) -> None:
        self._nodes += 1
        environment = {**self.environment, _NODE: str(self._nodes)}
        environment.pop("RAY_ADDRESS")
        done = subprocess.run(
            [str(_RAY), "start", f"--node-ip-address={_HOST}", "--num-cpus=1", "--object-store-memory=80000000",
             "--disable-usage-stats", "--include-log-monitor=false", *words],
            env=environment, cwd=self.folder, capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def node_ids(self) -> list[str]:
        """Ray's names of the living nodes, the head first."""
        done = subprocess.run(
            [sys.executable, "-c", _ASK_RAY],
            env=self.environment, capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        names: list[str] = json.loads(done.stdout.splitlines()[-1])
        return names

    def glmplan(self, *words: str, timeout_s: float = 240) -> "subprocess.CompletedProcess[str]":
        """Run `glmplan cluster` to its end."""
        return subprocess.run(
            [str(SCRIPT), "cluster", *words],
            env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip

    def document(self, *words: str, timeout_s: float = 240) -> dict[str, Any]:
        """What `glmplan cluster ... --json` prints."""
        done = self.glmplan(*words, "--json", timeout_s=timeout_s)
        assert done.returncode == 0, done.stdout + done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def processes(self, *, node: int | None = None, words: str = "") -> list[psutil.Process]:
        """Processes of this cluster, of one node, with `words` in their command line."""
        return [process for process in psutil.process_iter() if self._is_ours(process, node, words)]

    def engines(self, *, node: int | None = None) -> list[psutil.Process]:
        """The engines of replicas."""
        return self.processes(node=node, words="xllamacpp_server")

    def _is_ours(self, process: psutil.Process, node: int | None, words: str) -> bool:
        try:
            marks = process.environ()
            return (
                marks.get(_MARK) == self.environment[_MARK]
                and (node is None or marks.get(_NODE) == str(node))
                and words in " ".join(process.cmdline())
            )
        except psutil.Error:
            return False

    def kill_node(self, node: int) -> None:
        """`kill -9` of a node: Ray's process there; what it had started is to end by itself."""
        (raylet,) = self.processes(node=node, words="raylet/raylet")
        raylet.kill()

    def wait_for(self, what: str, **counts: int) -> None:
        """Wait until that many processes of a kind run."""
        wanted = counts["number"]
        wait_until(lambda: len(self.processes(words=what)) == wanted, 60, lambda: str(self.processes(words=what)))

    def stop(self) -> None:
        """Kill everything that was started here, the driver's helpers included."""
        for _ in range(50):
            left = self.processes()
            for process in left:
                with_suppressed(process)
            if not left:
                break
            time.sleep(0.1)
        self._temporary.cleanup()


def with_suppressed(process: psutil.Process) -> None:
    """Kill it if it is there still."""
    try:
        process.kill()
    except psutil.Error:
        return
