"""Errors a person can mend, and the exit codes they map to.

Every message says what is wrong, where, and what to do about it, in one sentence. The command line
prints it without a traceback (`--debug` shows the traceback). Bugs stay ordinary Python exceptions.
"""

from __future__ import annotations

EXIT_DONE = 0
EXIT_CHECK_FAILED = 1
EXIT_USAGE = 2
EXIT_INCOMPLETE = 3


class LemError(Exception):
    """Base of every error that is reported as one sentence; `exit_code` is the process's exit status."""

    exit_code = EXIT_USAGE


class UserError(LemError):
    """Wrong input, path or option: the person at the keyboard can mend it."""


class DataError(UserError):
    """A data file is malformed; the message names the file, the line and the field."""


class ResumeMismatch(UserError):
    """A run or adapter directory holds the work of another plan; nothing in it was touched."""


class CheckFailed(LemError):
    """A gate or check ran to its end and said no."""

    exit_code = EXIT_CHECK_FAILED


class Incomplete(LemError):
    """The work ended with something missing or failed; what was finished is on disk."""

    exit_code = EXIT_INCOMPLETE
