"""Memory stays: what a request takes is given back, by us and by what computes for us."""

from __future__ import annotations

import gc
import os
import platform
import re
import resource
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from service.allocator import OTHERS_SAY
from tests.service.servers import Running, chain, eventually, serving
from tests.service.test_process import Process, fathom_serve

WARM_UP, MEASURED = 20, 60  # times ROUND
MOST_BYTES = 64 * 1024  # that may be kept: about 1 KB a round, and a request that is not let go weighs more
KEPT_MB = 60  # of what 64 wide problems took; their states and context alone are 42 MB
WIDE = 250
SHARE = """
import ctypes, threading
from service.allocator import limit_allocator
limit_allocator()
meeting = threading.Barrier(8)
threads = [threading.Thread(target=meeting.wait) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
ctypes.CDLL(None).malloc_stats()
"""


def whole(server: Running) -> None:
    terms = {"include": ["probabilities", "scores", "trace"], "latents": {"select": "full"}}
    assert server.infer([chain(3), chain(5)], **terms).status_code == 200


def refused(server: Running) -> None:
    assert server.infer(chain(3), max_steps=0).status_code == 422
    assert server.infer(chain(3), model="nobody").status_code == 404


def streamed(server: Running) -> None:
    assert server.infer(chain(3), stream=True).text.count("event: done") == 1


def framed(server: Running) -> None:
    body = {"input": chain(3), "latents": {"select": "pooled"}}
    accept = {"accept": "application/vnd.fathom.frames"}
    assert server.client.post("/v1/infer", json=body, headers=accept).status_code == 200


def left(server: Running) -> None:
    endless = {"input": chain(63), "max_steps": 1_000_000, "halting": {"criterion": "none"}, "stream": True}
    with server.client.stream("POST", "/v1/infer", json=endless) as response:
        next(response.iter_lines())


ROUND: tuple[Callable[[Running], None], ...] = (whole, refused, streamed, framed, left)


def test_requests_of_every_kind_leave_nothing_behind() -> None:
    with serving() as server:
        kept = []
        tracemalloc.start()
        try:
            for rounds in (WARM_UP, MEASURED):
                for _ in range(rounds):
                    for ask in ROUND:
                        ask(server)
                eventually(lambda: server.metric("fathom_running", model="graph") == 0)
                gc.collect()
                kept.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
    assert kept[1] - kept[0] < MOST_BYTES


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_what_wide_problems_took_is_given_back() -> None:
    wide = {"expression": "T" + "&T" * (WIDE // 2)}
    sizes = []
    with fathom_serve() as server:
        for problems in (1, 64):
            body = {
                "model": "logic",
                "input": [wide] * problems,
                "max_steps": 2,
                "halting": {"criterion": "none"},
            }
            for _ in range(3):
                assert server.client.post("/v1/infer", json=body, timeout=120).status_code == 200
            sizes.append(resident(server))
    assert sizes[1] - sizes[0] < KEPT_MB


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are left as they are")
def test_threads_share_two_arenas_unless_the_environment_says_otherwise() -> None:
    others_say = {"MALLOC_ARENA_MAX": "8"}
    unset = {name: value for name, value in os.environ.items() if name not in OTHERS_SAY}
    arenas = []
    for environment in (unset, unset | others_say):
        command = [sys.executable, "-c", SHARE]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=30
        )
        arenas.append(len(re.findall("^Arena ", done.stderr, re.MULTILINE)))
    assert arenas[0] <= 2 < arenas[1]


def resident(server: Process) -> float:
    """Megabytes of a process's memory that lie in RAM."""
    pages = Path(f"/proc/{server.process.pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * resource.getpagesize() / 1e6
