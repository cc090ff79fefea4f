"""The schema of the status record: true to the types, true to real records, and never taking anything back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.support import schema
from tests.support.status import make_child, make_status, make_tenant

GOLDEN = Path(__file__).parents[2] / "golden" / "status_v1"


def without_requirements(value: Any) -> Any:
    """The schema as a bound: what it knows may be missing, what it does not know may not be there."""
    if isinstance(value, list):
        return [without_requirements(item) for item in value]
    if not isinstance(value, dict):
        return value
    bound = {key: without_requirements(item) for key, item in value.items() if key != "required"}
    return bound | {"additionalProperties": False} if value.get("type") == "object" else bound


def test_the_file_is_what_the_types_say():
    """`etc/status-v1.schema.json` is the generated text; `scripts/status-schema` writes it anew."""
    assert schema.FILE.read_text(encoding="utf-8") == schema.text()
    jsonschema.Draft202012Validator.check_schema(schema.status_schema())


def test_a_record_fits():
    """A record with every optional part there, and one with every optional part None, are valid."""
    fault = {
        "kind": "killed", "message": "m", "blame": "tenant", "permanent": False, "domain": "process", "code": 9,
        "texts": ["t"],
    }  # fmt: skip
    history = [{"age_s": 1.0, "before": "ready", "event": "Exited", "after": "backoff"}]
    for worker in (make_child(last_fault=fault, history=history), make_child(pid=None, uptime_s=None)):
        jsonschema.validate(make_status(make_tenant(workers=[worker])), schema.status_schema())


@pytest.mark.parametrize(
    ("path", "value"),
    [(("v",), 2), (("health",), None), (("tenants", 0, "queued"), "4"), (("router", "pid"), 1.5), (("daemon",), {})],
)
def test_a_wrong_record_does_not_fit(path, value):
    """A value of another type, another version, or a missing key is found."""
    record: Any = json.loads(json.dumps(make_status(make_tenant())))
    *way, last = path
    inner = record
    for step in way:
        inner = inner[step]
    inner[last] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(record, schema.status_schema())


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.json")), ids=lambda file: file.stem)
def test_version_1_keeps_its_promises(file):
    """Records that daemons of this version gave once: each of their keys is still known and has the same type."""
    record = json.loads(file.read_text(encoding="utf-8"))
    jsonschema.validate(record, without_requirements(schema.status_schema()))
    with pytest.raises(jsonschema.ValidationError, match="was unexpected"):
        jsonschema.validate(record | {"invented": 1}, without_requirements(schema.status_schema()))
