"""`--on MACHINE`: this machine, a catalog device, bare sizes, a machine file or a tape."""

import re
from pathlib import Path
from typing import Final

from glmplan.errors import InputError, ProfileError
from glmplan.jsonio import loads
from glmplan.machine import Machine
from glmplan.profiles.assumed_machine import Card, cpu_machine, gpu_machine, unified_machine
from glmplan.profiles.detect import detect
from glmplan.profiles.device_rows import Device, all_devices, devices_named, slugs
from glmplan.profiles.host import LocalHost
from glmplan.profiles.tape import TapeHost, is_tape
from glmplan.units import GIB, format_bytes, parse_bytes

_FORMS: Final = "rtx-4090, 2x rtx-3090, apple-m4-max:64, gpu:24GiB,12GiB, gpu:16380MiB/15780MiB, cpu:32GiB, or a path"
_DEVICE: Final = re.compile(r"(?:(?P<count>\d{1,2})\s*[x*]\s*)?(?P<name>[^:]+?)\s*(?::\s*(?P<size>[^:]+))?")


def resolve_machine(on: str, ram: str | None) -> Machine:
    """The machine that `--on` and `--ram` name; `source` of the result says where it comes from.

    Args:
        on: a device id or name with count and memory (`2x rtx-3090`, `apple-m4-max:64`), several joined by
            commas, bare sizes (`gpu:24GiB,12GiB`, `gpu:16380MiB/15780MiB` as total/free, `cpu:32GiB`), the path of
            a machine file or of a tape; `here` or an empty text is this machine.
        ram: host memory such as `64GiB`; only for machines that are not observed.

    Raises:
        ProfileError: no such device or size; the hint lists near matches.
        InputError: malformed, or `ram` where it has no meaning.
    """
    wanted = on.strip()
    ram_bytes = parse_bytes(ram) if ram is not None else None
    if wanted in {"", "here"}:
        _refuse_ram(ram_bytes, "this machine")
        return detect(LocalHost())
    if _looks_like_path(wanted):
        _refuse_ram(ram_bytes, wanted)
        return _from_path(Path(wanted).expanduser())
    kind, _, rest = wanted.partition(":")
    if kind.strip().lower() == "cpu":
        if ram_bytes is not None:
            message = "cpu: names the memory already"
            raise InputError(message, hint=f"write --on cpu:{ram} without --ram")
        return cpu_machine(_size(rest), source=f"bare sizes: {wanted}")
    if kind.strip().lower() == "gpu":
        return gpu_machine(_bare_cards(rest), ram_bytes, source=f"bare sizes: {wanted}")
    return _from_catalog(wanted, ram_bytes)


def _refuse_ram(ram_bytes: int | None, what: str) -> None:
    if ram_bytes is not None:
        message = f"--ram has no meaning for {what}: its memory was observed"
        raise InputError(message, hint="leave --ram out, or name a catalog device with --on")


def _looks_like_path(wanted: str) -> bool:
    return (
        "/" in wanted.partition(":")[0]
        or wanted.endswith(".json")
        or (not re.match(r"(gpu|cpu):", wanted) and Path(wanted).expanduser().exists())
    )


def _from_path(path: Path) -> Machine:
    if is_tape(path):
        return detect(TapeHost(path))
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        message = f"cannot read the machine {path}: {error.strerror}"
        raise InputError(message, hint="write one with `glmplan detect --json > machine.json`") from error
    except UnicodeDecodeError as error:
        message = f"{path} is not a machine file: it is not text"
        raise InputError(message, hint="write one with `glmplan detect --json > machine.json`") from error
    return loads(Machine, text, origin=str(path))


def _size(written: str) -> int:
    """Bytes; a number alone is GiB, as cards are sold."""
    stripped = written.strip()
    value = parse_bytes(f"{stripped}GiB" if re.fullmatch(r"\d+(\.\d+)?", stripped) else stripped)
    if value <= 0:
        message = f"a machine cannot have {written.strip()} of memory"
        raise InputError(message, hint=f"--on is one of: {_FORMS}")
    return value


def _bare_cards(written: str) -> tuple[Card, ...]:
    cards: list[Card] = []
    for part in written.split(","):
        total, mark, free = part.partition("/")
        card = Card(total_bytes=_size(total), free_bytes=_size(free) if mark else None)
        if card.free_bytes is not None and card.free_bytes > card.total_bytes:
            message = f"gpu:{part.strip()}: {format_bytes(card.free_bytes)} free of {format_bytes(card.total_bytes)}"
            raise InputError(message, hint="write total/free, for example gpu:16380MiB/15780MiB")
        cards.append(card)
    return tuple(cards)


