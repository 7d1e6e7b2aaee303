"""Where secrets are kept: read when first needed, kept for five minutes, so that a new one is good without a deploy."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from flowcore.errors import MalformedRequest, OutsideError, SettingsError
from flowcore.links import pairs_of
from flowcore.model import Json
from flowcore.settings import variable
from flowcore.strict import parsed

KEPT_S = 300
"""Seconds. A secret that was changed is good, and one that was withdrawn is bad, after this at the latest."""


class SecretsUnavailable(OutsideError):
    """The place where a secret is kept does not answer, or does not let us read."""

    code = "secrets-unavailable"


def secret_at(place: str) -> str:
    """What stands at ``env:NAME``, ``ssm:/path`` or ``secretsmanager:id``.

    Raises: SettingsError for a place that is none, or empty; SecretsUnavailable.
    """
    kind, _, name = place.partition(":")
    match kind:
        case "env":
            found = variable(name)
        case "ssm" | "secretsmanager":
            found = _kept(kind, name)
        case _:
            raise SettingsError(
                "A secret is kept at env:NAME, ssm:/path or secretsmanager:id; this names no such place."
            )
    if not found:
        raise SettingsError(f"There is no secret at {place!r}.")
    return found


def secrets_at(place: str) -> list[str]:
    """The secrets of a webhook: one, or several with commas or in a JSON list, the newest first.

    Raises: SettingsError, without a secret in its message; SecretsUnavailable.
    """
    text = secret_at(place).strip()
    if text.startswith("["):
        found = _json(text)
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            raise SettingsError(f"What stands at {place!r} is no JSON list of texts.")
        return found
    return [part.strip() for part in text.split(",") if part.strip()]


def link_secrets(setting: str) -> Mapping[str, str]:
    """The keys of links, by their id: from the setting itself, or from the place that it names.

    Raises: SettingsError, without a secret in its message; SecretsUnavailable.
    """
    text = secret_at(setting) if setting.startswith(("ssm:", "secretsmanager:")) else setting
    return _pairs(text)


@cache
def _pairs(text: str) -> Mapping[str, str]:
    if not text.lstrip().startswith("{"):
        return pairs_of(text)
    found = _json(text)
    if not isinstance(found, dict) or not all(isinstance(secret, str) for secret in found.values()):
        raise SettingsError("The keys of links are no JSON object of a text for each key id, each of them once.")
    return found


def _json(text: str) -> Json:
    """The value that a text is, read strictly; None where it is none."""
    try:
        return parsed(text)
    except MalformedRequest:
        return None


def _kept(kind: str, name: str) -> str | None:
    from aws_lambda_powertools.utilities import parameters  # noqa: PLC0415  # most invocations need no secret

    try:
        if kind == "ssm":
            return parameters.get_parameter(name, decrypt=True, max_age=KEPT_S)
        found: str | bytes = parameters.get_secret(name, max_age=KEPT_S)  # bytes where it was stored as such
    except (parameters.GetParameterError, parameters.TransformParameterError) as error:
        raise SecretsUnavailable(f"The secret at {kind}:{name} cannot be read: {type(error).__name__}.") from error
    return found.decode() if isinstance(found, bytes) else found
