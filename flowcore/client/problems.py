"""Problem documents as the errors that an App raises itself: the same class, sentence and facts, by the code it has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from flowcore import errors
from flowcore.client.call import Call, Reply
from flowcore.errors import FlowcoreError, Problem


@dataclass(frozen=True, slots=True)
class _Told:
    """A problem, and what was asked."""

    problem: Problem
    names: Mapping[str, str]

    @property
    def run_id(self) -> str:
        """As it was told: what was asked may name a wait or a link, or the run that another one is made of."""
        return str(self.named("run_id") or self.names.get("run", ""))

    def named(self, name: str, otherwise: Any = None) -> Any:
        """A fact of the document beyond what every one has."""
        return self.problem.body.get(name, otherwise)


_MADE: Mapping[str, Callable[[_Told], FlowcoreError]] = {
    "too-many-answers": lambda told: errors.TooManyAnswers(told.named("a_minute", 0), told.named("retry_after_s", 1)),
    "workflow-not-found": lambda told: errors.WorkflowNotFound(told.names.get("workflow", ""), told.named("known", ())),
    "run-not-found": lambda told: errors.RunNotFound(told.run_id),
    "event-not-found": lambda _: errors.EventNotFound("", "", ""),
    "run-exists": lambda told: errors.RunExists(told.run_id, told.names.get("workflow", "")),
    "not-suspended": lambda told: errors.NotSuspended(told.run_id, "", open_steps=told.named("open_steps", ())),
    "run-finished": lambda told: errors.RunFinished(told.run_id, told.named("run_status", "")),
    "already-resumed": lambda told: errors.AlreadyResumed(told.run_id, "", told.named("winner", {})),
    "not-an-approver": lambda told: errors.NotAnApprover(told.run_id, "", None),
    "cannot-delegate": lambda told: errors.CannotDelegate(told.run_id, "", ""),
    "ambiguous-wait": lambda told: errors.AmbiguousWait(told.run_id, told.named("waits", ())),
    "unknown-step": lambda told: errors.UnknownStep("", told.named("open_steps", ())),
    "unknown-label": lambda told: errors.UnknownLabel("", told.named("open_labels", ())),
    "index-out-of-range": lambda told: errors.IndexOutOfRange("", 0, told.named("open_indexes", ())),
    "invalid-input": lambda told: errors.InvalidPayload("", told.named("errors", ())),
    "unknown-field": lambda told: errors.UnknownField("", told.named("known", ())),
    "still-running": lambda told: errors.StillRunning(told.run_id, ""),
    "not-recorded": lambda told: errors.NotRecorded("", told.named("missing", ())),
    "not-active": lambda told: errors.NotActive(told.run_id, "", ""),
    "not-blocked": lambda told: errors.NotBlocked(told.run_id, ""),
    "not-failed": lambda told: errors.NotFailed(told.run_id, told.named("run_status", "")),
    "part-of-run": lambda told: errors.PartOfRun(told.run_id, told.named("whole", "")),
    "idempotency-key-reused": lambda _: errors.IdempotencyKeyReused(""),
    "link-unknown": lambda _: errors.LinkUnknown(),
    "link-expired": lambda told: errors.LinkExpired(_instant(told.named("until"))),
    "webhook-not-found": lambda told: errors.WebhookNotFound(told.names.get("name", "")),
    "delivery-not-found": lambda _: errors.DeliveryNotFound("", ""),
    "wait-expired": lambda told: errors.WaitExpired(str(told.named("at", ""))),
    "version-mismatch": lambda told: errors.VersionMismatch("", told.named("version")),
    "bad-signature": lambda _: errors.BadSignature(""),
    "definition-changed": lambda told: errors.DefinitionChanged(told.run_id, str(told.named("reason", ""))),
    "payload-too-large": lambda told: errors.PayloadTooLarge("", told.named("size", 0), told.named("limit", 0)),
}
"""By code, an error with the facts that were told, where its class has any; its sentence is put in afterwards."""

_BLOBS: Mapping[str, type[errors.BlobLost]] = {
    kind.code: kind for kind in (errors.BlobLost, errors.BlobMissing, errors.BlobAltered)
}
_GATEWAY: Mapping[int, type[FlowcoreError]] = {
    HTTPStatus.UNAUTHORIZED: errors.Unauthenticated,
    HTTPStatus.FORBIDDEN: errors.Forbidden,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: errors.CapacityError,
    HTTPStatus.TOO_MANY_REQUESTS: errors.Throttled,
    HTTPStatus.BAD_GATEWAY: errors.Unreachable,
    HTTPStatus.SERVICE_UNAVAILABLE: errors.Unreachable,
    HTTPStatus.GATEWAY_TIMEOUT: errors.Unreachable,
}
"""What it means when somebody in front of the API answers in its place, which is no problem document."""


def error_of(call: Call[Any], reply: Reply) -> FlowcoreError:
    """The error that an answer is, with the ``problem`` as it was told."""
    told = _Told(_problem(reply), call.names)
    otherwise = errors.Unreachable if is_died(reply) else _GATEWAY.get(reply.status, errors.ApiError)
    error = _of_code(told) or otherwise(told.problem.detail)
    error.args = (told.problem.detail,)
    error.problem = told.problem
    if (after := reply.headers.get("retry-after", "")).isdecimal():
        error.retry_after_s = int(after)
    return error


def is_died(reply: Reply) -> bool:
    """Whether the API has died of this request, by time or by memory, and its gateway says so.

    A fault that the API tells itself is a problem document, and would be the same another time.
    """
    return reply.status == HTTPStatus.INTERNAL_SERVER_ERROR and not _problem(reply).code


def _of_code(told: _Told) -> FlowcoreError | None:
    code = told.problem.code
    if code in _BLOBS:
        facts = {name: told.named(name, "") for name in ("run_id", "step", "key")}
        return _BLOBS[code]("", why="", **facts)
    if code in _MADE:
        return _MADE[code](told)
    kind = _PLAIN.get(code)
    return None if kind is None else kind(told.problem.detail)


def _problem(reply: Reply) -> Problem:
    try:
        body = reply.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return Problem(status=reply.status, code="", detail=f"HTTP {reply.status}: {reply.text[:200]}")
    if "type" not in body:  # the gateway's own: {"message": "Forbidden"}
        return Problem(status=reply.status, code="", detail=f"HTTP {reply.status}: {body.get('message')}", body=body)
    code = str(body["type"]).rsplit("/", 1)[-1]
    return Problem(status=reply.status, code=code, detail=str(body.get("detail", "")), body=body)


def _instant(text: Any) -> datetime:
    return datetime.fromisoformat(text) if isinstance(text, str) else datetime.min.replace(tzinfo=UTC)


def _plain(root: type[FlowcoreError]) -> Iterator[type[FlowcoreError]]:
    """Classes that hold nothing but their sentence."""
    for kind in root.__subclasses__():
        if kind.__module__ == errors.__name__ and kind.__init__ is FlowcoreError.__init__:
            yield kind
        yield from _plain(kind)


_PLAIN: Mapping[str, type[FlowcoreError]] = {kind.code: kind for kind in reversed([*_plain(FlowcoreError)])}
