"""`python -m loadtest URL …`: the same commands as `fathom loadtest`."""

from loadtest.cli import app

if __name__ == "__main__":
    app(prog_name="loadtest")
