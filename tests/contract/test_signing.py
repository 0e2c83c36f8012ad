import hashlib
import hmac
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from model_gateway.signing import (
    ChunkChain,
    Keyring,
    NotAnObjectError,
    clean_object,
    key_id,
    seal_reply,
    seal_text,
    sha256_hex,
    sign,
    verify_reply,
    verify_signature,
    verify_stream,
)

VECTORS: dict[str, Any] = json.loads(Path(__file__).with_name("signing_vectors.json").read_text(encoding="utf-8"))
SECRET: str = VECTORS["secret"]
REQUEST_ID: str = VECTORS["request_id"]
REQUEST_BODY: bytes = VECTORS["request_body"].encode()
DIGEST = hashlib.sha256(REQUEST_BODY).hexdigest()
REPLY: bytes = VECTORS["whole"]["reply"].encode()
CHUNKS: list[bytes] = [chunk.encode() for chunk in VECTORS["stream"]["signed_chunks"]]
BAD: dict[str, Any] = VECTORS["must_fail"]

NEW, OLD = "n" * 48, "o" * 48
UPSTREAM = [b'{"choices":[{"delta":{"content":"%d"}}]}' % number for number in range(5)]


def cleaned(text: bytes, *, one_line: bool = False) -> bytes:
    return clean_object(text, orjson.loads(text), one_line=one_line)


def whole(text: bytes = b'{"a":1}', *secrets: str, request_id: str = REQUEST_ID) -> bytes:
    return seal_reply(cleaned(text), Keyring(secrets or (SECRET,)), request_id, DIGEST)


def streamed(texts: Sequence[bytes], *secrets: str, request_id: str = REQUEST_ID) -> list[bytes]:
    chain = ChunkChain(Keyring(secrets or (SECRET,)), request_id, DIGEST)
    return [chain.seal(cleaned(text, one_line=True), final=text is texts[-1]) for text in texts]


def is_good(chunks: Sequence[bytes | str], request_id: str | None = REQUEST_ID) -> bool:
    return bool(verify_stream(chunks, SECRET, request_id=request_id))


# -- the vectors


def test_a_whole_reply_is_sealed_to_the_byte_as_in_the_vectors() -> None:
    data = VECTORS["whole"]["data"].encode()
    upstream = data.partition(b',"x_request_id":')[0] + b"}"
    assert seal_text(data, Keyring((SECRET,))) == REPLY
    assert seal_reply(cleaned(upstream), Keyring((SECRET,)), REQUEST_ID, DIGEST) == REPLY


def test_a_stream_is_sealed_to_the_byte_as_in_the_vectors() -> None:
    assert streamed([chunk.encode() for chunk in VECTORS["stream"]["upstream_chunks"]]) == CHUNKS


def test_an_empty_object_is_sealed_to_the_byte_as_in_the_vectors() -> None:
    empty = VECTORS["empty_object"]
    assert seal_text(empty["data"].encode(), Keyring((SECRET,))) == empty["reply"].encode()
    assert verify_reply(empty["reply"], SECRET)


def test_the_vectors_that_are_good_verify_as_text_and_as_bytes() -> None:
    for reply in (REPLY, REPLY.decode()):
        assert verify_reply(reply, SECRET, request_id=REQUEST_ID, request_body=REQUEST_BODY)
    for chunks in (CHUNKS, VECTORS["stream"]["signed_chunks"]):
        assert verify_stream(chunks, SECRET, request_id=REQUEST_ID, request_body=REQUEST_BODY)


def test_the_changed_reply_of_the_vectors_fails() -> None:
    assert verify_reply(BAD["whole_changed"], SECRET).reason == "the signature does not match the text"


@pytest.mark.parametrize("name", [name for name, value in BAD.items() if isinstance(value, list)])
def test_the_broken_streams_of_the_vectors_fail_with_and_without_a_known_request(name: str) -> None:
    assert not is_good(BAD[name])
    assert not is_good(BAD[name], request_id=None)


