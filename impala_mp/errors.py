"""Ends of a run: bad input, a failure that no restart repairs, a signal."""


class BadInput(ValueError):
    """A wrong input: its text gives the value, what is required and what to set.

    Every command prints it without a traceback and exits with code 2.
    """


class Interrupted(SystemExit):
    """A signal that ends the process; raised by its handler. `code` is the exit code.

    Code that contains failures of an environment lets it pass.
    """


class RunFailed(Exception):
    """A failure that no restart can repair; its text gives the reason.

    `impala-train` prints it without a traceback and exits with code 1.
    """
