"""Texts of requests and replies: out of every dialect, out of shared streams, without secrets."""

from __future__ import annotations

import orjson
import pytest

from gateway_insights.batch import fold
from gateway_insights.redaction import REDACTED, Redaction, secrets_of
from gateway_insights.texts import Texts
from gateway_insights.wording import MOST_CHARACTERS, ReplyText, request_text
from model_gateway.settings import ConfigError, Insights
from tests.insights.event_maker import KEYS, STREAM, ask

KEY = "a-key-of-the-tests-own"
PLANTED = [
    "sk-proj-abcdefghijklmnop1234",
    "sk-ant-api03-abcdefghijklmnop",
    "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "AKIAABCDEFGHIJKLMNOP",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "xoxb-1234567890-abcdef",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVPmB92K27u",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
]
CHAT = {"model": "m", "messages": [{"role": "user", "content": "How do I reset my password?"}]}
SAID = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Click on it."}}]}


def texts(redis, redact=None, **settings):
    return Texts(redis, KEYS, Insights(**settings), redact or Redaction(), KEY)


async def filled(redis, reader):
    rows = fold(await redis.xrange(KEYS.events)).rows
    await reader.fill(rows)
    return rows


BODIES = {
    "chat": (CHAT, "How do I reset my password?"),
    "chat of several": (
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "What is it?"}, {"type": "image_url"}]},
                {"role": "assistant", "content": None, "tool_calls": [{"function": {"arguments": '{"a":1}'}}]},
            ]
        },
        'system: Be brief.\n\nuser: What is it?\n\nassistant: {"a":1}',
    ),
    "messages": (
        {"system": [{"type": "text", "text": "S"}], "messages": [{"role": "user", "content": "hi"}]},
        "system: S\n\nuser: hi",
    ),
    "responses": (
        {"instructions": "I", "input": [{"role": "user", "content": [{"type": "input_text", "text": "T"}]}]},
        "system: I\n\nuser: T",
    ),
    "responses of text": ({"input": "plain"}, "plain"),
    "embeddings": ({"input": ["one", "two"]}, "one\ntwo"),
    "embeddings of tokens": ({"input": [[1, 2]]}, ""),
    "wrong": ({"messages": 5, "system": 3}, ""),
}


@pytest.mark.parametrize("name", BODIES)
def test_what_was_asked_is_read_out_of_each_dialect(name):
    body, text = BODIES[name]
    assert request_text(name.split()[0], orjson.dumps(body)) == text


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff", b'{"messages":[1,null]}', b'{"input":{"a":[]}}'])
def test_a_body_that_cannot_be_read_has_no_text(body):
    for operation in ("chat", "messages", "responses", "embeddings", "count_tokens", "some_other"):
        assert request_text(operation, body) == ""


def test_a_body_nested_deeply_and_a_huge_text_are_bounded():
    deep = orjson.dumps({"messages": [{"role": "user", "content": "x"}]}).replace(b'"x"', b"[" * 200 + b"]" * 200)
    assert request_text("chat", deep) == ""
    assert len(request_text("responses", orjson.dumps({"input": "é" * 10**6}))) == MOST_CHARACTERS


REPLIES = {
    "chat": [("chunk", {"choices": [{"index": 0, "delta": {"content": part}}]}) for part in ("Hel", "lo")],
    "messages": [("reply", {"content": [{"type": "text", "text": "Hello"}]})],
    "responses": [("chunk", {"type": "response.output_text.delta", "delta": "Hello"})],
}


@pytest.mark.parametrize("operation", REPLIES)
def test_what_was_answered_is_put_together_in_each_dialect(operation):
    found = ReplyText(operation)
    for kind, parsed in REPLIES[operation]:
        found.add(kind, orjson.dumps(parsed))
    found.add("chunk", b"not JSON")
    assert found.text == "Hello"


def test_an_error_reply_is_its_message_unless_something_was_said():
    failed = ReplyText("embeddings")
    failed.add("error", b'{"error":{"message":"too long"}}')
    assert failed.text == "too long"


async def test_a_row_gets_the_texts_that_its_event_points_at(redis):
    await ask(redis, CHAT, SAID)
    (row,) = await filled(redis, texts(redis))
    assert (row.request_text, row.reply_text) == ("How do I reset my password?", "Click on it.")


