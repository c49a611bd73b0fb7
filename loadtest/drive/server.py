"""A server of our own for a while: `fathom serve` on loopback with given settings."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

import httpx

from loadtest.errors import LoadTestError, LoadTestFailed

SERVE = (sys.executable, "-m", "fathom", "serve")
START_S = 120.0
END_S = 40.0  # a little over the time that a server gives itself to finish what runs


@contextlib.contextmanager
def serving(flags: Sequence[str], command: Sequence[str] = SERVE) -> Iterator[str]:
    """The address of a server that is ready. Raises LoadTestError in its own words when it refuses to
    start, LoadTestFailed when it does not become ready or dies meanwhile.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), *flags],
            stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, env=dict(os.environ),
        )  # fmt: skip
        try:
            _wait_until_ready(process, url, said.fileno(), flags)
            yield url
            if process.poll() is not None:
                raise LoadTestFailed(f"the server died while it was measured: {_last_line(said.fileno())}")
        finally:
            process.terminate()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, said: int, flags: Sequence[str]) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise LoadTestError(f"fathom serve {' '.join(flags)} does not start: {_last_line(said)}")
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health/ready", timeout=1.0, trust_env=False).status_code == 200:
                return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    raise LoadTestFailed(f"fathom serve {' '.join(flags)} is not ready after {START_S:g} s")


def _last_line(said: int) -> str:
    lines = os.pread(said, 2**16, 0).decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it says nothing")
