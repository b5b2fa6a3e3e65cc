"""Exceptions that speak to the person who runs the program, and the codes programs end with.

docs/clusters.md has the table of codes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

UNEXPECTED = 1  # with a traceback
USER_MISTAKE = 2
PROCESS_LOST = 3  # another process of the job failed, or never came
STEP_TOO_LONG = 10  # the watchdog ended the job, by the signal of that number
INTERRUPTED = 130


class UserError(Exception):
    """What is wrong, where, and what to do, in one sentence; shown without a traceback."""


class Stopped(Exception):
    """Work was asked to stop (SIGTERM) and has saved; not an error."""


def exit_with(main: Callable[[], int | None]) -> NoReturn:
    """Runs a launcher's `main`, exits with its code; a `UserError` becomes one line and code 2."""
    try:
        sys.exit(main() or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USER_MISTAKE)
    except KeyboardInterrupt:
        print("interrupted: run the same command again to continue", file=sys.stderr)
        sys.exit(INTERRUPTED)
