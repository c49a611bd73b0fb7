"""Compiles the kernel ahead of time, on any machine: no GPU, no driver and no C compiler is needed.

python -m service.runners.fused.compile --arch 90 --out DIR [BUNDLE ...]
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from model.bundle import read_bundle
from service.runners.fused.kernel import think
from service.runners.fused.shape import Shape, name_of, shape_of, tokens_on_chip

WARPS = 8
CHUNK = 16  # columns of the feed-forward layer at a time; with more of them, registers spill
TYPES = {"real": "*i1", "orders": "*i32", "apart": "i32", "tokens": "i32"}  # all others: *fp32


@dataclass(frozen=True)
class Program:
    """The kernel for one shape and one number of tokens, as a GPU of one architecture runs it."""

    cubin: bytes
    warps: int
    shared: int  # bytes of a row's shared memory
    registers: int  # of a thread
    spilled: int  # bytes of a thread that do not fit into them


def constants(shape: Shape, tokens: int) -> dict[str, Any]:
    """What the kernel takes as constants."""
    return {
        "TOKENS": tokens_on_chip(tokens),
        "WIDTH": shape.width,
        "EXPANDED": shape.expanded,
        "HEADS": shape.heads,
        "LEARNED": int(shape.learned),
        "CHUNK": CHUNK,
        "PRECISION": "ieee",
    }


def compiled(shape: Shape, tokens: int, arch: int) -> Program:
    """The kernel for rows of up to that many tokens. arch: 90 for a compute capability of 9.0."""
    fixed = constants(shape, tokens)
    names = think.arg_names
    signature = {name: "constexpr" if name in fixed else TYPES.get(name, "*fp32") for name in names}
    places = {(names.index(name),): value for name, value in fixed.items()}
    aligned = {(names.index("weights"),): [["tt.divisibility", 16]]}  # others may be views
    built = triton.compile(
        ASTSource(think, signature, constexprs=places, attrs=aligned),
        target=GPUTarget("cuda", arch, 32),
        options={"num_warps": WARPS, "num_stages": 1, "enable_fp_fusion": True},
    )
    cubin: bytes = built.asm["cubin"]
    used = _used(cubin)
    return Program(cubin, WARPS, built.metadata.shared, used["REG"], used["STACK"])


def _used(cubin: bytes) -> dict[str, int]:
    """What a thread takes: REG, registers, and STACK, bytes that spilled."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        said = subprocess.run(
            [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name],
            capture_output=True,
            text=True,
            check=True,
        )
    return {what: int(count) for what, count in re.findall(r"(REG|STACK):(\d+)", said.stdout + said.stderr)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundles", nargs="*", type=Path, default=[Path("bundles/graph/1")])
    parser.add_argument("--arch", type=int, default=90, help="compute capability, 90 for 9.0")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    for folder in asked.bundles:
        shape = shape_of(read_bundle(folder))
        for tokens in shape.sizes:
            program = compiled(shape, tokens, asked.arch)
            save(program, asked.out / name_of(shape, tokens, asked.arch))


def save(program: Program, stem: Path) -> None:
    """A program as two files: NAME.cubin, and NAME.json with the rest."""
    stem.with_suffix(".cubin").write_bytes(program.cubin)
    rest = {name: value for name, value in asdict(program).items() if name != "cubin"}
    stem.with_suffix(".json").write_text(json.dumps(rest) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
