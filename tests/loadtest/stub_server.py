"""The stub server as a process of its own, with one setting, in place of `fathom serve`."""

import argparse

import uvicorn

from tests.loadtest.scripts import constant
from tests.loadtest.stub import Stub

if __name__ == "__main__":
    flags = argparse.ArgumentParser()
    flags.add_argument("--host")
    flags.add_argument("--port", type=int)
    flags.add_argument("--slots", type=int)
    chosen = flags.parse_args()
    stub = Stub(constant(0.05), slots=chosen.slots)
    uvicorn.run(stub, host=chosen.host, port=chosen.port, log_level="error", lifespan="off")
