"""How a load test ends that cannot be carried out, told in one line."""


class LoadTestError(Exception):
    """The load test cannot run as asked: an absent server, an unknown model, a bad file or flag.

    The message is one line that says what is wrong and what to do; the command prints it and exits with
    `exit_code`: 2 where the caller can mend it.
    """

    exit_code = 2


class LoadTestFailed(LoadTestError):
    """The load test began as asked and could not be ended: a client process or a started server died."""

    exit_code = 1
