"""How long the chaos suite runs, and from which seed: ``make chaos`` runs it in full, ``make test`` a shorter form."""

from __future__ import annotations

import os
from typing import Final

FULL: Final = os.environ.get("CHAOS") == "full"
"""Whether this is the long form."""

SEED: Final = int(os.environ.get("CHAOS_SEED", "20261124"))
"""What every random choice follows from; printed with the figures."""


def scaled(full: int, short: int) -> int:
    """A count in the long form and in the short one."""
    return full if FULL else short
