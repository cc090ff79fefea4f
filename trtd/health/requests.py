"""The head of an HTTP request, read as strictly as probes and Prometheus allow. Pure.

A head that is not plainly right is refused: this server has four addresses, takes no body, and closes after each
answer, so nothing is gained by understanding more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_LINE_BYTES = 1024
MAX_HEADERS = 64
MAX_HEAD_BYTES = 8192

REQUEST_LINE = re.compile(rb"(?P<method>[A-Z]{1,16}) (?P<target>/[!-~]*) HTTP/1\.[01]")
HEADER_LINE = re.compile(rb"(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(?P<value>[\t -~\x80-\xff]*)")


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for. `path` has no query."""

    method: str
    path: str


class Refused(Exception):
    """A request that is not understood or not wanted; `status` is the line for its answer."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def parse_head(head: bytes) -> Request:
    """The request of a head, which ends with an empty line.

    Raises:
        Refused: it is malformed, too long, announces a body, or uses another method than GET and HEAD.
    """
    first, *rest = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    if len(first) > MAX_LINE_BYTES:
        raise Refused("414 URI Too Long", f"a request line has at most {MAX_LINE_BYTES} bytes")
    line = REQUEST_LINE.fullmatch(first)
    if line is None:
        raise Refused("400 Bad Request", "the request line is not understood")
    if len(rest) > MAX_HEADERS or any(len(header) > MAX_LINE_BYTES for header in rest):
        raise Refused("431 Request Header Fields Too Large", f"at most {MAX_HEADERS} headers of {MAX_LINE_BYTES} bytes")
    for header in rest:
        _check_header(header)
    method = line["method"].decode("ascii")
    if method not in {"GET", "HEAD"}:
        raise Refused("405 Method Not Allowed", "only GET and HEAD")
    return Request(method, line["target"].decode("ascii").partition("?")[0])


def _check_header(header: bytes) -> None:
    found = HEADER_LINE.fullmatch(header)
    if found is None:
        raise Refused("400 Bad Request", "a header line is not understood")
    name, value = found["name"].lower(), found["value"].strip()
    if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
        raise Refused("413 Content Too Large", "no body is taken")
