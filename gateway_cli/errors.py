"""Why the gateway did not start, other than a mistake in its config."""

from __future__ import annotations


class StartupError(Exception):
    """A part did not come up; the text says which, and what to look at."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
