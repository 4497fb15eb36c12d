"""Isolation: no test reads or writes the state of the person who runs it."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tiny import write_tiny

TAPES = Path(__file__).parent / "tapes"

# A busy machine is no fault of what is tested; a check of a change gives the same verdict twice.
settings.register_profile(
    "busy", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
settings.load_profile("busy")

pytest_plugins = ["browser_fixtures", "console_fixtures", "engine_fixtures", "ray_fixtures"]


def pytest_configure() -> None:
    """A shell starts what it puts in the background with Ctrl-C ignored, and children would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def isolated_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has an empty home, its own glmplan folders, no CUDA selection, no colour and 100 columns."""
    home = tmp_path_factory.mktemp("home")
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    for name in ("CACHE", "CONFIG", "DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
    monkeypatch.setenv("GLMPLAN_HOME", str(home / "glmplan"))
    for name in (
        "CUDA_VISIBLE_DEVICES",
        "CUDA_DEVICE_ORDER",
        "HF_HOME",
        "HF_HUB_CACHE",
        "HF_ENDPOINT",
        "HF_HUB_OFFLINE",
        "HF_TOKEN",
        "LLAMA_CACHE",
        "OLLAMA_MODELS",
        "GLMPLAN_API_KEY",
        "GLMPLAN_LLAMA_SERVER",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of about 1 MB that real engines load and run."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    write_tiny(path)
    return path
