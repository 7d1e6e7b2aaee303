"""A form for a JSON Schema, and the JSON that a filled one stands for. Pure: knows neither HTML nor HTTP.

What a browser can ask for gets a control of its own; what it cannot is asked for as JSON text, so every schema has a
form. Nothing is judged here: what was typed goes to the model as it is, and the model says what is wrong with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Literal, TypeAlias

from flowcore.model import Json

Kind: TypeAlias = Literal["text", "lines", "number", "truth", "choice", "choices", "date", "instant", "email", "json"]

WHOLE = "value"
"""Name of the one field of a value that is no object."""

_MOST_FIELDS = 200
_MOST_DEPTH = 5
"""Objects inside each other that get fields of their own; what lies deeper is asked for as JSON."""
_NOTHING: Sequence[Json] = (None, "", [], {})
"""Defaults that are the same as what was left empty."""
_LONG = 200
"""Characters from which on a text gets several lines."""
_FORMATS: Mapping[str, Kind] = {"date": "date", "date-time": "instant", "email": "email"}
_ATTRIBUTES = {"minimum": "min", "maximum": "max", "minLength": "minlength", "maxLength": "maxlength"}
"""Without ``pattern``: a browser wants all of the text to fit, a model a part of it, and a browser can be held up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One control of a form."""

    name: str
    """What it is posted as: the path with dots, those in a name escaped; ``value`` for the value itself."""
    path: tuple[str, ...]
    """Where in the value it belongs; empty for the value itself."""
    label: str
    kind: Kind
    required: bool
    help: str = ""
    choices: Sequence[tuple[str, str]] = ()
    """What is sent (JSON text) and what is shown."""
    default: Json = None
    limits: Mapping[str, str] = field(default_factory=dict)
    """HTML attributes that let a browser notice a mistake before we do."""


def fields(schema: Mapping[str, Json]) -> list[Field]:
    """The controls of a form for values of this schema, in the order of its properties."""
    whole = _resolved(schema, schema)
    if whole.get("type") == "object" and whole.get("properties"):
        return list(islice(_properties(whole, schema, (), 1), _MOST_FIELDS))
    return [_control((), {"title": "Answer", **whole}, required=True)]


def read(form: Sequence[Field], posted: Mapping[str, Sequence[str]]) -> Json:
    """The value that a posted form stands for. What was left empty and need not be given is left out.

    A default that was shown and has been removed is given as nothing, or the model would put it in again: what is
    recorded is what the page has shown. What was not posted at all is left out.
    """
    value: dict[str, Json] = {}
    for one in form:
        found = _given(one, posted.get(one.name, ()))
        if found is not None:
            if not one.path:
                return found[0]
            _put(value, one.path, found[0])
    return value if all(one.path for one in form) else None


def _properties(
    schema: Mapping[str, Json], root: Mapping[str, Json], above: tuple[str, ...], depth: int, *, optional: bool = False
) -> Iterator[Field]:
    needed = set(schema.get("required", ()))
    for name, described in schema["properties"].items():
        inner, path = _resolved(described, root), (*above, name)
        required = name in needed and not optional
        if inner.get("type") == "object" and inner.get("properties") and depth < _MOST_DEPTH:
            yield from _properties(inner, root, path, depth + 1, optional=not required)
        else:
            yield _control(path, {"title": name, **inner}, required=required)


def _control(path: tuple[str, ...], schema: Mapping[str, Json], *, required: bool) -> Field:
    name = ".".join(part.replace("%", "%25").replace(".", "%2E") for part in path) or WHOLE
    kind = _kind(schema)
    items = schema.get("items", {}) if kind == "choices" else schema
    values = items.get("enum", [items["const"]] if "const" in items else [])
    return Field(
        name=name,
        path=path,
        label=str(schema.get("title", name)),
        kind=kind,
        required=required,
        help=str(schema.get("description", "")),
        choices=[(json.dumps(value), value if isinstance(value, str) else json.dumps(value)) for value in values],
        default=schema.get("default"),
        limits={html: str(schema[word]) for word, html in _ATTRIBUTES.items() if word in schema}
        | ({"step": "1" if schema.get("type") == "integer" else "any"} if kind == "number" else {}),
    )


def _kind(schema: Mapping[str, Json]) -> Kind:
    items = schema.get("items")
    match schema.get("type"):
        case _ if "enum" in schema or "const" in schema:
            return "choice"
        case "boolean":
            return "truth"
        case "integer" | "number":
            return "number"
        case "string":
            lines: Kind = "lines" if schema.get("maxLength", 0) > _LONG else "text"
            return _FORMATS.get(schema.get("format", ""), lines)
        case "array" if isinstance(items, dict) and "enum" in items:
            return "choices"
        case _ if _is_text_or_number(schema):
            return "text"
        case _:
            return "json"


def _is_text_or_number(schema: Mapping[str, Json]) -> bool:
    """A decimal, for one. As JSON it would become a float, and ``12.50`` another number than the one that was typed."""
    kinds = {one.get("type") for one in schema.get("anyOf", ())} - {"null"}
    return "string" in kinds and kinds <= {"string", "number", "integer"}


def _resolved(schema: Json, root: Mapping[str, Json]) -> dict[str, Json]:
    """The schema behind a reference, and without the null of an optional value."""
    found = dict(schema) if isinstance(schema, dict) else {}
    for _ in range(_MOST_DEPTH):
        if "$ref" in found:
            target = root.get("$defs", {}).get(str(found["$ref"]).rsplit("/", 1)[-1], {})
            found = {**target, **{word: value for word, value in found.items() if word != "$ref"}}
        elif len(some := [one for one in found.get("anyOf", ()) if one.get("type") != "null"]) == 1:
            found = {**some[0], **{word: value for word, value in found.items() if word != "anyOf"}}
        else:
            break
    if isinstance(found.get("items"), dict) and "$ref" in found["items"]:
        found["items"] = _resolved(found["items"], root)
    return found


def _given(one: Field, sent: Sequence[str]) -> tuple[Json] | None:
    """What one control gave; None when it was left empty, and there was nothing to be removed."""
    text = sent[0] if sent else ""
    is_removed = bool(sent) and one.default not in _NOTHING
    if one.default is not None and list(sent) == typed(one):
        return (one.default,)
    if one.kind == "choices":  # sent beside them is an empty one, which says that the person has seen them
        chosen = [_plain(choice) for choice in sent if choice]
        return (chosen,) if chosen or is_removed or one.required else None
    if one.kind in ("text", "lines"):
        return (text.replace("\r\n", "\n"),) if text or is_removed or (one.required and sent) else None
    if not text.strip():
        return (None,) if is_removed else None
    if one.kind == "instant" and text[-1:].isdigit() and "+" not in text:
        return (f"{text}Z",)
    if one.kind in ("date", "instant", "email"):
        return (text,)
    return (_truth(text) if one.kind == "truth" else _plain(text),)


def _truth(text: str) -> Json:
    """What a browser sends for yes: our own word, or ``on`` from a form that somebody else has drawn."""
    return {"true": True, "on": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(
        text.strip().lower(), text
    )


def _plain(text: str) -> Json:
    """JSON where the text is some, else the text itself: the model says what it thinks of it."""
    try:
        return json.loads(text, parse_constant=str)
    except (ValueError, RecursionError):
        return text


def _put(value: dict[str, Json], path: Sequence[str], found: Json) -> None:
    for name in path[:-1]:
        value = value.setdefault(name, {})
    value[path[-1]] = found


def typed(one: Field) -> list[str]:
    """What a control holds that nobody has touched yet: its default as somebody would have entered it."""
    if one.default is None:
        return []
    if one.kind == "choices" and isinstance(one.default, list):
        return [json.dumps(value) for value in one.default]
    if one.kind == "instant" and isinstance(one.default, str):
        return [_in_utc(one.default)]
    return [one.default if isinstance(one.default, str) and one.kind != "choice" else json.dumps(one.default)]


def _in_utc(instant: str) -> str:
    """As a browser's control for an instant takes it: without a zone, which is UTC here."""
    try:
        found = datetime.fromisoformat(instant)
    except ValueError:
        return instant
    return (found.astimezone(UTC) if found.tzinfo else found).replace(tzinfo=None).isoformat()
