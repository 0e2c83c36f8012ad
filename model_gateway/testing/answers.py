"""Checks of good answers: their shape, what they say, tools, usage, and fields that are not known."""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson
import pytest

from model_gateway.dialects.chat import ChatReader
from model_gateway.errors import GatewayError
from model_gateway.money import Usage
from model_gateway.providers import ProviderInterface
from model_gateway.testing.scenarios import CALLS, SAID, TOOLS, UNKNOWN_FIELD, Scenario
from model_gateway.testing.schema import Chunk, Completion, ToolCall, call_pieces, joined_calls, joined_text
from model_gateway.testing.serving import JSON, Call, Served, both_ways, over, stream, whole


class AnswerChecks(Served):
    """What holds of a provider whose server answers."""

    @over(Scenario.TEXT)
    async def test_a_whole_reply_is_a_chat_completion(self, scenario: Scenario) -> None:
        async with self.served(scenario) as provider:
            [choice] = (await self._completion(provider)).choices
        assert choice.index == 0
        assert choice.message.content == SAID
        assert not choice.message.tool_calls
        assert choice.finish_reason == "stop"

    @over(Scenario.TEXT)
    async def test_a_stream_says_what_the_whole_reply_says(self, scenario: Scenario) -> None:
        async with self.served(scenario) as provider:
            [choice] = (await self._completion(provider)).choices
            chunks = await self._chunks(provider)
        assert joined_text(chunks) == choice.message.content
        assert _finishes(chunks) == [(0, choice.finish_reason)]

    @over(Scenario.TEXT, Scenario.TOOLS, Scenario.NO_USAGE)
    async def test_a_stream_is_of_one_reply_and_says_nothing_after_its_finish(self, scenario: Scenario) -> None:
        async with self.served(scenario) as provider:
            chunks = await self._chunks(provider)
        assert len({(chunk.id, chunk.model) for chunk in chunks}) == 1
        finished = next(number for number, chunk in enumerate(chunks) if _finishes([chunk]))
        for delta in (choice.delta for chunk in chunks[finished + 1 :] for choice in chunk.choices):
            assert not delta.content
            assert not delta.tool_calls

    @over(Scenario.TEXT, Scenario.TOOLS, Scenario.NO_USAGE)
    async def test_a_stream_gives_each_answer_its_role_first_and_exactly_one_finish(self, scenario: Scenario) -> None:
        async with self.served(scenario) as provider:
            chunks = await self._chunks(provider)
        choices = [choice for chunk in chunks for choice in chunk.choices]
        for index in {choice.index for choice in choices}:
            first = next(choice.delta for choice in choices if choice.index == index)
            assert first.role == "assistant"
        assert Counter(index for index, _ in _finishes(chunks)) == {choice.index: 1 for choice in choices}

    @over(Scenario.TEXT)
    async def test_a_stream_comes_in_pieces(self, scenario: Scenario) -> None:
        async with self.served(scenario) as provider:
            chunks = await self._chunks(provider)
        assert sum(1 for chunk in chunks if joined_text([chunk])) > 1

    # -- tools

    @over(Scenario.TOOLS)
    async def test_parallel_tool_calls_come_whole(self, scenario: Scenario) -> None:
        async with self.served(scenario) as provider:
            [choice] = (await self._completion(provider, tools=TOOLS)).choices
        assert choice.finish_reason == "tool_calls"
        _check_calls(choice.message.tool_calls or [])

    @over(Scenario.TOOLS)
    async def test_parallel_tool_calls_come_in_pieces_that_join(self, scenario: Scenario) -> None:
        async with self.served(scenario) as provider:
            chunks = await self._chunks(provider, tools=TOOLS)
        assert _finishes(chunks) == [(0, "tool_calls")]
        _check_calls(joined_calls(chunks))

    @over(Scenario.TOOLS)
    async def test_a_streamed_tool_call_is_named_by_its_first_piece_alone(self, scenario: Scenario) -> None:
        async with self.served(scenario) as provider:
            chunks = await self._chunks(provider, tools=TOOLS)
        named: list[int] = []
        for piece in call_pieces(chunks):
            if piece.index in named:
                assert not piece.id
                assert not (piece.function and piece.function.name)
            else:
                assert piece.id
                assert piece.function
                assert piece.function.name
                named.append(piece.index)
        assert named == list(range(len(CALLS)))

    # -- usage

    @over(Scenario.TEXT, Scenario.TOOLS)
    async def test_usage_is_told_by_a_whole_reply_and_by_the_last_chunk_alike(self, scenario: Scenario) -> None:
        tools = {"tools": TOOLS} if scenario is Scenario.TOOLS else {}
        async with self.served(scenario) as provider:
            [reply] = await whole(provider, self.model, **tools)
            chunks = await stream(provider, self.model, **tools)
            of_whole, of_stream = provider.chat_usage(reply), provider.chat_usage(chunks[-1])
        _check_usage(reply, of_whole)
        _check_usage(chunks[-1], of_stream)
        assert of_stream == of_whole

    @over(Scenario.NO_USAGE)
    @both_ways
    async def test_usage_that_nobody_told_is_not_made_up(self, call: Call, scenario: Scenario) -> None:
        async with self.served(scenario) as provider:
            answers = await call(provider, self.model)
            assert [provider.chat_usage(answer) for answer in answers] == [None] * len(answers)

    # -- fields

    @over(Scenario.TEXT)
    @both_ways
    async def test_a_field_that_is_not_known_is_never_dropped_in_silence(self, call: Call, scenario: Scenario) -> None:
        unknown = {UNKNOWN_FIELD: {"deep": [1]}}
        async with self.served(scenario) as provider:
            if self.passes_unknown_fields:
                await call(provider, self.model, **unknown)
                assert (self.requests() or [unknown])[-1].get(UNKNOWN_FIELD) == unknown[UNKNOWN_FIELD]
                return
            with pytest.raises(GatewayError) as caught:
                await call(provider, self.model, **unknown)
        assert (caught.value.code, caught.value.param) == ("unsupported_parameter", UNKNOWN_FIELD)
        assert caught.value.billed is False
        assert not self.requests()

    @over(Scenario.TEXT)
    @both_ways
    async def test_a_field_that_is_not_known_is_left_out_where_the_row_says_so(
        self, call: Call, scenario: Scenario
    ) -> None:
        async with self.served(scenario, drop_params=True) as provider:
            assert await call(provider, self.model, **{UNKNOWN_FIELD: True})
        for request in self.requests() or ():
            assert self.passes_unknown_fields or UNKNOWN_FIELD not in request

    # -- counting

    @over(Scenario.TEXT)
    async def test_a_text_has_tokens_and_more_of_it_has_no_fewer(self, scenario: Scenario) -> None:
        async with self.served(scenario) as provider:
            counts = [provider.count_tokens(SAID * times, self.model) for times in (1, 2, 4, 8)]
        assert all(type(count) is int and count > 0 for count in counts)
        assert counts == sorted(counts)
        assert counts[0] < counts[-1]

    @over(Scenario.TEXT)
    async def test_no_text_has_no_tokens(self, scenario: Scenario) -> None:
        async with self.served(scenario) as provider:
            assert provider.count_tokens("", self.model) == 0

    @over(Scenario.TEXT)
    async def test_words_that_mean_something_to_a_tokenizer_are_plain_text(self, scenario: Scenario) -> None:
        async with self.served(scenario) as provider:
            assert provider.count_tokens("<|endoftext|>", self.model) > 0

    # -- closing

    @over(Scenario.TEXT)
    async def test_a_provider_that_was_never_called_can_be_closed(self, scenario: Scenario) -> None:
        async with self.served(scenario):
            pass

    async def _completion(self, provider: ProviderInterface, **fields: Any) -> Completion:
        [reply] = await whole(provider, self.model, **fields)
        return Completion.model_validate(reply)

    async def _chunks(self, provider: ProviderInterface, **fields: Any) -> list[Chunk]:
        """A stream's chunks, checked; the gateway takes it as finished."""
        found, reader = await stream(provider, self.model, **fields), ChatReader(provider.chat_usage)
        for chunk in found:
            reader.chunk(chunk)
        assert reader.complete
        return [Chunk.model_validate(chunk) for chunk in found]


def _finishes(chunks: list[Chunk]) -> list[tuple[int, str]]:
    return [
        (choice.index, choice.finish_reason) for chunk in chunks for choice in chunk.choices if choice.finish_reason
    ]


def _check_calls(calls: list[ToolCall]) -> None:
    assert [(call.function.name, orjson.loads(call.function.arguments)) for call in calls] == list(CALLS)
    assert len({call.id for call in calls}) == len(calls)


def _check_usage(answer: JSON, usage: Usage | None) -> None:
    """Tokens were read, written, and no part of them is more than its whole."""
    assert usage is not None
    assert usage.input > 0
    assert usage.output > 0
    assert usage.cached + usage.cache_write <= usage.input
    assert usage.cache_write_1h <= usage.cache_write
    assert max(usage.audio_input, usage.image_input) <= usage.input
    assert max(usage.reasoning, usage.audio_output, usage.image_output) <= usage.output
    told = answer.get("usage") or {}
    assert told.get("total_tokens", usage.input + usage.output) == usage.input + usage.output
