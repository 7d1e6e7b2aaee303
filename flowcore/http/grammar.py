"""How ids, names and numbers of requests are written, for the OpenAPI document. Who decides is the App, by ``keys``.

A generated client, or a gateway, can refuse here what would be refused there. A test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowcore.keys import LONGEST_KEY, LONGEST_NAME
from flowcore.tracing import LONGEST_TAG, MOST_TAGS

_NAME: Mapping[str, Any] = {"minLength": 1, "maxLength": LONGEST_NAME}
RUN_ID: Mapping[str, Any] = {"pattern": r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$"}
WORKFLOW: Mapping[str, Any] = {"pattern": r"^[A-Za-z0-9_]([A-Za-z0-9_ -]{0,62}[A-Za-z0-9_-])?$"}
EVENT: Mapping[str, Any] = {"pattern": r"^[A-Za-z0-9_][A-Za-z0-9._:@/-]{0,127}$"}
TAG: Mapping[str, Any] = {"pattern": r"^[ -+\--~]+$", "maxLength": LONGEST_TAG}
"""Those of plain letters; the App takes what can be printed in any language."""
CURSOR: Mapping[str, Any] = {"pattern": r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{1,32}\.[0-9a-f]+$", "maxLength": 1_000}
HEADERS: Mapping[str, Mapping[str, Any]] = {
    "Idempotency-Key": _NAME,
    "Prefer": {"pattern": r"^wait=[0-9]{1,9}$"},
    "If-Match": {"pattern": r'^("v[0-9]{1,18}-[0-9a-f]+"|\*)$'},
    "traceparent": {"pattern": r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"},
}
"""As this API reads them; it is kinder about what it does not need to understand."""

_EVERYWHERE: Mapping[str, Mapping[str, Any]] = {
    "run_id": RUN_ID,
    "workflow": WORKFLOW,
    "key": {"minLength": 1, "maxLength": LONGEST_KEY},
    "label": _NAME,
    "to": _NAME,
    "wait": _NAME,
    "resource_id": _NAME,
    "index": {"minimum": 0},
    "retry_count": {"minimum": 0},
    "cursor": CURSOR,
    "tags": {**TAG, "maxItems": MOST_TAGS},
    "tag": {**TAG, "maxItems": MOST_TAGS},
}
"""What a property or a parameter of this name means, wherever it stands."""
_OF_STRINGS = frozenset({"pattern", "minLength", "maxLength"})
_KINDS = {"minimum": "integer", "maxItems": "array"}


def tightened(drawn: dict[str, Any], bodies: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Write the grammar into a document's parameters and request bodies.

    Args:
        bodies: component to property to what is true of that one alone.
    """
    for operations in drawn["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                _narrow(parameter["schema"], _EVERYWHERE.get(parameter["name"], {}))
    for name, schema in drawn["components"]["schemas"].items():
        if name in bodies:
            for property, found in schema.get("properties", {}).items():
                _narrow(found, {**_EVERYWHERE.get(property, {}), **bodies[name].get(property, {})})


def _narrow(schema: dict[str, Any], rules: Mapping[str, Any]) -> None:
    for part in schema.get("anyOf", ()):
        _narrow(part, rules)
    if isinstance(schema.get("items"), dict):
        _narrow(schema["items"], rules)
    for rule, value in rules.items():
        if schema.get("type") == ("string" if rule in _OF_STRINGS else _KINDS[rule]):
            schema.setdefault(rule, value)
