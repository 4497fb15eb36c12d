"""Print quantisation recipes as YAML, asked of llama-quantize itself.

    python scripts/derive_recipes.py [--imatrix] /path/to/llama-quantize glm-4.7-flash Q4_K_M Q8_0 ...

`llama-quantize --dry-run` on the header of the BF16 file names the type of every tensor; this groups them into
rules. Paste the result under `quantizations.recipes` of `profiles/models/MODEL.yaml`. With an importance matrix the
program chooses other types for some files (Q4_0, IQ3_XXS, Q2_K_S): publishers use one, and it refuses IQ2 without.
"""

import argparse
import re
import struct
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

from glmplan.profiles.recipes import catalog_profile
from glmplan.profiles.synthetic import write_synthetic

LINE = re.compile(r"\]\s+(\S+)\s+- \[.*?type =\s+(\S+), size =.*?(?:-> .*?\((\S+)\))?$")


def write_imatrix(path: Path) -> None:
    """An importance matrix of one entry, in the older format: a dry run only asks whether there is one."""
    name = b"output.weight"
    path.write_bytes(struct.pack("<ii", 1, len(name)) + name + struct.pack("<iifii", 1, 1, 1.0, 1, 0))


def tensor_types(quantize: str, model: Path, name: str, imatrix: Path | None = None) -> dict[str, str]:
    """Type of every tensor that is not kept in f32."""
    lib = Path(quantize).parent.parent / "lib"
    given = ["--imatrix", str(imatrix)] if imatrix else []
    done = subprocess.run(
        [quantize, *given, "--dry-run", str(model), name],
        capture_output=True, text=True, check=True, timeout=120, env={"LD_LIBRARY_PATH": str(lib)},
    )  # fmt: skip
    matches = (LINE.search(line) for line in (done.stdout + done.stderr).splitlines())
    return {m[1]: (m[3] or m[2]).upper() for m in matches if m and (m[3] or m[2]) != "f32"}


def spans(layers: list[int]) -> str:
    """Layers as `0-4,7-40/3,41-46`: runs of one step first."""
    parts: list[str] = []
    rest = sorted(layers)
    while rest:
        best = [rest[0]]
        for step in (1, 2, 3, 4):
            run = [rest[0]]
            while run[-1] + step in rest:
                run.append(run[-1] + step)
            if len(run) > len(best):
                best = run
        step = best[1] - best[0] if len(best) > 1 else 1
        parts.append(str(best[0]) if len(best) == 1 else f"{best[0]}-{best[-1]}" + (f"/{step}" if step > 1 else ""))
        rest = [layer for layer in rest if layer not in best]
    return ",".join(parts)


def recipe(name: str, types: dict[str, str]) -> list[str]:
    """YAML lines of one recipe; the most frequent type is the default."""
    default = Counter(types.values()).most_common(1)[0][0]
    kinds: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    lines = [f"    - name: {name}", f"      default: {default}"]
    rules: list[str] = []
    for tensor, kind in types.items():
        match = re.match(r"blk\.(\d+)\.(.+)$", tensor)
        if match:
            kinds[match[2]][kind].append(int(match[1]))
        elif kind != default:
            rules.append(f"        - {{pattern: '^{re.escape(tensor)}$', type: {kind}}}")
    grouped: dict[tuple[str, str], list[str]] = defaultdict(list)
    for suffix, by_kind in kinds.items():
        for kind, layers in by_kind.items():
            if kind != default:
                everywhere = len(by_kind) == 1
                grouped[(kind, "" if everywhere else spans(layers))].append(suffix)
    for (kind, where), suffixes in grouped.items():
        alternatives = "|".join(re.escape(suffix.removesuffix(".weight")) for suffix in sorted(suffixes))
        limit = f", layers: '{where}'" if where else ""
        rules.append(f"        - {{pattern: '\\.({alternatives})\\.weight$', type: {kind}{limit}}}")
    return [*lines, *(["      rules:", *rules] if rules else [])]


def main() -> None:
    """Ask for each name on the command line."""
    parser = argparse.ArgumentParser(description="Print quantisation recipes as YAML.")
    parser.add_argument("--imatrix", action="store_true", help="as with an importance matrix")
    parser.add_argument("quantize", help="the program llama-quantize")
    parser.add_argument("model", help="a model of the catalog")
    parser.add_argument("names", nargs="+", help="as llama-quantize spells them")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, imatrix = Path(folder) / "bf16.gguf", Path(folder) / "imatrix.dat"
        write_synthetic(model, catalog_profile("bf16", model=asked.model), tokenizer=False)
        write_imatrix(imatrix)
        for name in asked.names:
            types = tensor_types(asked.quantize, model, name, imatrix if asked.imatrix else None)
            sys.stdout.write("\n".join(recipe(name, types)) + "\n")


if __name__ == "__main__":
    main()
