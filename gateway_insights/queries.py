"""The SQL of the insight queries, by the names of its files."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def statement(name: str) -> str:
    """The text of ``queries/<name>.sql``."""
    return (files("gateway_insights") / "queries" / f"{name}.sql").read_text(encoding="utf-8")
