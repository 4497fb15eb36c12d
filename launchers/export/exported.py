"""What every exporter is given and gives back."""

import unicodedata
from enum import StrEnum
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Final

from glmplan.engine import Engine, EngineKind
from glmplan.errors import NotExpressible
from glmplan.launchers.export import targets
from glmplan.launchers.launch import Endpoint
from glmplan.noun import noun
from glmplan.placement import HUGE_PAGES, Placement
from glmplan.plan import Plan

if TYPE_CHECKING:
    from glmplan.cluster import ClusterPlan

OWNER_ONLY: Final = 0o700  # a mask: what others may is taken away
READABLE: Final = 0o644
EXECUTABLE: Final = 0o755


class Use(StrEnum):
    """What the model is for; decides sampling, the length of answers and what becomes of earlier thoughts."""

    GENERAL = "general"
    CODING = "coding"


@noun
class Exported:
    """One file: its text, the suffix and mode it should have, and what of the plan it could not say."""

    text: str
    suffix: str
    mode: int = READABLE
    losses: tuple[str, ...] = ()


@noun
class ExportRequest:
    """A plan, and what is wanted beyond it.

    `exact_size`: the planner has seen the very file, so its size is known to the byte.
    `server`: path of llama-server on the target machine, for files that need one (None: not known); `library_path`: the
    folder its libraries must be looked for in.
    `cluster`: the plan of several machines that `plan` is the first of; None: one machine.
    `thinking`: whether the model thinks before it answers when a request does not say.
    """

    plan: Plan
    endpoint: Endpoint
    use: Use = Use.GENERAL
    thinking: bool = True
    server: str | None = None
    library_path: str | None = None
    exact_size: bool = True
    cluster: "ClusterPlan | None" = None

    @property
    def placement(self) -> Placement:
        """The knobs of the plan."""
        return self.plan.placement

    @property
    def defaults(self) -> targets.UseDefaults:
        """Sampling and answer length of the model card for this use."""
        return targets.use_defaults(self.use.value)

    @property
    def max_new_tokens(self) -> int:
        """Longest answer: the model card's, at most half of the context: questions need room too."""
        return min(self.defaults.max_new_tokens, self.placement.n_ctx // 2)

    @property
    def llama_server(self) -> Engine:
        """llama-server as the target is assumed to have it: a current build."""
        return Engine(
            kind=EngineKind.LLAMA_SERVER,
            path=self.server or "llama-server",
            version=None,
            flags=frozenset(targets.llama_server_options()),
        )


def is_file(name: str) -> bool:
    """Whether a plan's model is named by a path, not by a tag or an address."""
    if "://" in name:
        return False
    return (
        name.startswith(("/", "./", "../", "~", "\\"))
        or bool(PureWindowsPath(name).drive)
        or PurePosixPath(name).suffix == ".gguf"
    )


def path_of(file: str) -> PurePath:
    """`file` as a path of the system it is written for."""
    return PureWindowsPath(file) if PureWindowsPath(file).drive else PurePosixPath(file)


def published_name(plan: Plan) -> str:
    """The name under which the plan's quantisation is usually published, for example `GLM-4.7-Flash-Q4_K_M.gguf`."""
    return f"GLM-4.7-Flash-{plan.model.quantization.upper()}.gguf"


def model_path(plan: Plan, folder: str = "/models") -> tuple[str, tuple[str, ...]]:
    """Where the model file lies on the target machine, and what is assumed about that."""
    if is_file(plan.model.file):
        return plan.model.file, ()
    path = f"{folder}/{published_name(plan)}"
    return path, (f"the plan names no file on disk: {path} is assumed (--model-file PATH says where it is)",)


def is_mac(plan: Plan) -> bool:
    """Whether the plan is for Apple silicon or another Mac."""
    return plan.machine.os.startswith("macOS")


def one_line(text: str) -> str:
    """`text` fit for a comment, whoever wrote the plan file: no line breaks, and no backslash that joins two lines."""
    return "".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in text).strip(" \\")


def headline(plan: Plan) -> str:
    """The plan in one line, for comments."""
    placement, model = plan.placement, plan.model
    machine = ", ".join(gpu.name for gpu in plan.machine.gpus) or plan.machine.cpu
    kv = placement.cache_type_k
    return one_line(
        f"{model.name} {model.quantization}, {placement.n_ctx} tokens of context, KV cache {kv}, planned for {machine}"
    )


def comments(
    request: ExportRequest, losses: tuple[str, ...] = (), *, also: tuple[str, ...] = (), prefix: str = "# "
) -> str:
    """The head of a file that may hold comments: the plan, its origin, what is lost, and what else is to be known."""
    return "".join(f"{prefix}{line}\n" for line in comment_lines(request, losses, also))


def comment_lines(request: ExportRequest, losses: tuple[str, ...], also: tuple[str, ...] = ()) -> list[str]:
    """The lines of `comments`, fit for any comment."""
    plan = request.plan
    made_for = f"{_engine(plan)}, machine {plan.machine.fingerprint}"
    lines = [
        headline(plan),
        f"written by glmplan from the plan of {plan.created_at} for {made_for}",
        *(f"not expressed: {loss}" for loss in losses),
        *also,
    ]
    return [one_line(line) for line in lines]


def _engine(plan: Plan) -> str:
    placement = plan.placement
    return f"{placement.engine} {placement.engine_build}" if placement.engine_build else str(placement.engine)


def refuse(runtime: str, reasons: dict[str, bool], *, hint: str) -> None:
    """Stop when the plan needs what `runtime` cannot do.

    Raises:
        NotExpressible: one of `reasons` (what is needed: whether the plan needs it) applies.
    """
    missing = [reason for reason, wanted in reasons.items() if wanted]
    if missing:
        message = f"{runtime} cannot run this plan: no setting for {', '.join(missing)}"
        raise NotExpressible(message, hint=hint, facts={"knobs": list(missing)})


def require_private(runtime: str, request: ExportRequest, *, hint: str) -> None:
    """Stop when a file without a key would open a server to other machines.

    Raises:
        NotExpressible: the address can be reached from elsewhere, and this file cannot name the key.
    """
    host = request.endpoint.host
    if not request.endpoint.is_loopback:
        message = f"{runtime} cannot be given an API key this way: {host} would be open to everybody who can reach it"
        raise NotExpressible(message, hint=hint, facts={"host": host})


def require_absolute(path: str, what: str) -> str:
    """`path`, if it means the same wherever `what` is started.

    Raises:
        NotExpressible: it is relative.
    """
    if not path_of(path).is_absolute():
        message = f"{what} cannot find {path}: it is no absolute path"
        raise NotExpressible(message, hint="--model-file /path/to/the/file.gguf", facts={"path": path})
    return path


def without_huge_pages(placement: Placement) -> dict[str, bool]:
    """The loss of a format that sets no variables of its server."""
    return {f"buffers in huge pages: start the server with {'='.join(HUGE_PAGES)}": placement.huge_pages}


def applying(losses: dict[str, bool]) -> tuple[str, ...]:
    """The losses that apply."""
    return tuple(loss for loss, applies in losses.items() if applies)
