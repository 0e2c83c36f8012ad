import hashlib
import hmac
from dataclasses import replace

import pytest

from model_gateway.envelope import (
    SIGNED_FIELDS,
    BadEnvelopeError,
    Envelope,
    front_door_secret,
    new_request_id,
    open_envelope,
    signed_text,
)
from model_gateway.signing import Keyring, seal_text, verify_reply

HMAC_SECRET = "h" * 48
FRONT_DOOR = front_door_secret(HMAC_SECRET)
DEMO, OTHER = "d" * 48, "o" * 48
SECRETS = {"http": (FRONT_DOOR,), "agent-demo": (DEMO,), "agent-other": (OTHER,)}

BODY = '{"model":"echo","messages":[{"role":"user","content":"Grüße"}]}'.encode()
FROM_AGENT = Envelope("agent-demo", "agent-demo", "req-1", "chat", "echo", 1_735_689_600_000, BODY)
FROM_DOOR = Envelope("http-a1", "admin", "req-1", "chat", "", 1_735_689_600_000, BODY)

Fields = dict[bytes, bytes]


def entry(envelope: Envelope, secret: str) -> Fields:
    """The fields as Redis gives them back."""
    fields = envelope.fields(secret)
    return {name.encode(): value.encode() if isinstance(value, str) else value for name, value in fields.items()}


def signed(secret: str = DEMO, **changes: bytes) -> Fields:
    """An agent's entry with fields changed before it was signed, by anybody who has the secret."""
    fields = entry(FROM_AGENT, secret) | {name.encode(): value for name, value in changes.items()}
    text = b"".join(b"%d:%b," % (len(fields[name.encode()]), fields[name.encode()]) for name in SIGNED_FIELDS)
    return fields | {b"sig": hmac.new(secret.encode(), text, hashlib.sha256).hexdigest().encode()}


def refusal(fields: Fields) -> BadEnvelopeError:
    with pytest.raises(BadEnvelopeError) as caught:
        open_envelope(fields, SECRETS)
    return caught.value


# -- what is good


@pytest.mark.parametrize(("envelope", "secret"), [(FROM_AGENT, DEMO), (FROM_DOOR, FRONT_DOOR)])
def test_an_envelope_comes_out_as_it_went_in(envelope: Envelope, secret: str) -> None:
    assert open_envelope(entry(envelope, secret), SECRETS) == envelope


def test_the_documented_protocol_needs_nothing_but_hmac_sha256() -> None:
    values = [b"1", b"agent-demo", b"agent-demo", b"req-1", b"chat", b"echo", b"1735689600000", b'{"messages":[]}']
    text = b"1:1,10:agent-demo,10:agent-demo,5:req-1,4:chat,4:echo,13:1735689600000,15:" + values[-1] + b","
    signature = hmac.new(DEMO.encode(), text, hashlib.sha256).hexdigest()
    names = [b"v", b"from", b"principal", b"id", b"op", b"model", b"ts", b"body"]
    fields = dict(zip(names, values, strict=True)) | {b"sig": signature.encode()}

    assert signature == "554a85267a5ddfd1fac45134b6c833aea78a0bc43cc9ac89ed76afd429d1bce3"  # openssl agrees
    assert entry(replace(FROM_AGENT, body=values[-1]), DEMO) == fields
    assert open_envelope(fields, SECRETS).request_id == "req-1"


def test_the_order_of_an_entrys_fields_does_not_matter() -> None:
    assert open_envelope(dict(reversed(entry(FROM_AGENT, DEMO).items())), SECRETS) == FROM_AGENT


def test_both_live_secrets_of_a_sender_verify() -> None:
    live = {"agent-demo": (OTHER, DEMO)}
    assert open_envelope(entry(FROM_AGENT, DEMO), live) == open_envelope(entry(FROM_AGENT, OTHER), live) == FROM_AGENT


# -- what is signed