def test_the_stream_of_the_vectors_fails_for_another_request() -> None:
    verdict = verify_stream(CHUNKS, SECRET, request_id="req_other")
    assert verdict.reason == "chunk 0: it belongs to another request id"


# -- whole replies


def test_a_flip_of_any_byte_of_a_reply_fails() -> None:
    for place in range(len(REPLY)):
        changed = bytearray(REPLY)
        changed[place] ^= 1
        assert not verify_reply(bytes(changed), SECRET), place


def test_a_reply_fails_for_another_request_id_or_body() -> None:
    assert not verify_reply(REPLY, SECRET, request_id="req_other")
    assert not verify_reply(REPLY, SECRET, request_body=REQUEST_BODY + b" ")


def test_an_unbound_reply_fails_for_whoever_expects_a_binding() -> None:
    unbound = seal_text(b'{"error":{}}', Keyring((SECRET,)))
    assert verify_reply(unbound, SECRET)
    assert not verify_reply(unbound, SECRET, request_id=REQUEST_ID)
    assert not verify_reply(unbound, SECRET, request_body=REQUEST_BODY)


@pytest.mark.parametrize("text", ["", "{}", "null", "not json", '{"signature":"' + "0" * 63 + '"}', "\ud800", "\xff"])
def test_what_carries_no_signature_fails(text: str) -> None:
    assert verify_reply(text, SECRET).reason == "no signature at the end"


def test_a_signed_text_that_is_no_json_fails() -> None:
    assert verify_reply(seal_text(b'{"a":}', Keyring((SECRET,))), SECRET).reason == "not JSON"
    assert not verify_reply(REPLY.replace(b',"signature"', b'"signature"'), SECRET)


def test_a_reply_that_was_parsed_and_dumped_again_fails() -> None:
    assert not verify_reply(json.dumps(json.loads(REPLY)), SECRET)


def test_a_chunk_does_not_pass_for_a_reply_nor_a_reply_for_a_chunk() -> None:
    assert not verify_reply(CHUNKS[0], SECRET)
    assert not is_good([REPLY], request_id=None)


def test_white_space_around_a_received_reply_does_no_harm() -> None:
    assert verify_reply(b"\n " + REPLY + b"\r\n", SECRET)
    assert is_good([chunk + b"\n" for chunk in CHUNKS])


# -- streams


def test_a_flip_of_any_byte_of_a_stream_fails() -> None:
    for number, chunk in enumerate(CHUNKS):
        for place in range(len(chunk)):
            changed = bytearray(chunk)
            changed[place] ^= 1
            assert not is_good([*CHUNKS[:number], bytes(changed), *CHUNKS[number + 1 :]]), (number, place)


@pytest.mark.parametrize("request_id", [REQUEST_ID, None])
def test_a_dropped_swapped_or_repeated_chunk_fails_wherever_it_stands(request_id: str | None) -> None:
    chunks = streamed(UPSTREAM)
    assert is_good(chunks, request_id)
    for number in range(len(chunks)):
        before, after = chunks[:number], chunks[number + 1 :]
        assert not is_good(before + after, request_id), f"dropped {number}"
        assert not is_good([*before, chunks[number], chunks[number], *after], request_id), f"repeated {number}"
        for other in range(number):
            swapped = list(chunks)
            swapped[other], swapped[number] = swapped[number], swapped[other]
            assert not is_good(swapped, request_id), f"swapped {other} and {number}"


def test_a_stream_that_is_cut_anywhere_fails() -> None:
    chunks = streamed(UPSTREAM)
    for length in range(len(chunks)):
        assert verify_stream(chunks[:length], SECRET).reason == f"cut after {length} chunks: no final chunk"


