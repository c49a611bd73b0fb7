"""The OpenAPI description against the server that gives it: requests drawn from the one, sent to the other.

`make schema-test` runs this. The server is on loopback, started and ended here; it has keys, and a model.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx

from tests.service.servers import graph_alone
from tests.service.test_process import fathom_serve

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
USER, ADMIN = "fuzzing-user", "fuzzing-admin"


def main() -> None:
    """Exits with 1 where the description is not kept, or the server says that something is wrong with it."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--cases", type=int, default=5000, help="about how many requests, at least")
    options.add_argument("--seed", type=int, default=0)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--api-keys", USER, "--admin-keys", ADMIN, "--repository", str(graph_alone(Path(folder)))]
        with fathom_serve(*flags, "--drain-seconds", "1") as server:
            description = f"{server.client.base_url}/openapi.json"
            operations = sum(map(len, httpx.get(description, timeout=60).json()["paths"].values()))
            command = ["-m", "schemathesis.cli", "--config-file", str(CONFIGURATION), "run", description]
            terms = {
                "--header": f"Authorization: Bearer {ADMIN}",
                "--max-examples": str(max(1, asked.cases // operations)),
                "--seed": str(asked.seed),
                "--request-timeout": "60",
            }
            flat = [part for pair in terms.items() for part in pair]
            done = subprocess.run(
                [sys.executable, *command, *flat, "--continue-on-failure"], cwd=folder, check=False
            )
            faults = [line for line in server.log if "ERROR" in line or "Traceback" in line]
            server.client.get("/health/ready").raise_for_status()
            stopped = server.stop()
    print(*faults, f"schemathesis: {done.returncode}; the server: {stopped}", sep="\n")  # noqa: T201
    sys.exit(bool(done.returncode or stopped or faults))


if __name__ == "__main__":
    main()
