"""What a caller did wrong, told in one line."""


class LoadTestError(Exception):
    """The load test cannot run as asked: an absent server, an unknown model, a bad file or flag.

    The message is one line that says what is wrong and what to do; the command prints it and exits with 2.
    """
