"""32 streams at once against a service of two nodes: every answer is compared, and memory is watched."""

import statistics
import time
from dataclasses import dataclass

import psutil
from ray_cluster import RayCluster
from stream_client import Crowd, expected_answers

N_STREAMS = 32
_SAMPLE_S = 1.0
_WARM_SHARE = 1 / 3


@dataclass
class Load:
    """What came of it; memory is the resident set of engines, replicas, front and proxy together."""

    answered: int
    retried: int
    failed: list[str]
    seconds: float
    warm_bytes: float
    end_bytes: float

    @property
    def growth(self) -> float:
        """How much more memory is taken at the end than when warm, as a share."""
        return self.end_bytes / self.warm_bytes - 1


def run_load(service: RayCluster, urls: list[str], seconds: float) -> Load:
    """Ask for `seconds` and let every stream come to its end; `urls` are the engines' own addresses."""
    crowd = Crowd(service.url, expected_answers(urls, 96))
    parts = [*service.engines(), *service.processes(words="ray::Serve"), *service.processes(words="ray::ProxyActor")]
    samples: list[float] = []
    began = time.monotonic()
    crowd.start(N_STREAMS)
    while time.monotonic() - began < seconds:
        samples.append(float(sum(resident_bytes(part) for part in parts)))
        time.sleep(_SAMPLE_S)
    crowd.stop()
    warm = samples[int(len(samples) * _WARM_SHARE) :]
    few = max(1, len(warm) // 5)
    return Load(
        answered=crowd.answered,
        retried=crowd.retried,
        failed=crowd.failed,
        seconds=time.monotonic() - began,
        warm_bytes=statistics.median(warm[:few]),
        end_bytes=statistics.median(warm[-few:]),
    )


def resident_bytes(process: psutil.Process) -> int:
    """Resident memory; a process that is gone is a fault of its own."""
    return int(process.memory_info().rss)


def engine_urls(service: RayCluster) -> list[str]:
    """Where each engine listens itself."""
    replicas = [replica for node in service.document("status")["nodes"] for replica in node["replicas"]]
    return [f"http://127.0.0.1:{replica['engine']['port']}" for replica in replicas]