@pytest.mark.parametrize("name", SIGNED_FIELDS)
def test_a_change_of_any_field_breaks_the_signature(name: str) -> None:
    fields = entry(FROM_AGENT, DEMO)
    for value in (fields[name.encode()] + b"0", fields[name.encode()][:-1], b""):
        assert isinstance(refusal(fields | {name.encode(): value}), BadEnvelopeError)
    if name != "from":
        assert str(refusal(fields | {name.encode(): b"x"})) == "bad signature"


def test_every_field_but_the_signature_is_signed() -> None:
    assert set(FROM_AGENT.fields(DEMO)) == {*SIGNED_FIELDS, "sig"}


@pytest.mark.parametrize("name", SIGNED_FIELDS)
def test_a_missing_field_is_named(name: str) -> None:
    fields = entry(FROM_AGENT, DEMO)
    del fields[name.encode()]
    assert str(refusal(fields)) == f"malformed: missing {name}"


@pytest.mark.parametrize("signature", [None, b""])
def test_an_unsigned_entry_is_refused(signature: bytes | None) -> None:
    fields = entry(FROM_AGENT, DEMO)
    del fields[b"sig"]
    assert str(refusal(fields if signature is None else fields | {b"sig": signature})) == "unsigned"


@pytest.mark.parametrize("signature", [b"0" * 64, b"\xff" * 64, b"short", "ü".encode()])
def test_a_signature_of_any_bytes_is_merely_wrong(signature: bytes) -> None:
    assert str(refusal(entry(FROM_AGENT, DEMO) | {b"sig": signature})) == "bad signature"


def test_a_signature_in_capitals_is_wrong() -> None:
    fields = entry(FROM_AGENT, DEMO)
    assert str(refusal(fields | {b"sig": fields[b"sig"].upper()})) == "bad signature"


def test_bytes_moved_from_one_field_to_the_next_break_the_signature() -> None:
    fields = entry(FROM_AGENT, DEMO)
    fields |= {b"op": b"chatec", b"model": b"ho"}
    assert str(refusal(fields)) == "bad signature"


def test_no_two_lists_of_values_have_the_same_signed_text() -> None:
    lists = [
        [b"ab", b"c"],
        [b"a", b"bc"],
        [b"abc", b""],
        [b"", b"abc"],
        [b"a,1:b", b"c"],
        [b"a", b"b,1:c"],
        [b"a", b"b", b"c"],
        [b"abc"],
        [b"1:a,", b"bc"],
    ]
    assert len({signed_text(values) for values in lists}) == len(lists)


def test_the_signed_text_is_one_netstring_for_each_value() -> None:
    assert signed_text([b"", b"a:b,c", "ü".encode()]) == b"0:,5:a:b,c,2:\xc3\xbc,"


# -- who is who


def test_who_sends_follows_from_the_secret_and_not_from_the_field() -> None:
    assert str(refusal(entry(FROM_AGENT, OTHER))) == "bad signature"
    assert str(refusal(entry(FROM_DOOR, DEMO))) == "bad signature"
    assert str(refusal(entry(FROM_AGENT, FRONT_DOOR))) == "bad signature"


def test_an_agent_that_is_not_configured_is_unknown_whatever_it_signs_with() -> None:
    stranger = replace(FROM_AGENT, sender="agent-stranger", principal="agent-stranger")
    for secret in (DEMO, FRONT_DOOR, ""):
        assert str(refusal(entry(stranger, secret))) == "unknown sender"


@pytest.mark.parametrize("principal", ["admin", "agent-other", "http-a1", "agent-demo2"])
def test_an_agent_cannot_speak_for_another_principal(principal: str) -> None:
    assert str(refusal(entry(replace(FROM_AGENT, principal=principal), DEMO))) == "not this sender's principal"


def test_a_front_door_speaks_for_its_clients_and_for_no_agent() -> None:
    for principal in ("admin", "key_1.a"):
        assert open_envelope(entry(replace(FROM_DOOR, principal=principal), FRONT_DOOR), SECRETS).principal == principal
    forged = replace(FROM_DOOR, principal="agent-demo")
    assert str(refusal(entry(forged, FRONT_DOOR))) == "not this sender's principal"


