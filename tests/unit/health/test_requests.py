"""Heads of HTTP requests: what is understood, and that nothing else is."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtd.health.requests import MAX_HEADERS, MAX_LINE_BYTES, Refused, Request, parse_head


@pytest.mark.parametrize(
    ("head", "request_"),
    [
        (b"GET /live HTTP/1.1\r\n\r\n", Request("GET", "/live")),
        (b"HEAD /ready/a?x=1 HTTP/1.0\r\nHost: a\r\nX-Empty:\r\n\r\n", Request("HEAD", "/ready/a")),
        (b"GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", Request("GET", "/")),
    ],
)
def test_what_is_understood(head, request_):
    """Method and path of a plain request, without its query."""
    assert parse_head(head) == request_


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /live\r\n\r\n", "400"),
        (b"GET /li ve HTTP/1.1\r\n\r\n", "400"),
        (b"GET http://x/live HTTP/1.1\r\n\r\n", "400"),
        (b"GET /live HTTP/2.0\r\n\r\n", "400"),
        (b"get /live HTTP/1.1\r\n\r\n", "400"),
        (b"\r\n\r\n", "400"),
        (b"GET /live HTTP/1.1\nHost: a\r\n\r\n", "400"),
        (b"GET /live HTTP/1.1\r\nno colon\r\n\r\n", "400"),
        (b"GET /live HTTP/1.1\r\nA : b\r\n\r\n", "400"),
        (b"GET /live HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", "400"),
        (b"GET /live HTTP/1.1\r\nA: \x00\r\n\r\n", "400"),
        (b"POST /live HTTP/1.1\r\n\r\n", "405"),
        (b"GET /live HTTP/1.1\r\nContent-Length: 1\r\n\r\n", "413"),
        (b"GET /live HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", "413"),
        (b"GET /" + b"x" * MAX_LINE_BYTES + b" HTTP/1.1\r\n\r\n", "414"),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * MAX_LINE_BYTES + b"\r\n\r\n", "431"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * (MAX_HEADERS + 1) + b"\r\n", "431"),
    ],
)
def test_what_is_refused(head, status):
    """Every head that is not plainly right gets its HTTP status."""
    with pytest.raises(Refused) as refused:
        parse_head(head)
    assert refused.value.status.startswith(status)


@given(st.binary(max_size=300))
def test_nothing_else_comes_of_any_bytes(noise):
    """Whatever a head contains, it is a request or refused."""
    for head in (noise + b"\r\n\r\n", b"GET /live HTTP/1.1\r\n" + noise + b"\r\n\r\n"):
        with contextlib.suppress(Refused):
            assert parse_head(head).path.startswith("/")
