"""Checks of what goes wrong: errors, answers that are cut or never come, and callers that leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from model_gateway.dialects.chat import ChatReader
from model_gateway.errors import KINDS, GatewayError
from model_gateway.providers import JSONObject, ProviderInterface
from model_gateway.testing.scenarios import CUT, FAILURES, MESSAGES, OUT_OF_TIME, Failure, Scenario
from model_gateway.testing.schema import members
from model_gateway.testing.serving import (
    PROMPT_SECONDS,
    Call,
    Served,
    both_ways,
    over,
    request_fields,
    stream,
    whole,
)

_SHORT_SECONDS: Final = 1.0
"""A time-out for calls that hang: long enough to connect on a slow machine."""


class FaultChecks(Served):
    """What holds of a provider whose server fails, and of calls that are given up."""

    @over(*FAILURES)
    @both_ways
    async def test_a_failure_is_told_by_its_code_and_whether_it_was_paid_and_is_not_tried_again(
        self, call: Call, scenario: Scenario
    ) -> None:
        async with self.served(scenario) as provider:
            self._check(await self._failure(provider, call), FAILURES[scenario])
        assert len(self.requests() or ()) <= 1

    # -- cut

    @over(Scenario.CUT_MIDWAY)
    async def test_a_whole_reply_that_is_cut_is_an_error(self, scenario: Scenario) -> None:
        async with self.served(scenario) as provider:
            self._check(await self._failure(provider, whole), CUT)

    @over(Scenario.CUT_MIDWAY)
    async def test_a_stream_that_is_cut_never_looks_finished(self, scenario: Scenario) -> None:
        async with self.served(scenario) as provider:
            reader = ChatReader(provider.chat_usage)
            try:
                async with asyncio.timeout(PROMPT_SECONDS):
                    async for chunk in self._stream(provider):
                        reader.chunk(members(chunk))
            except GatewayError as error:
                self._check(error, CUT)
        assert not reader.complete

    # -- out of time

    @over(Scenario.HANGING, timed=True)
    async def test_a_call_that_hangs_ends_with_its_time(self, scenario: Scenario) -> None:
        await self._runs_out_of_time(whole, scenario)

    @over(Scenario.HANGING_MIDWAY, timed=True)
    async def test_a_stream_that_hangs_midway_ends_with_its_time(self, scenario: Scenario) -> None:
        await self._runs_out_of_time(stream, scenario)

    # -- given up

    @over(Scenario.HANGING)
    @both_ways
    async def test_a_call_that_is_cancelled_ends_at_once_and_the_next_is_answered(
        self, call: Call, scenario: Scenario
    ) -> None:
        async with self.served(scenario) as provider:
            calling = asyncio.create_task(call(provider, self.model))
            await self.arrived()
            await _ends_at_once(calling)
            assert await call(provider, self.model)

    @over(Scenario.HANGING_MIDWAY)
    async def test_a_stream_that_is_cancelled_midway_ends_at_once_and_the_next_call_is_answered(
        self, scenario: Scenario
    ) -> None:
        async with self.served(scenario) as provider:
            begun = asyncio.Event()
            reading = asyncio.create_task(_read(self._stream(provider), begun))
            async with asyncio.timeout(PROMPT_SECONDS):
                await begun.wait()
            await _ends_at_once(reading)
            assert await whole(provider, self.model)

    @over(Scenario.HANGING_MIDWAY)
    async def test_a_stream_that_is_closed_midway_ends_at_once_and_the_next_call_is_answered(
        self, scenario: Scenario
    ) -> None:
        async with self.served(scenario) as provider:
            chunks = self._stream(provider)
            async with asyncio.timeout(PROMPT_SECONDS):
                assert members(await anext(chunks))
                await chunks.aclose()  # type: ignore[attr-defined] # the interface asks for a generator
            assert await whole(provider, self.model)

    def _stream(self, provider: ProviderInterface) -> AsyncIterator[JSONObject]:
        return provider.stream(MESSAGES, self.model, **request_fields(provider, {}))

    async def _runs_out_of_time(self, call: Call, scenario: Scenario) -> None:
        async with self.served(scenario, timeout=_SHORT_SECONDS) as provider:
            self._check(await self._failure(provider, call), OUT_OF_TIME)

    async def _failure(self, provider: ProviderInterface, call: Call) -> GatewayError:
        with pytest.raises(GatewayError) as caught:
            await call(provider, self.model)
        return caught.value

    def _check(self, error: GatewayError, expected: Failure) -> None:
        assert error.code in KINDS
        assert Failure(error.code, error.billed, error.retry_after) == expected
        assert error.message
        said = everything_said(error)
        assert [secret for secret in self.secrets if secret in said] == []


def everything_said(error: BaseException) -> str:
    """All that a log could print of an error, its causes included."""
    said, seen = "", [error]
    for found in seen:
        said += f"{found}{found!r}{vars(found)}{found.args}"
        seen += [cause for cause in (found.__cause__, found.__context__) if cause and cause not in seen]
    return said


async def _read(chunks: AsyncIterator[JSONObject], begun: asyncio.Event) -> None:
    async for _ in chunks:
        begun.set()


async def _ends_at_once(task: asyncio.Task[Any]) -> None:
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=PROMPT_SECONDS)
    assert done, "the call goes on though it was cancelled"
    assert task.cancelled()