@pytest.mark.parametrize("other_id", [REQUEST_ID, "req_other"])
def test_a_splice_of_two_good_streams_fails(other_id: str) -> None:
    first = streamed(UPSTREAM)
    second = streamed([text.replace(b"content", b"refusal") for text in UPSTREAM], request_id=other_id)
    assert is_good(first)
    assert is_good(second, other_id)
    for cut in range(1, len(UPSTREAM)):
        assert not is_good(first[:cut] + second[cut:])
        assert not is_good(second[:cut] + first[cut:], None)


def test_nothing_may_follow_the_last_chunk() -> None:
    chain = ChunkChain(Keyring((SECRET,)), REQUEST_ID, DIGEST)
    chunks = [chain.seal(b"{}", final=True), chain.seal(b"{}", final=True)]
    assert is_good(chunks[:1])
    assert verify_stream(chunks, SECRET).reason == "chunk 1: a chunk after the last"


def test_a_stream_without_its_beginning_fails_even_where_the_request_is_not_known() -> None:
    assert verify_stream(CHUNKS[1:], SECRET).reason == "chunk 0: x_index is 1, expected 0"


def test_a_last_chunk_that_counts_wrong_fails() -> None:
    data = b'{"x_index":0,"x_prev":"req_1","x_final":true,"x_chunks":2}'
    chunk = b'%b,"x_signature":"%b"}' % (data[:-1], sign(data, SECRET).encode())
    assert verify_stream([chunk], SECRET).reason == "chunk 0: x_chunks is 2, expected 1"


def test_a_stream_fails_for_another_request_body() -> None:
    assert not verify_stream(CHUNKS, SECRET, request_body=REQUEST_BODY + b" ")


def test_a_chain_goes_on_where_another_process_left_off() -> None:
    first = ChunkChain(Keyring((SECRET,)), REQUEST_ID, DIGEST)
    head = [first.seal(text) for text in UPSTREAM[:2]]
    second = ChunkChain(Keyring((SECRET,)), REQUEST_ID, DIGEST, index=first.index, previous=first.previous)
    assert is_good([*head, second.seal(b'{"error":{}}', final=True)])


# -- what an upstream sends


@pytest.mark.parametrize(
    "member",
    [
        b'"signature":"no"',
        b'"x_signature":"no"',
        b'"x_index":7',
        b'"x_prev":"no"',
        b'"x_final":true',
        b'"x_chunks":1',
        b'"x_request_id":"req_other"',
        b'"x_request_sha256":"no"',
        b'"x_kid":"no"',
        b'"\\u0078_index":7',
        b'"sign\\u0061ture":"no"',
        b'"x\\u005ffinal":true',
    ],
)
def test_our_own_member_names_of_an_upstream_are_dropped(member: bytes) -> None:
    for rest in (b'"a":1.0', b'"a":{"x_index":1,"signature":"nested"}'):
        text = b"{%b,%b}" % (member, rest)
        assert cleaned(text) == b"{%b}" % rest
        assert verify_reply(whole(text), SECRET, request_id=REQUEST_ID, request_body=REQUEST_BODY)
        assert is_good(streamed([text, b'{"last":true}']))


def test_an_upstreams_text_is_signed_byte_for_byte() -> None:
    text = b'{ "a" : 1.0, "b":1E-7,\t"c":"\\u0041 \\"signature\\"", "d":123456789012345678901234567890 }'
    assert cleaned(text, one_line=True) == text
    assert whole(text).startswith(text[:-1])
    assert verify_reply(whole(text), SECRET)


@pytest.mark.parametrize("newline", [b"\n", b"\r", b"\r\n"])
def test_raw_newlines_are_taken_out_of_a_chunk_and_kept_in_a_reply(newline: bytes) -> None:
    text = b'{%b "a": "1\\n2",%b "b": [1, 2]%b}' % (newline, newline, newline)
    assert cleaned(text, one_line=True) == b'{"a":"1\\n2","b":[1,2]}'
    assert cleaned(text, one_line=False) == text
    assert verify_reply(whole(text), SECRET)


def test_outer_white_space_is_stripped_before_signing() -> None:
    assert cleaned(b' \r\n{"a":1}\n') == b'{"a":1}'