def test_the_gateways_own_secret_signs_no_envelope_and_a_front_doors_no_reply() -> None:
    assert str(refusal(entry(FROM_DOOR, HMAC_SECRET))) == "bad signature"
    assert not verify_reply(seal_text(b"{}", Keyring((FRONT_DOOR,))), HMAC_SECRET)


def test_only_an_agents_envelope_says_that_it_is_one() -> None:
    assert FROM_AGENT.is_agent
    assert not FROM_DOOR.is_agent


# -- where an error reply goes


@pytest.mark.parametrize(
    "fields",
    [
        entry(FROM_AGENT, OTHER),
        entry(FROM_AGENT, DEMO) | {b"sig": b""},
        entry(FROM_AGENT, DEMO) | {b"op": b"other"},
        signed(**{"from": b"agent-other"}),
        signed(**{"from": b"agent-stranger"}),
        signed(**{"from": b"model.replies.http-a1"}),
        {},
    ],
)
def test_an_entry_that_does_not_verify_gets_no_error_reply(fields: Fields) -> None:
    error = refusal(fields)
    assert (error.sender, error.request_id) == ("", "")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("v", b"2"),
        ("op", b"images"),
        ("op", b""),
        ("ts", b""),
        ("ts", b"-1"),
        ("ts", b"1e12"),
        ("ts", "\u0661".encode()),
        ("ts", b"1" * 16),
        ("model", b"m" * 257),
        ("principal", b"Agent-demo"),
        ("principal", b"agent-demo\n"),
        ("principal", b""),
        ("principal", b"admin"),
    ],
)
def test_a_bad_entry_that_was_signed_well_gets_its_error_reply(field: str, value: bytes) -> None:
    error = refusal(signed(**{field: value}))
    assert (error.sender, error.request_id) == ("agent-demo", "req-1")


@pytest.mark.parametrize("request_id", [b"", b"a b", b"a:b", b"a|b", b"req-1\n", "ü".encode(), b"i" * 65])
def test_an_id_that_is_malformed_is_refused_and_never_replied_to(request_id: bytes) -> None:
    error = refusal(signed(id=request_id))
    assert str(error) == "malformed: id"
    assert error.request_id == ""


@pytest.mark.parametrize(
    "sender", [b"", b"demo", b"agent-", b"agent-Demo", b"http-a\n", b"http-a:b", b"\xff", b"http-" + b"a" * 64]
)
def test_a_sender_that_could_name_another_stream_is_malformed(sender: bytes) -> None:
    assert str(refusal(signed(**{"from": sender}))) == "malformed: from"


@pytest.mark.parametrize("field", [name for name in SIGNED_FIELDS if name != "body"])
def test_a_field_that_is_no_utf_8_is_malformed(field: str) -> None:
    assert str(refusal(signed(**{field: b"\xff\xfe"}))) == f"malformed: {field}"


def test_a_body_may_hold_any_bytes() -> None:
    assert open_envelope(signed(body=b"\x00\xff\r\n"), SECRETS).body == b"\x00\xff\r\n"


# -- ids and secrets


def test_new_ids_are_unique_well_formed_and_sort_by_time() -> None:
    ids = [new_request_id(now) for now in range(1_735_689_600_000, 1_735_689_601_000)]
    assert len(set(ids)) == len(ids)
    assert ids == sorted(ids)
    assert {len(request_id) for request_id in ids} == {30}
    assert all(open_envelope(signed(id=request_id.encode()), SECRETS) for request_id in ids[:5])


def test_the_front_doors_secret_is_derived_and_differs() -> None:
    expected = hmac.new(HMAC_SECRET.encode(), b"model-gateway front door envelope v1", hashlib.sha256).hexdigest()
    assert front_door_secret(HMAC_SECRET) == expected != front_door_secret(HMAC_SECRET + "x")