async def test_streams_of_several_requests_in_one_another_are_told_apart(redis):
    entries = {}
    for number in range(600):
        name = "ab"[number % 2]
        chunk = {"choices": [{"index": 0, "delta": {"content": f"{name}{number} "}}]}
        entry = await redis.xadd(STREAM, {"id": name, "kind": "chunk", "data": orjson.dumps(chunk)})
        entries.setdefault(name, []).append(entry)
    for name, span in entries.items():
        pointers = {"reply_first": span[0], "reply_last": span[-1]}
        await ask(redis, CHAT, SAID, name, **pointers)
    rows = await filled(redis, texts(redis))
    assert [row.reply_text.split() for row in rows] == [
        [f"{name}{number}" for number in range(600) if "ab"[number % 2] == name] for name in "ab"
    ]


async def test_hash_keeps_no_text_and_the_same_hash_for_the_same_text_under_a_key(redis):
    for number in range(2):
        await ask(redis, CHAT, SAID, f"r{number}")
    rows = await filled(redis, texts(redis, store_text="hash"))
    assert {(row.request_text, row.reply_text) for row in rows} == {(None, None)}
    assert len({row.text_hash for row in rows}) == 1
    other = await filled(redis, Texts(redis, KEYS, Insights(store_text="hash"), Redaction(), "another key"))
    assert other[0].text_hash != rows[0].text_hash


async def test_off_keeps_nothing_of_a_text_and_vectors_can_still_be_made(redis):
    event = await ask(redis, CHAT, SAID)
    reader = texts(redis, store_text="off")
    (row,) = await filled(redis, reader)
    assert (row.request_text, row.reply_text, row.text_hash) == (None, None, None)
    assert await reader.of_events([event, "1-1", "nonsense"]) == {event: "How do I reset my password?"}


async def test_what_was_trimmed_or_points_nowhere_stays_empty(redis):
    await ask(redis, CHAT, SAID, request_entry="not-an-id", reply_first="", reply_last="+")
    await ask(redis, CHAT, SAID, request_entry="9" * 30 + "-1", reply_first="0-0", reply_last="9" * 20 + "-9")
    await redis.set("no-stream", "text")
    await ask(redis, CHAT, SAID, reply_stream="no-stream")
    await redis.xtrim(KEYS.requests, maxlen=0)
    await redis.xtrim(STREAM, maxlen=0)
    rows = await filled(redis, texts(redis))
    assert {(row.request_text, row.reply_text) for row in rows} == {(None, None)}


async def test_secrets_and_nul_characters_are_out_before_a_text_is_stored(redis):
    body = {"messages": [{"role": "user", "content": f"my key is {PLANTED[0]} and\0 mine-1234"}]}
    reply = {"choices": [{"message": {"content": f"I saw {PLANTED[1]}"}}]}
    await ask(redis, body, reply)
    reader = texts(redis, Redaction([r"mine-\d+"]))
    (row,) = await filled(redis, reader)
    assert row.request_text == f"my key is {REDACTED} and\ufffd {REDACTED}"
    assert row.reply_text == f"I saw {REDACTED}"


@pytest.mark.parametrize("secret", PLANTED)
def test_what_looks_like_a_secret_is_taken_out_and_the_rest_stays(secret):
    assert Redaction()(f"before {secret} after") == f"before {REDACTED} after"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Authorization: Bearer abcdefghijklmnop123", f"Authorization: Bearer {REDACTED}"),
        ("postgresql://me:hunter2@db:5432/x", f"postgresql://me:{REDACTED}@db:5432/x"),
        ("OPENAI_API_KEY=abc123def", f"OPENAI_API_KEY={REDACTED}"),
        ('{"password": "hunter22"}', f'{{"password": "{REDACTED}"}}'),
        ("I forgot my password: please help", "I forgot my password: please help"),
        ("the task-force met at https://example.com/a:b@c", "the task-force met at https://example.com/a:b@c"),
    ],
)
def test_a_value_goes_and_the_words_around_it_stay(text, clean):
    assert Redaction()(text) == clean


def test_the_secrets_of_the_process_itself_go_wherever_they_stand():
    variables = {"HMAC_SECRET": "zebra-crossing-9", "PATH": "/usr/bin/local", "X_API_KEY": "short"}
    redact = Redaction(secrets=secrets_of(variables))
    assert redact("zebra-crossing-9 /usr/bin/local short") == f"{REDACTED} /usr/bin/local short"


def test_a_pattern_that_is_none_is_a_mistake_in_the_config():
    with pytest.raises(ConfigError, match=r"insights\.redact\.1"):
        Redaction(["fine", "("])


def test_redaction_takes_time_in_proportion_to_a_hostile_text():
    hostile = "://" * 20_000 + "password=" * 7_000 + "eyJ" * 20_000 + "-----BEGIN PRIVATE KEY-----" * 2_000
    assert Redaction()(hostile)
