"""The one exception that speaks to the person who runs the program."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn


class UserError(Exception):
    """What is wrong, where, and what to do, in one sentence; shown without a traceback."""


def exit_with(main: Callable[[], int | None]) -> NoReturn:
    """Runs a launcher's `main`, exits with its code; a `UserError` becomes one line and code 2."""
    try:
        sys.exit(main() or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted: run the same command again to continue", file=sys.stderr)
        sys.exit(130)
