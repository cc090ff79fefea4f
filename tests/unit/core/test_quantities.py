"""A number and its unit."""

from __future__ import annotations

import pytest

from trtd.core.quantities import length_s, size_bytes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0B", 0),
        ("4096B", 4096),
        ("1KiB", 1024),
        ("1kB", 1000),
        ("256MiB", 256 * 1024**2),
        ("256 MB", 256_000_000),
        ("1.5GiB", 3 * 512 * 1024**2),
        ("0.1GB", 100_000_000),
        ("2TiB", 2 * 1024**4),
        ("0.5B", None),
        ("0.1KiB", None),
        ("256", None),
        ("256M", None),
        ("256mib", None),
        ("256Mb", None),
        ("-1MiB", None),
        ("1e3MiB", None),
        ("1_000B", None),
        (" 1MiB", None),
        ("1  MiB", None),
        ("1MiB ", None),
        ("1MiB2KiB", None),
        ("MiB", None),
        ("\u0661MiB", None),
        ("9" * 400 + "B", None),
        ("5s", None),
        ("", None),
    ],
)
def test_sizes(text, expected):
    """Strictly one number, at most one space and a unit that says whether it counts in 1024 or in 1000."""
    assert size_bytes(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5s", 5.0),
        ("100ms", 0.1),
        ("250 us", 0.00025),
        ("2m", 120.0),
        ("1.5h", 5400.0),
        ("1d", 86_400.0),
        ("0s", 0.0),
        ("5", None),
        ("5S", None),
        ("1m30s", None),
        ("5min", None),
        ("inf s", None),
        ("-5s", None),
        ("5B", None),
    ],
)
def test_lengths_of_time(text, expected):
    """The same with units of time; the nearest number that there is."""
    assert length_s(text) == expected
