"""Errors that a user can mend: one line, naming the key or file and the fix."""


class UserError(Exception):
    """Something in the configuration, an input file or the environment that the user must change.

    The message is one line; command-line entry points print it after ``error:`` and exit with 1.
    """
