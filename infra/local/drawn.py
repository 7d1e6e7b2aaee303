"""Any value that fits a type, drawn from its JSON Schema: for whoever has nothing particular to say.

Knows what pydantic writes for the usual types; what a schema does not tell (a validator's rule, a pattern) is found by
trying again, and when that does not help somebody has to say a value.
"""

from __future__ import annotations

import random
import string
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from flowcore.codec import Shape
from flowcore.errors import InvalidPayload
from flowcore.model import Json

_TRIES = 50
_DEEPEST = 4
"""Below that only what must be there is drawn, or a type that contains itself would never end."""
_WIDEST = 3
"""Entries more than the fewest, and letters: enough to differ."""
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)

Schema = Mapping[str, Any]


def drawn(shape: Shape[Any], chance: random.Random) -> Json:
    """Plain JSON that the shape accepts. Raises: InvalidPayload, of the last try, when none of many was accepted."""
    schema = shape.schema()
    for left in reversed(range(_TRIES)):
        try:
            return shape.accept("what was drawn", _Drawer(schema.get("$defs", {}), chance).draw(schema, 0))
        except InvalidPayload:
            if not left:
                raise
    raise AssertionError("the last try returns or raises")


class _Drawer:
    def __init__(self, definitions: Schema, chance: random.Random) -> None:
        self._definitions, self._chance = definitions, chance

    def draw(self, schema: Schema, depth: int) -> Json:
        """One value; ``depth`` is how many lists and objects it lies in."""
        if "$ref" in schema:
            return self.draw(self._definitions[schema["$ref"].rpartition("/")[2]], depth)
        if "const" in schema:
            return schema["const"]
        choices = schema.get("enum") or schema.get("anyOf") or schema.get("oneOf")
        if choices is not None:
            simple = [one for one in choices if isinstance(one, Mapping) and one.get("type") == "null"]
            chosen = self._chance.choice(simple if simple and depth >= _DEEPEST else choices)
            return chosen if "enum" in schema else self.draw(chosen, depth)
        match schema.get("type"):
            case "object":
                return self._object(schema, depth + 1)
            case "array":
                return self._array(schema, depth + 1)
            case "string":
                return self._text(schema)
            case "integer" | "number" as kind:
                return self._number(schema, kind)
            case "boolean":
                return self._chance.random() < 0.5
            case "null":
                return None
            case _:
                return self._chance.choice([None, True, 7, "seven", {"seven": 7}])

    def _object(self, schema: Schema, depth: int) -> Json:
        must = schema.get("required", ())
        names = [name for name in schema.get("properties", {}) if name in must or self._wants_more(depth)]
        found = {name: self.draw(schema["properties"][name], depth) for name in names}
        more = schema.get("additionalProperties")
        if isinstance(more, Mapping):
            found |= {f"k{number}": self.draw(more, depth) for number in range(self._size(schema, "Properties", depth))}
        return found

    def _array(self, schema: Schema, depth: int) -> Json:
        fixed = schema.get("prefixItems", [])
        more = self._size(schema, "Items", depth) - len(fixed) if "items" in schema or not fixed else 0
        return [self.draw(one, depth) for one in [*fixed, *[schema.get("items", {})] * more]]

    def _size(self, schema: Schema, of: str, depth: int) -> int:
        fewest = schema.get(f"min{of}", 0)
        most = min(schema.get(f"max{of}", fewest + _WIDEST), fewest + _WIDEST)
        return fewest if depth > _DEEPEST else self._chance.randint(fewest, most)

    def _wants_more(self, depth: int) -> bool:
        return depth <= _DEEPEST and self._chance.random() < 0.5

    def _text(self, schema: Schema) -> str:
        at = _EPOCH + timedelta(seconds=self._chance.randrange(10**7))
        match schema.get("format"):
            case "date-time":
                return at.isoformat()
            case "date":
                return date.isoformat(at.date())
            case "time":
                return at.time().isoformat()
            case "duration":
                return f"PT{self._chance.randrange(3600)}S"
            case "uuid":
                return str(UUID(int=self._chance.getrandbits(128), version=4))
            case "uri":
                return "https://shop.example/"
            case "email":
                return "ada@shop.example"
            case _:
                pass
        fewest = schema.get("minLength", 0)
        most = min(schema.get("maxLength", fewest + 3 * _WIDEST), fewest + 3 * _WIDEST)
        return "".join(
            self._chance.choices(string.ascii_letters, k=self._chance.randint(max(fewest, min(1, most)), most))
        )

    def _number(self, schema: Schema, kind: str) -> float:
        step: float = schema.get("multipleOf", 1)
        low = schema.get("minimum", schema.get("exclusiveMinimum"))
        high = schema.get("maximum", schema.get("exclusiveMaximum"))
        low = (min(0, high - 100 * step) if high is not None else 0) if low is None else low
        high = low + 100 * step if high is None else high
        if kind == "number" and "multipleOf" not in schema:
            return float(low + (high - low) * self._chance.random())
        first = -(-low // step) + ("exclusiveMinimum" in schema and low % step == 0)
        last = high // step - ("exclusiveMaximum" in schema and high % step == 0)
        number = step * self._chance.randint(int(first), max(int(first), int(last)))
        return int(number) if kind == "integer" else float(number)
