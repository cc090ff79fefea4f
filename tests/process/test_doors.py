"""The daemon's sockets: who is kept out and told so, and who is let in all the same."""

from __future__ import annotations

from tests.support.strangers import NOBODY, Strangers, needs_root
from trtd.cli.main import main


@needs_root
def test_strangers_lock_no_operator_out(daemon):
    """While a user without a role holds 200 idle connections, each `status` and `health` of root is answered."""
    with Strangers(daemon.runtime_dir, "operator.sock", count=200) as strangers:
        assert strangers.outcomes() == {"connected": 200}
        for _ in range(24):
            assert daemon.call("status", patience_s=2.0)["tenants"]
        assert main(["health", "--runtime-dir", str(daemon.runtime_dir)]) == 0
    refused = daemon.wait_event("operator.connection_refused")
    assert refused["uid"] == NOBODY
    assert "too many connections" in refused["cause"]
