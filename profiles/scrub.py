"""Takes people out of a recording: host and user names, home folders, serial numbers, UUIDs, group names.

Each distinct secret becomes one numbered placeholder, so that what was equal stays equal.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from glmplan.errors import JsonValue
from glmplan.profiles.host import Completed
from glmplan.profiles.tape import Recorder

# The variables a tape keeps beside LLAMA_ARG_*: they change what a probe answers.
ENVIRONMENT: Final = (
    "HOME", "XDG_CONFIG_HOME", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "container",
    "GGML_CUDA_ENABLE_UNIFIED_MEMORY",
    "KUBERNETES_SERVICE_HOST", "LLAMA_CACHE", "HF_HOME", "HF_HUB_CACHE", "OLLAMA_MODELS", "OLLAMA_HOST",
    "OLLAMA_FLASH_ATTENTION", "OLLAMA_KV_CACHE_TYPE", "OLLAMA_NUM_PARALLEL", "OLLAMA_CONTEXT_LENGTH",
)  # fmt: skip
SECRET: Final = re.compile(r"KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
_UUID: Final = re.compile(r"\b[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}\b")
_LONG_HEX: Final = re.compile(r"\b[0-9a-f]{32,64}\b")
_SERIAL: Final = re.compile(
    r'("?(?:serial(?:[_ ]number)?|platform_UUID|provisioning_UDID|model_number|Asset Tag)"?\s*[:=]\s*"?)([^"\n,]+)',
    re.IGNORECASE,
)
_HOME: Final = re.compile(r"(/home/|/Users/)([^/\s\"':,]+)")
_KNOWN_GROUP: Final = re.compile(
    r"(docker|kubepods|containerd|libpod|lxc|system|user|init|machine|.*\.(slice|scope|service))"
)
_ADDRESS: Final = re.compile(r"\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b", re.IGNORECASE)


class Scrubber:
    """Replaces secrets by placeholders, the same secret always by the same one."""

    def __init__(self, names: Iterable[str], group_names: Iterable[str] = (), home: str | None = None) -> None:
        """Take what to remove: `names` of hosts and users, `group_names` of control groups, the `home` folder."""
        self._seen: dict[str, str] = {}
        self._count: dict[str, int] = {}
        self._home = re.compile(rf"(?<![\w/.-]){re.escape(home)}(?![\w-])") if home and home != "/" else None
        self._words = [(self._word(name), f"name-{number}") for number, name in enumerate(_long(names), 1)]
        self._words += [(self._word(name), f"group-{number}") for number, name in enumerate(_long(group_names), 1)]

    def text(self, text: str) -> str:
        """`text` without secrets."""
        text = _UUID.sub(self._numbered("uuid", "00000000-0000-0000-0000-{:012d}"), text)
        text = _LONG_HEX.sub(self._numbered("hex", "{:032d}"), text)
        text = _ADDRESS.sub("00:00:00:00:00:00", text)
        text = _SERIAL.sub(lambda match: f"{match[1]}removed", text)
        if self._home is not None:
            text = self._home.sub("/home/user", text)
        text = _HOME.sub(lambda match: f"{match[1]}user", text)
        for word, placeholder in self._words:
            text = word.sub(placeholder, text)
        return text

    def json(self, value: JsonValue) -> JsonValue:
        """A JSON value without secrets, keys included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.json(item) for item in value]
        if isinstance(value, dict):
            return {self.text(key): self.json(item) for key, item in value.items()}
        return value

    def _numbered(self, kind: str, form: str) -> Callable[[re.Match[str]], str]:
        def replace(match: re.Match[str]) -> str:
            secret = match[0].lower()
            if secret not in self._seen:
                self._count[kind] = self._count.get(kind, 0) + 1
                self._seen[secret] = form.format(self._count[kind])
            return self._seen[secret]

        return replace

    @staticmethod
    def _word(name: str) -> re.Pattern[str]:
        return re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])")


def _long(names: Iterable[str]) -> list[str]:
    """Names worth removing, longest first; `root` and single letters would only garble the tape."""
    return sorted(
        {name for name in names if len(name) > 2 and name not in {"root", "user", "localhost"}}, key=len, reverse=True
    )


def group_names(own: str | None) -> list[str]:
    """Names of control groups that an administrator or a service chose."""
    parts = [part for line in (own or "").splitlines() for part in line.rpartition(":")[2].split("/")]
    return [part for part in parts if part and not _KNOWN_GROUP.fullmatch(part)]


def scrub(recorder: Recorder, scrubber: Scrubber) -> None:
    """Remove secrets from everything `recorder` remembers, in place."""
    recorder.reads = {scrubber.text(path): scrubber.text(text) for path, text in recorder.reads.items()}
    recorder.folders = {
        scrubber.text(path): tuple(scrubber.text(name) for name in names) for path, names in recorder.folders.items()
    }
    recorder.runs = {
        tuple(scrubber.text(word) for word in argv): Completed(
            returncode=done.returncode,
            stdout=scrubber.text(done.stdout),
            stderr=scrubber.text(done.stderr),
            why=done.why,
        )
        for argv, done in recorder.runs.items()
    }
    recorder.calls = {name: scrubber.json(answer) for name, answer in recorder.calls.items()}
    recorder.absent = {scrubber.text(question) for question in recorder.absent}


def kept_environment(env: Mapping[str, str], scrubber: Scrubber) -> dict[str, str]:
    """The few variables a tape keeps."""
    names = {name for name in env if name in ENVIRONMENT or (name.startswith("LLAMA_ARG_") and not SECRET.search(name))}
    return {name: scrubber.text(env[name]) for name in sorted(names)}
