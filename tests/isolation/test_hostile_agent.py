"""An isolated agent that means no good: nobody else notices, and nothing is called that nobody pays for.

It is connected as its own Redis user. While it attacks, others' requests run: over HTTP and from a trusted agent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from model_gateway.envelope import CANCEL, front_door_secret
from tests.isolation.house import (
    BODY_BYTES,
    HOSTILE_SECRET,
    INGRESS,
    KEYS,
    REPLIES,
    SENDER,
    House,
    envelope,
    signed,
    user,
)
from tests.processes import AGENT_SECRET, HMAC_SECRET

pytestmark = pytest.mark.asyncio(loop_scope="module")
HIGHEST = "18446744073709551615-18446744073709551615"
HUNDRED_MB = 100 * 2**20
OLD = -3_700_000
MUCH_MEMORY_KB = 40 * 1024


def raw(**changes: Any) -> dict[str, str | bytes]:
    """A good envelope whose fields are changed after it was signed."""
    return {**signed(), **changes}


def by_another(sender: str, secret: str, principal: str = "") -> dict[str, str | bytes]:
    """A good envelope of somebody else, as one may have been overheard."""
    return envelope(sender=sender, principal=principal or sender).fields(secret)


def old(milliseconds: int) -> dict[str, str | bytes]:
    return signed(ts_ms=envelope().ts_ms + milliseconds)


UNSIGNED: dict[str, tuple[Callable[[], Any], str]] = {
    "no fields of an envelope": (lambda: {"a": "1"}, "field that is not signed"),
    "a field missing": (lambda: {n: v for n, v in signed().items() if n != "body"}, "missing body"),
    "no signature": (lambda: {n: v for n, v in signed().items() if n != "sig"}, "unsigned"),
    "a field more": (lambda: raw(priority="high"), "field that is not signed"),
    "another body under the signature": (lambda: raw(body=b'{"messages":[]}'), "bad signature"),
    "another id under the signature": (lambda: raw(id="another"), "bad signature"),
    "a wrong secret": (lambda: envelope().fields("x" * 40), "bad signature"),
    "another agent's name": (lambda: by_another("agent-test", HOSTILE_SECRET), "not from this ingress"),
    "another agent's envelope": (lambda: by_another("agent-test", AGENT_SECRET), "not from this ingress"),
    "a front door's name": (lambda: by_another("http-a1", HOSTILE_SECRET, "admin"), "not from this ingress"),
    "a front door's envelope": (
        lambda: by_another("http-a1", front_door_secret(HMAC_SECRET), "admin"),
        "not from this ingress",
    ),
    "a NUL in its name": (lambda: raw(**{"from": SENDER + "\0"}), "not from this ingress"),
    "a NUL in a field's name": (lambda: raw(**{"body\0": b"{}"}), "field that is not signed"),
    "no text": (lambda: raw(**{"from": b"\xff\xfe"}), "not from this ingress"),
}
SIGNED: dict[str, tuple[Callable[[], Any], str]] = {
    "another's principal": (lambda: signed(principal="admin"), "not this sender's principal"),
    "another agent's principal": (lambda: signed(principal="agent-test"), "not this sender's principal"),
    "an operation that there is not": (lambda: signed(operation="drop"), "malformed: op"),
    "a NUL in the operation": (lambda: signed(operation="chat\0"), "malformed: op"),
    "signed long ago": (lambda: old(OLD), "s before it was read"),
    "signed in the future": (lambda: old(400_000), "s before it was read"),
    "a model's name without end": (lambda: signed(model="m" * 300), "malformed: model"),
}


async def test_what_it_did_not_sign_is_put_aside_without_a_reply(shared: House):
    reasons, replies = {}, await shared.redis.xlen(REPLIES)
    async with shared.undisturbed():
        for name, (make, _) in UNSIGNED.items():
            await shared.forget_the_minute()
            await shared.publish(make())
            await shared.emptied()
            reasons[name] = (await shared.dead_letters())[-1][b"reason"].decode()
    assert {name for name, (_, reason) in UNSIGNED.items() if reason not in reasons[name]} == set(), reasons
    assert await shared.redis.xlen(REPLIES) == replies
    assert await shared.runs_of_hostile() == 0


async def test_what_it_signed_and_may_not_ask_for_is_refused_with_a_reply(shared: House):
    reasons = {}
    async with shared.undisturbed():
        for name, (make, _) in SIGNED.items():
            await shared.forget_the_minute()
            fields = make()
            await shared.publish(fields)
            assert (await shared.ended(fields["id"]))[b"kind"] == b"error", name
            reasons[name] = (await shared.dead_letters())[-1][b"reason"].decode()
    assert {name for name, (_, reason) in SIGNED.items() if reason not in reasons[name]} == set(), reasons
    assert await shared.runs_of_hostile() == 0


async def test_a_field_that_stands_twice_is_refused_whichever_was_signed(shared: House):
    async with shared.undisturbed():
        await shared.forget_the_minute()
        for twice in ("body", "id", "from", "sig"):
            flat = [part for pair in signed().items() for part in pair]
            await shared.hostile.execute_command("XADD", INGRESS, "*", *flat, twice, b"another")
            await shared.hostile.execute_command("XADD", INGRESS, "*", twice, b"another", *flat)
        await shared.emptied()
    assert {letter[b"reason"] for letter in (await shared.dead_letters())[-8:]} == {b"malformed: a field stands twice"}
    assert await shared.runs_of_hostile() == 0


async def test_odd_bytes_that_it_signed_reach_nobody_but_itself(shared: House):
    odd = [signed(model="pa\0id"), signed(body=b"\0" * 100), signed(body=b'{"messages":"\xff"}'), signed(body=b"")]
    async with shared.undisturbed():
        for fields in odd:
            await shared.publish(fields)
        ends = [await shared.ended(fields["id"]) for fields in odd]
    assert {end[b"kind"] for end in ends} == {b"error"}
    assert await shared.runs_of_hostile() == 0


# -- the stream itself


async def test_wiping_its_ingress_loses_its_own_entries_only(shared: House):
    async with shared.undisturbed():
        for _ in range(50):
            await shared.hostile.xadd(INGRESS, {"rubbish": "1"})
            await shared.hostile.xadd(INGRESS, {"rubbish": "1"}, maxlen=0, approximate=False)
        await shared.emptied()
    await shared.still_serves_hostile()


@pytest.mark.parametrize("maxlen", [None, 0], ids=["left there", "wiped at once"])
async def test_after_the_highest_id_its_ingress_takes_entries_again(maxlen: int | None, shared: House):
    async with shared.undisturbed():
        await shared.hostile.xadd(INGRESS, {"rubbish": "1"}, id=HIGHEST, maxlen=maxlen, approximate=False)
        await shared.emptied()
    await shared.still_serves_hostile()


async def test_an_envelope_under_the_highest_id_is_run_like_any_other(shared: House):
    fields = signed()
    await shared.hostile.xadd(INGRESS, fields, id=HIGHEST)
    assert (await shared.ended(fields["id"]))[b"kind"] == b"reply"
    await shared.at_rest()
    await shared.still_serves_hostile()


# -- size


async def test_a_field_of_100_mb_is_dropped_before_any_worker_has_it(shared: House):
    before = shared.peaks_kb()
    async with shared.undisturbed():
        await shared.publish(signed(body=b"x" * HUNDRED_MB))
        await shared.emptied()
    grown = [after - peak for peak, after in zip(before, shared.peaks_kb(), strict=True)]
    assert max(grown) < MUCH_MEMORY_KB, grown
    assert await shared.runs_of_hostile() == 0
    await shared.still_serves_hostile()


async def test_an_entry_somewhat_too_large_is_put_aside_as_a_short_copy(shared: House):
    async with shared.undisturbed():
        await shared.forget_the_minute()
        await shared.publish(signed(body=b"x" * (BODY_BYTES + 8192)))
        await shared.emptied()
    letter = (await shared.dead_letters())[-1]
    assert letter[b"reason"].startswith(b"too large: ")
    assert sum(len(value) for value in letter.values()) < 5_000
    assert await shared.runs_of_hostile() == 0


async def test_a_hundred_thousand_fields_are_one_entry_too_large(shared: House):
    async with shared.undisturbed():
        await shared.forget_the_minute()
        await shared.hostile.execute_command("XADD", INGRESS, "*", *("a", "") * 100_000)
        await shared.emptied()
    assert (await shared.dead_letters())[-1][b"reason"].startswith(b"too large: ")


async def test_more_than_redis_takes_in_one_value_is_cut_off(shared: House):
    async with shared.undisturbed():
        with pytest.raises((RedisError, OSError)):
            await shared.hostile.xadd(INGRESS, {"body": b"x" * (130 * 2**20)})
    assert not await shared.redis.exists(INGRESS)


# -- replays


async def test_a_replayed_envelope_is_answered_and_not_run_again(shared: House):
    fields = signed(body=orjson.dumps({"messages": [user("once and no more")]}))
    async with shared.undisturbed():
        await shared.publish(fields)
        await shared.ended(fields["id"])
        await shared.publish(fields)
        await shared.emptied()
        await shared.hostile.xadd(INGRESS, fields, id="5-5")
        await shared.emptied()
    replies = await shared.replies_to(fields["id"])
    assert [reply[b"kind"] for reply in replies] == [b"reply", b"duplicate", b"duplicate"]
    [first] = [entry for entry, found in await shared.hostile.xrange(REPLIES) if found == replies[0]]
    assert replies[1][b"first"] == replies[2][b"first"] == first
    assert shared.times_asked(fields["body"]) == 1


async def test_an_envelope_under_a_used_id_is_not_run_whatever_it_says(shared: House):
    first = envelope()
    second = replace(first, body=orjson.dumps({"messages": [user("something else")]}), ts_ms=first.ts_ms + 1)
    async with shared.undisturbed():
        await shared.publish(first.fields(HOSTILE_SECRET))
        await shared.ended(first.request_id)
        await shared.publish(second.fields(HOSTILE_SECRET))
        await shared.emptied()
    assert shared.times_asked(second.body) == 0


async def test_it_can_cancel_nobodys_requests_but_its_own(shared: House):
    async with shared.undisturbed():
        running = [name.decode() for name in await shared.redis.hkeys(KEYS.open)]
        assert len(running) == 3
        for principal, _, request_id in (name.partition(":") for name in running):
            await shared.publish(signed(operation=CANCEL, request_id=request_id, body=b""))
            await shared.publish(signed(operation=CANCEL, request_id=request_id, principal=principal, body=b""))
        await shared.emptied()
    assert await shared.events("model.request.cancelled") == []


# -- what Redis refuses

NO_PERMISSION = [
    ("XADD", KEYS.requests, "*", "a", "1"),
    ("XADD", KEYS.requests, "MAXLEN", "0", "*", "a", "1"),
    ("XADD", KEYS.control, "*", "a", "1"),
    ("XADD", KEYS.events, "*", "event_type", "model.budget.reset"),
    ("XADD", KEYS.dead, "*", "a", "1"),
    ("XADD", REPLIES, "*", "a", "1"),
    ("XADD", KEYS.replies("agent-test"), "*", "a", "1"),
    ("XADD", KEYS.ingress("quiet"), "*", "a", "1"),
    ("XREAD", "STREAMS", KEYS.replies("agent-test"), "0"),
    ("XRANGE", KEYS.replies("agent-test"), "-", "+"),
    ("XRANGE", KEYS.requests, "-", "+"),
    ("XRANGE", INGRESS, "-", "+"),
    ("XTRIM", INGRESS, "MAXLEN", "0"),
    ("DEL", INGRESS),
    ("HSET", KEYS.ledger, "a", "1"),
    ("HSET", KEYS.record(SENDER, "1"), "state", "done"),
    ("HSET", KEYS.ingress_state("hostile"), "taken", "0"),
    ("DEL", KEYS.unfinished("hostile")),
    ("SET", KEYS.full, "1"),
    ("EVAL", "return 1", "0"),
]


async def test_whatever_is_not_its_own_redis_refuses_it(shared: House):
    async with shared.undisturbed():
        for command in NO_PERMISSION:
            with pytest.raises(NoPermissionError):
                await shared.hostile.execute_command(*command)
        with pytest.raises(ResponseError):
            await shared.hostile.execute_command("XADD", INGRESS, "0-0", "a", "1")
