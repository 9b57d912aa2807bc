"""The two ways a run ends badly: the user can fix it, or no restart can."""


class BadInput(ValueError):
    """A wrong input: its text gives the value, what is required and what to set.

    Every command prints it without a traceback and exits with code 2.
    """


class RunFailed(Exception):
    """A failure that no restart can repair; its text gives the reason.

    `impala-train` prints it without a traceback and exits with code 1.
    """
