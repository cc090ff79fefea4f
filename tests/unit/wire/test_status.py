"""The status record in one line."""

from __future__ import annotations

import pytest

from tests.support.status import make_child, make_status, make_tenant
from trtd.wire.status import summary


@pytest.mark.parametrize(
    ("tenants", "changes", "line"),
    [
        ([make_tenant("a"), make_tenant("b")], {}, "2 of 2 tenants ready, 2469 requests/s"),
        (
            [make_tenant("a"), make_tenant("b", health="drained", recent={"per_s": 0.0, "p50_s": None, "p99_s": None})],
            {"router": make_child("router", state="backoff")},
            "1 of 2 tenants ready, 1234 requests/s; b drained; router backoff",
        ),
        ([], {}, "0 of 0 tenants ready, 0 requests/s"),
    ],
)
def test_the_summary_names_what_is_not_ready(tenants, changes, line):
    """One line has the count, the rate, and by name everything that is not ready."""
    assert summary({**make_status(*tenants), **changes}) == line


def test_the_summary_tells_the_end():
    """A daemon that is stopping says so."""
    status = make_status(make_tenant())
    status["daemon"]["is_stopping"] = True
    assert summary(status).endswith("; stopping")
