"""A gateway with a trusted agent and an isolated one, each connected as its own Redis user."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from pytest import TempPathFactory

from tests.isolation.house import House, open_house


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: TempPathFactory) -> AsyncIterator[House]:
    """One house for a file's tests: what one of them leaves behind, the next one's checks would find."""
    async with open_house(tmp_path_factory.mktemp("house")) as house:
        await house.start("w1", "w2")
        yield house
