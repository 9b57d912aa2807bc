"""How a run ends badly: by what the user can mend, or by what no restart mends."""


class BadInput(ValueError):
    """What was wrong, the value, and the cure, in a sentence.

    The binaries print it without a traceback and exit with code 2.
    """


class RunFailed(Exception):
    """The run cannot go on, and a restart would not help; why, in a sentence.

    `impala-train` prints it without a traceback and exits with code 1.
    """