@pytest.mark.parametrize("text", [b"{}", b"{ }", b"{\n}", b'{"x_index":1}'])
def test_an_empty_object_takes_no_comma(text: bytes) -> None:
    reply, chunks = whole(text), streamed([text])
    assert json.loads(reply)["x_request_id"] == REQUEST_ID
    assert json.loads(chunks[0])["x_index"] == 0
    assert verify_reply(reply, SECRET)
    assert is_good(chunks)


@pytest.mark.parametrize("text", [b"[]", b"null", b'"{}"', b"1", b"true"])
def test_what_is_not_an_object_is_refused(text: bytes) -> None:
    with pytest.raises(NotAnObjectError):
        cleaned(text)


# -- two live secrets


def test_while_two_secrets_are_live_the_first_signs_and_says_so() -> None:
    reply, chunks = whole(b'{"a":1}', NEW, OLD), streamed(UPSTREAM, NEW, OLD)
    assert {json.loads(text)["x_kid"] for text in (reply, *chunks)} == {key_id(NEW)}
    assert verify_reply(reply, NEW)
    assert not verify_reply(reply, OLD)
    assert verify_stream(chunks, NEW)
    assert not verify_stream(chunks, OLD)


def test_replies_of_both_live_secrets_verify_in_either_order() -> None:
    for live in ((NEW, OLD), (OLD, NEW)):
        for signed_with in live:
            assert verify_reply(whole(b'{"a":1}', signed_with), live)
            assert verify_stream(streamed(UPSTREAM, signed_with), live)
        assert not verify_reply(whole(b'{"a":1}', SECRET), live)
        assert not verify_stream(streamed(UPSTREAM, SECRET), live)


def test_with_one_live_secret_no_key_id_is_written() -> None:
    assert b"x_kid" not in whole(b'{"a":1}', NEW) + b"".join(streamed(UPSTREAM, NEW))


def test_a_key_id_is_under_the_signature_and_gives_no_secret_away() -> None:
    reply = whole(b'{"a":1}', NEW, OLD)
    assert not verify_reply(reply.replace(key_id(NEW).encode(), key_id(OLD).encode()), (NEW, OLD))
    assert len(key_id(NEW)) == 8
    assert key_id(NEW) != key_id(OLD)


# -- the published function


@pytest.mark.parametrize("data", ["", "hello", "Grüße 👋", '{"a":1}'])
def test_verify_signature_is_hex_hmac_sha256_over_utf_8(data: str) -> None:
    signature = hmac.new(SECRET.encode(), data.encode(), hashlib.sha256).hexdigest()
    assert verify_signature(data, signature, SECRET)
    assert not verify_signature(data + " ", signature, SECRET)
    assert not verify_signature(data, signature, SECRET + " ")


def test_verify_signature_takes_the_data_and_signature_of_a_reply() -> None:
    assert verify_signature(VECTORS["whole"]["data"], VECTORS["whole"]["signature"], SECRET)


@pytest.mark.parametrize(
    "signature", ["", "ü" * 64, "０" * 64, "\ud800", "\udcff" * 64, sign(b"hello", SECRET).upper()]
)
def test_any_text_may_be_given_as_a_signature_and_is_merely_wrong(signature: str) -> None:
    assert verify_signature("hello", signature, SECRET) is False


def test_data_that_is_no_unicode_is_merely_wrong() -> None:
    assert verify_signature("\ud800", sign(b"", SECRET), SECRET) is False


def test_a_secret_from_the_environment_signs_by_its_bytes_even_if_they_are_not_utf_8() -> None:
    raw = b"\xff\xfe" + b"k" * 40
    assert sign(b"data", raw.decode("utf-8", "surrogateescape")) == hmac.new(raw, b"data", "sha256").hexdigest()


def test_the_digest_of_a_request_is_plain_sha256() -> None:
    assert sha256_hex(REQUEST_BODY) == json.loads(REPLY)["x_request_sha256"] == DIGEST
