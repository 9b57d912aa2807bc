"""The one exception that is the user's to mend."""


class BadInput(ValueError):
    """What was wrong, the value, and the cure, in a sentence.

    The binaries print it without a traceback and exit with code 2.
    """
