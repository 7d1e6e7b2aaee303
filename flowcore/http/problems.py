"""Every error as ``application/problem+json`` (RFC 9457), with a stable type and one status per error class.

The message of an unexpected exception never leaves the process: the caller gets a bare 500, the log gets the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError

from flowcore import errors

TYPE_PREFIX = "https://flowcore.dev/problems/"
"""A name, not an address: types are compared, never fetched."""

_STATUS: Sequence[tuple[type[errors.FlowcoreError], HTTPStatus]] = (
    (errors.RunNotFound, HTTPStatus.NOT_FOUND),
    (errors.WorkflowNotFound, HTTPStatus.NOT_FOUND),
    (errors.EventNotFound, HTTPStatus.NOT_FOUND),
    (errors.WebhookNotFound, HTTPStatus.NOT_FOUND),
    (errors.DeliveryNotFound, HTTPStatus.NOT_FOUND),
    (errors.MalformedRequest, HTTPStatus.BAD_REQUEST),
    (errors.TooManyAnswers, HTTPStatus.TOO_MANY_REQUESTS),
    (errors.Throttled, HTTPStatus.TOO_MANY_REQUESTS),
    (errors.InvalidPayload, HTTPStatus.UNPROCESSABLE_ENTITY),
    (errors.IdempotencyKeyReused, HTTPStatus.UNPROCESSABLE_ENTITY),
    (errors.UnknownStep, HTTPStatus.UNPROCESSABLE_ENTITY),
    (errors.UnknownField, HTTPStatus.UNPROCESSABLE_ENTITY),
    (errors.UnknownLabel, HTTPStatus.UNPROCESSABLE_ENTITY),
    (errors.IndexOutOfRange, HTTPStatus.UNPROCESSABLE_ENTITY),
    (errors.NotAnApprover, HTTPStatus.FORBIDDEN),
    (errors.VersionMismatch, HTTPStatus.PRECONDITION_FAILED),
    (errors.Unauthenticated, HTTPStatus.UNAUTHORIZED),
    (errors.Forbidden, HTTPStatus.FORBIDDEN),
    (errors.BadSignature, HTTPStatus.UNAUTHORIZED),
    (errors.LinkUnknown, HTTPStatus.NOT_FOUND),
    (errors.LinkExpired, HTTPStatus.GONE),
    (errors.WaitExpired, HTTPStatus.GONE),
    (errors.RequestError, HTTPStatus.CONFLICT),
    (errors.BlobLost, HTTPStatus.CONFLICT),
    (errors.CapacityError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (errors.ConflictError, HTTPStatus.SERVICE_UNAVAILABLE),
    (errors.OutsideError, HTTPStatus.SERVICE_UNAVAILABLE),
)


def problem(
    status: HTTPStatus, code: str, detail: str, extra: Mapping[str, Any] | None = None, *, retry: int | None = None
) -> Response[str]:
    """A problem document as a response.

    Args:
        retry: seconds after which it may be tried again; None: trying again cannot help.
    """
    body = {
        **(extra or {}),
        "type": f"{TYPE_PREFIX}{code}",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
    }
    return Response(
        status_code=status.value,
        content_type="application/problem+json",
        body=json.dumps(body, ensure_ascii=False),
        headers={} if retry is None else {"Retry-After": str(retry)},
    )


OTHERS: Mapping[str, int] = {
    "route-not-found": HTTPStatus.NOT_FOUND.value,
    "method-not-allowed": HTTPStatus.METHOD_NOT_ALLOWED.value,
    "unsupported-media-type": HTTPStatus.UNSUPPORTED_MEDIA_TYPE.value,
    "address-too-long": HTTPStatus.REQUEST_URI_TOO_LONG.value,
    "answer-too-large": HTTPStatus.UNPROCESSABLE_ENTITY.value,
    "headers-too-large": HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE.value,
    "internal-error": HTTPStatus.INTERNAL_SERVER_ERROR.value,
}
"""Types of problems that are no error of flowcore's."""


def status_of(kind: type[errors.FlowcoreError]) -> HTTPStatus:
    """The status of a kind of error."""
    found = (status for known, status in _STATUS if issubclass(kind, known))
    return next(found, HTTPStatus.INTERNAL_SERVER_ERROR)


def over(error: errors.FlowcoreError) -> errors.FlowcoreError:
    """The error as it is told: where nobody was faster but the clock, that is another thing to be told."""
    if isinstance(error, errors.AlreadyResumed) and error.winner.get("via") == "timeout":
        return errors.WaitExpired(str(error.winner["at"]))
    return error


def of_error(error: errors.FlowcoreError) -> Response[str]:
    """The problem that an error of flowcore is to a caller."""
    error = over(error)
    status = status_of(type(error))
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        return unexpected()
    behind = status > HTTPStatus.INTERNAL_SERVER_ERROR
    detail = "Something behind this API does not answer. Try again." if behind else str(error)
    retry = error.retry_after_s if error.retryable else None
    return problem(status, error.code, detail, error.details(), retry=retry)


def of_validation(error: RequestValidationError) -> Response[str]:
    """A request that does not fit the route: 400 when it is not even JSON, else 422 with one entry per field."""
    issues = error.errors()
    if any(issue["type"] == "json_invalid" for issue in issues):
        return problem(HTTPStatus.BAD_REQUEST, errors.MalformedRequest.code, "The body is not JSON.")
    rows = [
        {"path": ".".join(str(part) for part in issue["loc"][1:]), "message": issue["msg"], "type": issue["type"]}
        for issue in issues
    ]
    lines = "; ".join(f"{row['path'] or 'body'}: {row['message']}" for row in rows)
    return problem(
        HTTPStatus.UNPROCESSABLE_ENTITY, errors.InvalidPayload.code, f"Invalid request: {lines}", {"errors": rows}
    )


def unknown_route(method: str, path: str) -> Response[str]:
    """No such route."""
    return problem(HTTPStatus.NOT_FOUND, "route-not-found", f"There is no {method} {path} here.")


def wrong_method(method: str, path: str, allowed: Sequence[str]) -> Response[str]:
    """There is such a path, but not for this method."""
    listed = ", ".join(allowed)
    detail = f"{path} takes {listed}, not {method}."
    response = problem(HTTPStatus.METHOD_NOT_ALLOWED, "method-not-allowed", detail, {"allowed": allowed})
    response.headers["Allow"] = listed
    return response


def unsupported(kind: str, wanted: str) -> Response[str]:
    """A body of another kind than the one that is read here."""
    detail = f"The body is {kind!r}; send {wanted}."
    return problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail)


def unexpected() -> Response[str]:
    """A fault of ours; says nothing about itself."""
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal-error", "Something went wrong here. The log knows more.")
