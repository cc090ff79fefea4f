"""What is secret does not stay in a text, and what is needed does."""

from __future__ import annotations

import random

import pytest

from trtd.cli.redaction import REMOVED, redact

Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"


@pytest.mark.parametrize(
    "text",
    [
        f'laptop = "{KEY}"',
        f"a line with {KEY} in it",
        f'{{"key":"{KEY}"}}',
        f"must be a path, not {KEY}",
        f"must be a path, not {KEY}.",
        f"a key ({KEY})",
        f"key={KEY}",
        f"token={KEY[:20]}",
        f'"api_token": "{KEY[:12]} with spaces"',
        f"password: '{KEY[:9]}'",
        f"TRTD_SECRET__X={KEY[:30]}",
    ],
)
def test_a_secret_goes(text):
    """A key by its form, and anything by the name beside it."""
    redacted = redact(text)
    assert KEY[:9] not in redacted
    assert REMOVED in redacted


def test_a_key_goes_whatever_its_characters_are():
    """Of 20,000 keys, every one is taken out: those that begin as a path does, too."""
    drawn = random.Random(5)
    keys = ["".join(drawn.choices(Z85, k=40)) for _ in range(20_000)]
    assert any(key.startswith("/") for key in keys)
    assert [key for key in keys if redact(f'laptop = "{key}"') != f'laptop = "{REMOVED}"'] == []


@pytest.mark.parametrize(
    "text",
    [
        'curve_secret_key_file = "/etc/trtd/router.key"',
        'path = "/srv/models/a-path-of-forty-characters.x"',
        "path=/srv/models/a-path-of-forty-characters.x",
        "http://127.0.0.1:9464/metrics/of/one-day",
        "trtd.supervisor.a_module_of_forty_letters",
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "ipc:///run/user/1000/trtd/forecasters.sk",
        '{"tenant": "a", "generation": 7, "last_fault": null}',
        "0123456789abcdef" * 4,
    ],
)
def test_what_helps_stays(text):
    """Paths, addresses, digests and plain values come through unchanged."""
    assert redact(text) == text


def test_a_known_secret_goes_wherever_it_stands():
    """What was read from a key file is taken out of any text; a known word that is too short to be one is not."""
    assert redact("xx-hunter2-hunter2-yy", ["hunter2-hunter2", "x"]) == f"xx-{REMOVED}-yy"
