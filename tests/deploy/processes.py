"""Real processes for the deployment tests: `fathom serve` on the shipped bundle, and whatever watches it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60  # seconds until a test gives up on something that should have happened
Body = dict[str, Any]


def chain(hops: int) -> Body:
    """A graph question that takes about as many steps as it has hops."""
    return {"edges": [[hop, hop + 1] for hop in range(hops)], "source": 0, "target": hops}


def exactly(steps: int, **more: object) -> Body:
    """A request that takes exactly so many steps."""
    problem = {"model": "graph", "input": chain(3), "halting": {"criterion": "none"}}
    return {**problem, "max_steps": steps, **more}


def eventually(holds: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Wait for what another process does without telling; connections that fail count as not yet."""
    until = time.monotonic() + patience
    while True:
        try:
            if holds():
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < until, f"{what}: it never came about"
        time.sleep(0.1)


@contextmanager
def running(command: Sequence[str | Path], log: Path, cwd: Path = ROOT) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose output goes to a file, ended with the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=cwd, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def fathom_serve(folder: Path) -> Iterator[str]:
    """The command on a free port of loopback, ready; gives its address."""
    log = folder / "fathom.log"
    with running([sys.executable, "-m", "fathom", "serve", "--host", "127.0.0.1", "--port", "0"], log):
        eventually(lambda: "http://" in log.read_text(), "the server's address")
        found = re.search(r"http://[\d.:]+", log.read_text())
        assert found, log.read_text()
        eventually(lambda: httpx.get(f"{found[0]}/health/ready").is_success, "readiness")
        yield found[0]
