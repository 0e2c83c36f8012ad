"""The conformance suite finds what is wrong: a check passes with a good provider and fails with one that breaks it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import Any

import pytest

from model_gateway.errors import GatewayError
from model_gateway.providers import ProviderInterface, ProviderSettings
from model_gateway.testing import FAILURES, KEY, ProviderConformance, Scenario
from model_gateway.testing.serving import whole
from tests.providers import wrong_providers as wrong
from tests.providers.conformance import OfTheOpenAIFamily
from tests.providers.wrong_providers import chunks_but, counting, failing, other, reply_call, reply_choice, whole_but

FOUND = (AssertionError, ValueError, GatewayError, OSError, RuntimeError, pytest.fail.Exception)


@dataclass(frozen=True)
class Wrong:
    """A wrong provider, and the check that finds it."""

    check: str
    provider: type[ProviderInterface]
    scenario: Scenario = Scenario.TEXT
    call: Any = whole


def failure_of(scenario: Scenario, provider: type[ProviderInterface]) -> Wrong:
    return Wrong("a_failure_is_told_by_its_code_and_whether_it_was_paid_and_is_not_tried_again", provider, scenario)


USAGE = "usage_is_told_by_a_whole_reply_and_by_the_last_chunk_alike"
SHAPE = "a_whole_reply_is_a_chat_completion"
NAMED = "a_streamed_tool_call_is_named_by_its_first_piece_alone"
JOINED = "parallel_tool_calls_come_in_pieces_that_join"
WHOLE_CALLS = "parallel_tool_calls_come_whole"
UNKNOWN = "a_field_that_is_not_known_is_never_dropped_in_silence"
TOOLS = Scenario.TOOLS

WRONG = [
    Wrong(SHAPE, reply_choice(finish_reason=None)),
    Wrong(SHAPE, reply_choice(index="0")),
    Wrong(SHAPE, reply_choice(message={"role": "assistant", "content": "something else"})),
    Wrong(SHAPE, reply_choice(message={"role": "user", "content": ""})),
    Wrong(SHAPE, whole_but(lambda reply: reply.update(object="completion"))),
    Wrong(SHAPE, whole_but(lambda reply: reply.pop("id"))),
    Wrong("a_stream_says_what_the_whole_reply_says", chunks_but(lambda number, chunk: [] if number == 2 else None)),
    Wrong("a_stream_is_of_one_reply_and_says_nothing_after_its_finish", chunks_but(wrong.talks_on)),
    Wrong(
        "a_stream_is_of_one_reply_and_says_nothing_after_its_finish",
        chunks_but(lambda number, chunk: chunk.update(id=f"chunk-{number}")),
    ),
    Wrong("a_stream_gives_each_answer_its_role_first_and_exactly_one_finish", chunks_but(wrong.again)),
    Wrong("a_stream_gives_each_answer_its_role_first_and_exactly_one_finish", chunks_but(wrong.without_role)),
    Wrong("a_stream_comes_in_pieces", chunks_but(lambda number, chunk: [] if 1 < number < 12 else None)),
    Wrong(WHOLE_CALLS, reply_choice(finish_reason="stop"), TOOLS),
    Wrong(WHOLE_CALLS, reply_call(id="the same"), TOOLS),
    Wrong(WHOLE_CALLS, reply_call(id=None), TOOLS),
    Wrong(WHOLE_CALLS, reply_call(function={"name": "weather", "arguments": {}}), TOOLS),
    Wrong(JOINED, chunks_but(lambda number, chunk: [] if number == 3 else None), TOOLS),
    Wrong(JOINED, wrong.pieces_but(index=0), TOOLS),
    Wrong(NAMED, wrong.pieces_but(id="call_0"), TOOLS),
    Wrong(USAGE, chunks_but(lambda number, chunk: [] if chunk["usage"] else None)),
    Wrong(USAGE, whole_but(lambda reply: reply.pop("usage"))),
    Wrong(USAGE, whole_but(lambda reply: reply["usage"].update(total_tokens=1))),
    Wrong(USAGE, whole_but(lambda reply: reply["usage"].update(prompt_tokens_details={"cached_tokens": 1000}))),
    Wrong(USAGE, whole_but(lambda reply: reply["usage"].update(completion_tokens_details={"reasoning_tokens": 99}))),
    Wrong(
        "usage_that_nobody_told_is_not_made_up",
        whole_but(lambda reply: reply.update(usage={"prompt_tokens": 0, "completion_tokens": 0})),
        Scenario.NO_USAGE,
    ),
    Wrong(UNKNOWN, wrong.Drops),
    Wrong(UNKNOWN, wrong.Refuses),
    Wrong("a_field_that_is_not_known_is_left_out_where_the_row_says_so", wrong.Refuses),
    Wrong("a_text_has_tokens_and_more_of_it_has_no_fewer", counting(lambda text: 1)),
    Wrong("a_text_has_tokens_and_more_of_it_has_no_fewer", counting(lambda text: len(text) / 4)),
    Wrong("no_text_has_no_tokens", counting(lambda text: len(text) + 1)),
    Wrong("words_that_mean_something_to_a_tokenizer_are_plain_text", counting(lambda text: 0)),
    Wrong("a_provider_that_was_never_called_can_be_closed", wrong.CanNotClose),
    *(failure_of(scenario, failing(lambda error: other(error, code="internal_error"))) for scenario in FAILURES),
    *(failure_of(scenario, failing(lambda error: other(error, billed=not error.billed))) for scenario in FAILURES),
    *(failure_of(scenario, failing(lambda error: other(error, say=KEY))) for scenario in FAILURES),
    failure_of(Scenario.BROKEN, failing(lambda error: ConnectionError("not a gateway's"))),
    failure_of(Scenario.RATE_LIMITED, failing(lambda error: other(error, retry_after=None))),
    failure_of(Scenario.BROKEN, wrong.Retries),
    Wrong("a_stream_that_is_cut_never_looks_finished", wrong.CutLooksFinished, Scenario.CUT_MIDWAY),
    Wrong(
        "a_whole_reply_that_is_cut_is_an_error", failing(lambda error: other(error, billed=False)), Scenario.CUT_MIDWAY
    ),
    Wrong("a_call_that_hangs_ends_with_its_time", wrong.NeverGivesUp, Scenario.HANGING),
    Wrong("a_stream_that_hangs_midway_ends_with_its_time", wrong.CutLooksFinished, Scenario.HANGING_MIDWAY),
    Wrong("a_call_that_is_cancelled_ends_at_once_and_the_next_is_answered", wrong.NeverGivesUp, Scenario.HANGING),
    Wrong("a_call_that_is_cancelled_ends_at_once_and_the_next_is_answered", wrong.OneAtATime, Scenario.HANGING),
    Wrong(
        "a_stream_that_is_cancelled_midway_ends_at_once_and_the_next_call_is_answered",
        wrong.StuckStream,
        Scenario.HANGING_MIDWAY,
    ),
    Wrong(
        "a_stream_that_is_closed_midway_ends_at_once_and_the_next_call_is_answered",
        wrong.StuckStream,
        Scenario.HANGING_MIDWAY,
    ),
]


def suite(provider: type[ProviderInterface]) -> ProviderConformance:
    """The suite over one provider."""

    class Conformance(OfTheOpenAIFamily):
        def led_to(self, base: str, settings: ProviderSettings) -> ProviderInterface:
            return provider(replace(settings, api_base=base))

    return Conformance()


async def run(found: Wrong, provider: type[ProviderInterface]) -> None:
    check = getattr(suite(provider), f"test_{found.check}")
    given = {"scenario": found.scenario, "call": found.call}
    await check(**{name: given[name] for name in inspect.signature(check).parameters})


@pytest.mark.parametrize("found", WRONG, ids=[f"{index}-{found.check}" for index, found in enumerate(WRONG)])
async def test_a_check_passes_with_a_good_provider_and_fails_with_a_wrong_one(found: Wrong) -> None:
    await run(found, wrong.Provider)
    with pytest.raises(FOUND):
        await run(found, found.provider)


def test_every_check_is_shown_to_find_something() -> None:
    checks = {name.removeprefix("test_") for name in dir(ProviderConformance) if name.startswith("test_")}
    assert {found.check for found in WRONG} == checks


def test_checks_of_scenarios_that_a_provider_can_not_be_put_into_are_left_out() -> None:
    class Some(OfTheOpenAIFamily):
        cannot = frozenset({Scenario.TOOLS, Scenario.BROKEN})
        keeps_time = False

    assert Some.test_parallel_tool_calls_come_whole is None
    assert Some.test_a_call_that_hangs_ends_with_its_time is None
    assert Some.test_a_stream_is_of_one_reply_and_says_nothing_after_its_finish is not None
    assert Scenario.BROKEN not in Some._possible(FAILURES)
    assert OfTheOpenAIFamily.test_parallel_tool_calls_come_whole is not None
