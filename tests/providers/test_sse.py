import pytest

from model_gateway.providers.sse import EventTooLargeError, SSEParser


def feed(parser: SSEParser, *parts: bytes) -> list[bytes]:
    return [event for part in parts for event in parser.feed(part)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_events_are_the_same_wherever_the_bytes_are_cut(end: bytes) -> None:
    lines = [b'data: {"text":"\xc3\xa4\xf0\x9f\x98\x80"}', b"", b": comment", b"", b"data:[1,", b"data: 2]", b"", b""]
    body = end.join(lines)
    expected = ['{"text":"ä😀"}'.encode(), b"[1,\n2]"]

    assert feed(SSEParser(), body) == expected
    assert feed(SSEParser(), *(body[i : i + 1] for i in range(len(body)))) == expected
    for cut in range(len(body)):
        assert feed(SSEParser(), body[:cut], body[cut:]) == expected


def test_an_empty_part_between_cr_and_lf_ends_no_second_line() -> None:
    assert feed(SSEParser(), b"data: a\r", b"", b"\ndata: b\r", b"\n\r", b"\n") == [b"a\nb"]


def test_events_that_arrive_together_come_out_together() -> None:
    assert SSEParser().feed(b"data: 1\n\ndata: 2\n\ndata: 3") == [b"1", b"2"]


@pytest.mark.parametrize(
    "line", [b": keep-alive", b"event: ping", b"id: 7", b"retry: 10", b"data", b"data:", b"database: x", b" data: x"]
)
def test_a_line_without_data_makes_no_event(line: bytes) -> None:
    assert feed(SSEParser(), line + b"\n\ndata: x\n\n") == [b"x"]


def test_other_fields_do_not_break_an_event() -> None:
    assert feed(SSEParser(), b"event: message\nid: 1\ndata: x\nretry: 5\n\n") == [b"x"]


def test_only_one_space_after_the_colon_is_dropped() -> None:
    assert feed(SSEParser(), b"data:  x\n\n") == [b" x"]


def test_an_event_that_no_blank_line_ended_is_none() -> None:
    assert feed(SSEParser(), b"data: whole\n\ndata: half\n") == [b"whole"]


def test_an_endless_line_is_refused() -> None:
    parser = SSEParser(max_event_bytes=100)
    with pytest.raises(EventTooLargeError):
        feed(parser, *[b"data: " + b"x" * 10] * 20)


def test_an_endless_event_of_short_lines_is_refused() -> None:
    parser = SSEParser(max_event_bytes=100)
    with pytest.raises(EventTooLargeError):
        feed(parser, *[b"data: 0123456789\n"] * 20)


def test_the_bound_is_for_one_event_and_not_for_the_stream() -> None:
    parser = SSEParser(max_event_bytes=100)
    assert len(feed(parser, *[b"data: 0123456789\n\n"] * 100)) == 100
