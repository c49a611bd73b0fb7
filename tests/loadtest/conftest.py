"""A whole run of the command, whose report several tests look at."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loadtest.running import QUICK, run
from tests.loadtest.scripts import linear
from tests.loadtest.stub import Stub, serving


@pytest.fixture(scope="session")
def server() -> Iterator[tuple[Stub, str]]:
    stub = Stub(linear(0.02, 0.004))
    with serving(stub) as url:
        yield stub, url


@pytest.fixture(scope="session")
def finished(server: tuple[Stub, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a whole run, its flags given by the environment."""
    out = tmp_path_factory.mktemp("report")
    done = run(
        server[1], *QUICK, "--depths", "1,8", "--concurrency", "3", "--alone", "0.4", "--probe", "0.6",
        FATHOM_LOADTEST_OUT=str(out), FATHOM_LOADTEST_SLO_P99_MS="2000", FATHOM_LOADTEST_API_KEY="hush",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Under load: closed loop" in done.stdout
    return out
