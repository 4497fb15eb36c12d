"""Answers every line on standard input with the energy counters of the cards named by UUID: one JSON line.

Runs as a child, as `nvml_child` does. `nvmlDeviceGetTotalEnergyConsumption` counts millijoules since the driver was
loaded (Volta and later); a card without it is null.
"""

import importlib
import json
import sys
from typing import Any


def main(uuids: list[str]) -> None:
    """Answer until standard input ends."""
    pynvml: Any = importlib.import_module("pynvml")  # untyped
    pynvml.nvmlInit()
    handles = {uuid: pynvml.nvmlDeviceGetHandleByUUID(uuid) for uuid in uuids}
    for _ in sys.stdin:
        answer: dict[str, int | None] = {}
        for uuid, handle in handles.items():
            try:
                answer[uuid] = int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
            except pynvml.NVMLError:
                answer[uuid] = None
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
