"""Which services glmplan has brought up: one record each in the state folder, so that `down` stops only those."""

from pathlib import Path

from glmplan import jsonio
from glmplan.errors import InputError
from glmplan.launchers.cluster.application import Application
from glmplan.launchers.launch import Endpoint
from glmplan.noun import noun
from glmplan.paths import state_folder, write_atomic


@noun
class ServiceRecord:
    """One application on one cluster; `application` is what is up, and what a failed change goes back to.

    `started_serve`: Ray Serve itself was started for it. `api_key_file` is a file on this machine: the key that was
    made or given; `owns_key` if it goes with the service.
    """

    address: str
    host: str
    port: int
    route_prefix: str
    application: Application
    started_at: str
    started_serve: bool
    api_key_file: str | None = None
    owns_key: bool = False

    @property
    def name(self) -> str:
        """The application's name."""
        return self.application.name

    @property
    def url(self) -> str:
        """Where clients on the head node connect to."""
        return Endpoint(host=self.host, port=self.port).url + self.route_prefix.rstrip("/")


def folder() -> Path:
    """Where records and keys of services live."""
    return state_folder() / "clusters"


def write(record: ServiceRecord) -> None:
    """Remember a service."""
    write_atomic(folder() / f"{record.name}.json", jsonio.dumps(record), mode=0o600)


def forget(record: ServiceRecord) -> None:
    """Remove what is remembered of a service, a key made for it included."""
    (folder() / f"{record.name}.json").unlink(missing_ok=True)
    if record.owns_key and record.api_key_file is not None:
        Path(record.api_key_file).unlink(missing_ok=True)


def recorded() -> tuple[ServiceRecord, ...]:
    """All services, by name.

    Raises:
        InputError: a record cannot be read.
    """
    return tuple(
        jsonio.loads(ServiceRecord, path.read_text(encoding="utf-8"), origin=str(path))
        for path in sorted(folder().glob("*.json"))
    )


def find(name: str) -> ServiceRecord | None:
    """The service called `name`."""
    return next((record for record in recorded() if record.name == name), None)


def choose(name: str | None) -> ServiceRecord:
    """The service called `name`, or the only one there is.

    Raises:
        InputError: there is none, or several and no name.
    """
    records = recorded()
    found = [record for record in records if name is None or record.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        message = f"{len(found)} services run: {', '.join(record.name for record in found)}"
        raise InputError(message, hint="say which: --name NAME")
    message = f"no service{'' if name is None else f' called {name}'} was brought up by glmplan on this machine"
    raise InputError(message, hint="glmplan cluster up brings one up")
