"""Writes of an author's own in DynamoDB's form, and what a refused one means.

Values come typed (``{"S": "a"}``) or as plain Python, which boto3's own serializer turns into the other; it is imported
when the first plain one comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from flowcore.adapters.aws import ClientError, code_of
from flowcore.authoring.effects import Effect
from flowcore.ports import EffectMoved

_TYPES = frozenset({"S", "N", "B", "BOOL", "NULL", "M", "L", "SS", "NS", "BS"})
_VALUES = ("Item", "Key", "ExpressionAttributeValues")
_MISUSED = frozenset({"ValidationException", "ResourceNotFoundException", "AccessDeniedException"})


def typed(effect: Effect) -> dict[str, Any]:
    """The entry as the low-level client takes it.

    Raises: TypeError, ValueError, RecursionError for a value that DynamoDB has no type for, or cannot hold.
    """
    ((verb, body),) = effect.items()
    written = {name: _typed(value) if name in _VALUES else value for name, value in body.items()}
    return {verb: {"ReturnValuesOnConditionCheckFailure": "NONE", **written}}


def refused(error: BaseException | None, reasons: list[dict[str, Any]]) -> EffectMoved | None:
    """Which effect was refused, and why; None when that is not what has happened.

    Args:
        reasons: of the effects alone, in their order.
    """
    for index, reason in enumerate(reasons):
        if reason.get("Code", "None") != "None":
            return EffectMoved(index, str(reason["Code"]), str(reason.get("Message", "")))
    if isinstance(error, ClientError) and code_of(error) in _MISUSED:
        return EffectMoved(None, code_of(error), str(error.response["Error"].get("Message", "")))
    if error is not None and type(error).__name__ == "ParamValidationError":
        return EffectMoved(None, "ParamValidationError", str(error))
    return None


def _typed(values: Mapping[str, Any]) -> Mapping[str, Any]:
    if all(_is_typed(value) for value in values.values()):
        return values
    from boto3.dynamodb.types import TypeSerializer  # noqa: PLC0415  # only who writes plain values pays for it

    serializer = TypeSerializer()
    try:
        return {name: serializer.serialize(_exact(value)) for name, value in values.items()}
    except ArithmeticError as error:  # the serializer lets those of decimal pass, which name no reason
        raise ValueError("a number has more than the 38 digits, or lies beyond the 9.9E+125, of DynamoDB") from error


def _is_typed(value: Any) -> bool:
    return isinstance(value, Mapping) and len(value) == 1 and next(iter(value)) in _TYPES


def _exact(value: Any) -> Any:
    """Floats as the decimals that Python prints them as: the serializer takes none."""
    if isinstance(value, float):
        return Decimal(repr(value))
    if isinstance(value, Mapping):
        return {name: _exact(inner) for name, inner in value.items()}
    return [_exact(inner) for inner in value] if isinstance(value, (list, tuple)) else value