def _from_catalog(wanted: str, ram_bytes: int | None) -> Machine:
    chosen: list[tuple[Device, int, str]] = []
    for part in wanted.split(","):
        match = _DEVICE.fullmatch(part.strip())
        count = int(match["count"] or 1) if match else 0
        if match is None or count < 1:
            message = f"cannot read --on {wanted!r}"
            raise InputError(message, hint=f"--on is one of: {_FORMS}")
        device, size, why = choose(match["name"], _size_as_sold(match["size"]))
        chosen.extend([(device, size, why)] * count)
    source = f"catalog: {wanted}"
    unified = [entry for entry in chosen if entry[0].unified]
    if not unified:
        cards = tuple(Card(total_bytes=size, device=device, why=why) for device, size, why in chosen)
        return gpu_machine(cards, ram_bytes, source=source)
    if len(chosen) > 1:
        message = f"{unified[0][0].name} shares memory with its host: one machine has one of it"
        raise InputError(message, hint="plan for one such machine")
    device, size, why = chosen[0]
    if ram_bytes is not None and ram_bytes != size:
        message = f"{device.name} has one memory for CPU and GPU: {format_bytes(size)}, not {format_bytes(ram_bytes)}"
        raise InputError(message, hint=f"leave --ram out, or write --on {device.id}:{ram_bytes // GIB}")
    return unified_machine(device, size, source=source, why=why)


def _size_as_sold(written: str | None) -> int | None:
    """Memory as people write it: 64, 64GB and 64GiB are all 64 GiB here, because GPUs are sold so."""
    if written is None:
        return None
    decimal = re.fullmatch(r"\s*(\d+)\s*GB\s*", written, re.IGNORECASE)
    return int(decimal[1]) * GIB if decimal else _size(written)


def choose(typed: str, size_bytes: int | None) -> tuple[Device, int, str]:
    """The catalog row and memory that `typed` means, and a sentence when something had to be assumed.

    Of several rows (variants of one chip) the slowest is taken; of several sizes the smallest.

    Raises:
        ProfileError: no such device, or it is not sold with that memory.
    """
    rows = devices_named(typed)
    if not rows:
        raise _unknown(typed)
    sizes = sorted({size for row in rows for size in row.memory_options_bytes})
    fitting = [row for row in rows if size_bytes is None or size_bytes in row.memory_options_bytes]
    if not fitting:
        sold = ", ".join(f"{size / GIB:g}" for size in sizes)
        message = f"{rows[0].name} is not sold with {format_bytes(size_bytes or 0)}: it has {sold} GiB"
        raise ProfileError(message, hint=f"write --on {typed}:{sizes[-1] // GIB}, or bare sizes: gpu:24GiB")
    size = size_bytes if size_bytes is not None else min(size for row in fitting for size in row.memory_options_bytes)
    candidates = [row for row in fitting if size in row.memory_options_bytes]
    row = min(candidates, key=lambda entry: (entry.bandwidth_bytes_per_s or 0, entry.peak_flops_per_s or 0))
    assumed: list[str] = []
    if len(candidates) > 1:
        assumed.append(f"of {', '.join(entry.id for entry in candidates)} the slowest was taken")
    if size_bytes is None and len(sizes) > 1:
        assumed.append(f"of {', '.join(f'{size / GIB:g}' for size in sizes)} GiB the smallest was taken")
    if row.note:
        assumed.append(f"the catalog says: {row.note}")
    return row, size, f"{typed}: {'; '.join(assumed)}" if assumed else ""


def _unknown(typed: str) -> ProfileError:
    import difflib

    spellings = {spelling: row.id for row in all_devices() for spelling in slugs(row)}
    near = difflib.get_close_matches(typed.lower().replace(" ", "-"), spellings, n=8, cutoff=0.6)
    names = list(dict.fromkeys(spellings[spelling] for spelling in near))[:4]
    hint = f"did you mean {', '.join(names)}?" if names else f"`glmplan devices` lists them; --on is one of: {_FORMS}"
    message = f"no device named {typed!r} in the catalog"
    return ProfileError(message, hint=hint, facts={"near": list(names)})
