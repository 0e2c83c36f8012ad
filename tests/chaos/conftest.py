"""Figures that the chaos tests measure, printed as a table at the end.

A test calls ``record_property("fault", "...")`` and ``record_property("<figure>", value)``.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.scale import FULL, SEED


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line for each test that recorded a fault: what it measured, and how long it took."""
    reports = [*terminalreporter.stats.get("passed", []), *terminalreporter.stats.get("failed", [])]
    rows = [(dict(report.user_properties), report) for report in reports if report.when == "call"]
    rows = [(figures, report) for figures, report in rows if "fault" in figures]
    if not rows:
        return
    terminalreporter.write_sep("=", f"chaos, {'long' if FULL else 'short'} form, seed {SEED}")
    for figures, report in rows:
        fault = figures.pop("fault")
        told = ", ".join(f"{name} {value}" for name, value in figures.items())
        terminalreporter.write_line(f"{report.outcome:6} {report.duration:6.1f} s  {fault}: {told}")
