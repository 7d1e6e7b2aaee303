"""Every error flowcore raises on purpose, sorted by whose turn it is.

    FlowcoreError
    ├── DefinitionError      the author: raised at commit(), all mistakes at once
    ├── SettingsError        the deployer: an environment variable is missing or malformed
    ├── RequestError         the caller: answered with a 4xx, never retried
    ├── ConflictError        nobody: reload and decide again
    ├── OutsideError         AWS: the platform retries
    ├── CapacityError        nobody can help by trying again
    ├── BlobLost             an operator: a large value is gone or altered, and must be restored
    ├── StepTimeout          the author of the step, who gave it so much time and no more
    ├── EffectRefused        the author of the step, whose own write met a condition that did not hold
    ├── NeedsDynamoDB        the author: the store at hand cannot do it
    ├── ApiError             the caller of an API that is newer, or none of ours
    └── InvariantError       us: a promise of this library was broken

An exception thrown by a step is not in this tree: it is stored as a ``StepFailure`` value. ``code`` is stable and is
also the last part of the HTTP problem type.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What an API has told about an error: see RFC 9457. Whoever calls an App itself meets none."""

    status: int
    """Of the answer."""
    code: str
    """The last part of its type; empty where it was no problem document."""
    detail: str
    body: Mapping[str, Any] = field(default_factory=dict)
    """The whole document."""


class FlowcoreError(Exception):
    """The root of every error that flowcore raises on purpose.

    Example:
        >>> try:
        ...     raise RunNotFound("r-1")
        ... except FlowcoreError as error:
        ...     error.code
        'run-not-found'
    """

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False
    problem: Problem | None = None
    """How an API has told it, where it came from ``flowcore.client``."""
    retry_after_s: int = 1
    """Of one that is ``retryable``: how long to wait at least."""

    def details(self) -> Mapping[str, Any]:
        """What a caller's program may want to read, as plain JSON; the message is for people."""
        return {}


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing wrong in a workflow definition: ``where`` names the entry, ``what`` says what to do."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class DefinitionError(FlowcoreError):
    r"""A workflow cannot be compiled. Lists every mistake, not only the first.

    Example:
        >>> str(DefinitionError("refund", [Mistake("pay", "is used twice; give one of them an id=")]))
        "Workflow 'refund' cannot be committed:\n- pay: is used twice; give one of them an id="
    """

    code = "definition"

    def __init__(self, workflow: str, mistakes: Iterable[Mistake], *, is_step: bool = False) -> None:
        self.workflow = workflow
        self.mistakes = tuple(mistakes)
        lines = "".join(f"\n- {mistake}" for mistake in self.mistakes)
        what = f"Step {workflow!r} cannot be made" if is_step else f"Workflow {workflow!r} cannot be committed"
        super().__init__(f"{what}:{lines}")


class SettingsError(FlowcoreError):
    """The environment lacks a setting or holds one that cannot be read."""

    code = "settings"


# -- the caller -------------------------------------------------------------------------------------------------------


class RequestError(FlowcoreError):
    """The caller asked for something that cannot be done; asking again the same way will not help."""

    code = "bad-request"
    wait: str = ""
    """The id of the suspension it is about, where that is known."""


class MalformedRequest(RequestError):
    """What arrived is not even of the right form: not JSON, not an object, an id with forbidden characters."""

    code = "malformed-request"


class TooManyAnswers(RequestError):
    """One run is answered faster than this process takes answers to one run; nothing was done."""

    code = "too-many-answers"
    retryable = True

    def __init__(self, a_minute: int, retry_after_s: int) -> None:
        self.a_minute = a_minute
        self.retry_after_s = retry_after_s
        super().__init__(f"One run takes {a_minute} answers a minute here; try again in {retry_after_s} s.")

    def details(self) -> Mapping[str, Any]:
        return {"a_minute": self.a_minute, "retry_after_s": self.retry_after_s}


class WorkflowNotFound(RequestError):
    """No workflow of that id is served here."""

    code = "workflow-not-found"

    def __init__(self, workflow: str, known: Iterable[str]) -> None:
        self.workflow = workflow
        self.known = sorted(known)
        super().__init__(f"No workflow {workflow!r} here. Known: {_listed(self.known)}.")

    def details(self) -> Mapping[str, Any]:
        return {"known": self.known}


class RunNotFound(RequestError):
    """No run of that id exists, or it belongs to somebody else, or it has expired."""

    code = "run-not-found"

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(f"No run {run_id!r}. It was never started, was deleted, or has expired.")


class EventNotFound(RequestError):
    """No event of that id was sent under this name and key, or it is kept no longer."""

    code = "event-not-found"

    def __init__(self, name: str, key: str, event_id: str) -> None:
        super().__init__(
            f"No event {event_id!r} of name {name!r} and key {key!r}. It was never sent, or it is kept no longer."
        )


class RunExists(RequestError):
    """A run of that id was started with another input or another workflow."""

    code = "run-exists"

    def __init__(self, run_id: str, workflow: str) -> None:
        self.run_id = run_id
        super().__init__(
            f"Run {run_id!r} of workflow {workflow!r} exists and was started with another input. "
            "Choose another run id, or start with the same input to get the same run."
        )


class NotSuspended(RequestError):
    """The run, or the step that was named, waits for nobody."""

    code = "not-suspended"

    def __init__(
        self, run_id: str, status: str, *, step: str | None = None, open_steps: Sequence[str] = (), kept: int = 0
    ) -> None:
        """``kept``: how many answers are kept for the run already, where this one finds no place among them."""
        self.run_id = run_id
        self.open_steps = list(open_steps)
        subject = f"Step {step!r} of run {run_id!r}" if step else f"Run {run_id!r}"
        advice = f" Resume one of: {_listed(self.open_steps)}." if self.open_steps else ""
        full = f" {kept} answers are kept for the run already, the most there may be." if kept else ""
        super().__init__(f"{subject} is not suspended (status {status!r}).{full}{advice}")

    def details(self) -> Mapping[str, Any]:
        return {"open_steps": self.open_steps}


class RunFinished(NotSuspended):
    """The run has ended; nothing can change it any more."""

    code = "run-finished"

    def __init__(self, run_id: str, status: str) -> None:
        super().__init__(run_id, status)
        self.status = status
        self.args = (f"Run {run_id!r} has ended with status {status!r}; it takes no more answers.",)

    def details(self) -> Mapping[str, Any]:
        return {"run_status": self.status}


class AlreadyResumed(RequestError):
    """Somebody else answered this suspension first; ``winner`` says when, who and over which channel."""

    code = "already-resumed"

    def __init__(self, run_id: str, step: str, winner: Mapping[str, Any], *, wait: str = "") -> None:
        self.run_id = run_id
        self.wait = wait
        self.winner = dict(winner)
        by = f" by {self.winner['by']!r}" if self.winner.get("by") else ""
        by += f" as {self.winner['chosen']!r}" if "chosen" in self.winner else ""
        super().__init__(
            f"Step {step!r} of run {run_id!r} was already resumed at {self.winner.get('at')}{by} "
            f"via {self.winner.get('via')!r}. This answer was not used."
        )

    def details(self) -> Mapping[str, Any]:
        return {"winner": self.winner}


class NotAnApprover(RequestError):
    """This suspension may be answered by certain people only, and the caller is not among them, or did not say who."""

    code = "not-an-approver"

    def __init__(self, run_id: str, step: str, by: str | None, *, why: str = "", wait: str = "") -> None:
        self.run_id = run_id
        self.wait = wait
        who = "an answer without a name" if by is None else f"{by!r}"
        why = why or (
            f"asks named people; {who} is not one of them. Say who answers, and let somebody answer who was asked."
        )
        super().__init__(f"Step {step!r} of run {run_id!r} {why}")


class CannotDelegate(RequestError):
    """A vote cannot be handed to this person, or there is none to hand over."""

    code = "cannot-delegate"

    def __init__(self, run_id: str, step: str, why: str, *, wait: str = "") -> None:
        self.run_id = run_id
        self.wait = wait
        super().__init__(f"Step {step!r} of run {run_id!r} {why}.")


class AmbiguousWait(RequestError):
    """Several suspensions are open and the caller did not say which one is meant."""

    code = "ambiguous-wait"

    def __init__(self, run_id: str, waits: Sequence[Mapping[str, Any]]) -> None:
        self.waits = list(waits)
        steps = [".".join(wait["path"]) for wait in self.waits]
        how = "step="
        if len({*steps}) < len(steps):  # alternatives of one step
            steps = [f"{step} ({wait['label']})" for step, wait in zip(steps, self.waits, strict=True)]
            how = "label= or wait="
        super().__init__(f"Run {run_id!r} has {len(steps)} open suspensions: {_listed(steps)}. Name one with {how}.")

    def details(self) -> Mapping[str, Any]:
        return {"waits": self.waits}


class UnknownStep(RequestError):
    """The workflow has no such step."""

    code = "unknown-step"

    def __init__(self, step: str, open_steps: Iterable[str], *, known: bool = False) -> None:
        self.open_steps = list(open_steps)
        what = "Known here" if known else "Suspended now"
        super().__init__(f"No step {step!r} in this workflow. {what}: {_listed(self.open_steps)}.")

    def details(self) -> Mapping[str, Any]:
        return {"open_steps": self.open_steps}


class UnknownLabel(RequestError):
    """No open suspension carries that label."""

    code = "unknown-label"

    def __init__(self, label: str, open_labels: Iterable[str]) -> None:
        self.open_labels = sorted(open_labels)
        super().__init__(f"No open suspension is labelled {label!r}. Open labels: {_listed(self.open_labels)}.")

    def details(self) -> Mapping[str, Any]:
        return {"open_labels": self.open_labels}


class IndexOutOfRange(RequestError):
    """The foreach has no suspended item of that index."""

    code = "index-out-of-range"

    def __init__(self, step: str, index: int, open_indexes: Iterable[int]) -> None:
        self.open_indexes = sorted(open_indexes)
        listed = ", ".join(map(str, self.open_indexes)) or "none"
        super().__init__(f"Item {index} of {step!r} is not suspended. Suspended items: {listed}.")

    def details(self) -> Mapping[str, Any]:
        return {"open_indexes": self.open_indexes}


class InvalidPayload(RequestError):
    """Data at a door does not fit its declared type. ``errors`` holds one entry per field."""

    code = "invalid-input"

    def __init__(self, subject: str, errors: Sequence[Mapping[str, Any]]) -> None:
        self.subject = subject
        self.errors = [dict(error) for error in errors]
        lines = "".join(f"\n- {error['path'] or '(whole value)'}: {error['message']}" for error in self.errors)
        super().__init__(f"Invalid {subject}:{lines}")

    def details(self) -> Mapping[str, Any]:
        return {"errors": self.errors}


class UnknownField(RequestError):
    """A run has no such field."""

    code = "unknown-field"

    def __init__(self, field: str, known: Iterable[str]) -> None:
        self.known = list(known)
        super().__init__(f"A run has no field {field!r}. Known: {_listed(self.known)}.")

    def details(self) -> Mapping[str, Any]:
        return {"known": self.known}


class StillRunning(RequestError):
    """A worker drives the run, or a child of it, at this moment; what was asked needs it to stand still."""

    code = "still-running"

    def __init__(self, run_id: str, what: str) -> None:
        super().__init__(f"Run {run_id!r} is being driven, it cannot {what} now. Pause or cancel it, or wait.")


class NotRecorded(RequestError):
    """Steps in front of the one to go back to have no output in this run."""

    code = "not-recorded"

    def __init__(self, step: str, missing: Iterable[str]) -> None:
        self.missing = list(missing)
        have, their = ("has", "its output") if len(self.missing) == 1 else ("have", "their outputs")
        super().__init__(
            f"Cannot begin at step {step!r}: {_listed(self.missing)} in front of it {have} no output in this run. "
            f"Give {their}, or an input for the step."
        )

    def details(self) -> Mapping[str, Any]:
        return {"missing": self.missing}


class NotActive(RequestError):
    """The run is not under way, so there is nothing to restart or to pause; or not paused, where it is to go on."""

    code = "not-active"

    def __init__(self, run_id: str, status: str, what: str, *, wanted: str = "under way") -> None:
        super().__init__(f"Run {run_id!r} is {status!r}; only a run that is {wanted} can be {what}.")


class NotBlocked(RequestError):
    """The run does not stand still for a deploy, so there is nothing to unblock."""

    code = "not-blocked"

    def __init__(self, run_id: str, status: str) -> None:
        super().__init__(
            f"Run {run_id!r} is {status!r} and not blocked by the code at hand; only a blocked run can be unblocked. "
            "Unpause one that somebody has paused."
        )


class NotFailed(RequestError):
    """The run has not failed, so there is nothing in it to redrive; or somebody else was faster."""

    code = "not-failed"

    def __init__(self, run_id: str, status: str) -> None:
        self.status = status
        super().__init__(
            f"Run {run_id!r} is {status!r}; only a failed run can be redriven. Restart one whose worker is dead, and "
            "travel in time with one that has ended otherwise."
        )

    def details(self) -> Mapping[str, Any]:
        return {"run_status": self.status}


class PartOfRun(RequestError):
    """What is named is a child of a distributed foreach; it begins, goes on and ends together with its run."""

    code = "part-of-run"

    def __init__(self, run_id: str, whole: str) -> None:
        self.run_id = run_id
        self.whole = whole
        super().__init__(f"{run_id!r} is a part of run {whole!r}, and is none by itself. Ask for that run instead.")

    def details(self) -> Mapping[str, Any]:
        return {"whole": self.whole}


class IdempotencyKeyReused(RequestError):
    """The idempotency key was used before: with other data, by somebody else, or for another suspension or step."""

    code = "idempotency-key-reused"

    def __init__(self, key: str, how: str = "with other data") -> None:
        super().__init__(f"Idempotency key {key!r} was used before {how}. Use a fresh key for a new request.")


class LinkUnknown(RequestError):
    """No such link: it was changed, was made for another door, or with a key that is no longer good."""

    code = "link-unknown"

    def __init__(self) -> None:
        super().__init__("There is no such link. It may have been cut short on its way; ask for a new one.")


class LinkExpired(RequestError):
    """The link was good until ``until``."""

    code = "link-expired"

    def __init__(self, until: datetime) -> None:
        self.until = until
        super().__init__(f"This link was good until {until:%Y-%m-%d %H:%M} UTC. Ask for a new one.")

    def details(self) -> Mapping[str, Any]:
        return {"until": self.until.isoformat()}


class WebhookNotFound(RequestError):
    """No webhook of that name is served here."""

    code = "webhook-not-found"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no webhook {name[:100]!r} here.")


class DeliveryNotFound(RequestError):
    """The log has no such delivery (any more)."""

    code = "delivery-not-found"

    def __init__(self, hook: str, id: str) -> None:
        super().__init__(f"The log of webhook {hook!r} has no delivery {id[:100]!r}. Lines are kept for 30 days.")


class WaitExpired(RequestError):
    """The deadline of this suspension has passed, and was acted upon."""

    code = "wait-expired"

    def __init__(self, at: str) -> None:
        self.at = at
        super().__init__(f"The time to answer was over at {at}; this answer was not used.")

    def details(self) -> Mapping[str, Any]:
        return {"at": self.at}


class VersionMismatch(RequestError):
    """The run has moved on since the caller looked at it, who wanted nothing to happen then."""

    code = "version-mismatch"

    def __init__(self, wanted: object, found: int | None) -> None:
        self.found = found
        now = "" if found is None else f" It is at version {found} now."
        super().__init__(f"The run is not at {wanted!r} any more.{now} Look at it again; nothing was changed.")

    def details(self) -> Mapping[str, Any]:
        return {} if self.found is None else {"version": self.found}


class Unauthenticated(RequestError):
    """It is not known who calls."""

    code = "unauthenticated"


class Forbidden(RequestError):
    """It is known who calls, and he may not do this."""

    code = "forbidden"


class BadSignature(RequestError):
    """A delivery does not come from whom it says, or not now. The message is the same for all; ``reason`` is for us."""

    code = "bad-signature"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__("This delivery is not signed as it has to be. It was not used.")


class DefinitionChanged(RequestError):
    """The code at hand no longer fits what this run has already done; ``reason`` names the conflict."""

    code = "definition-changed"

    def __init__(self, run_id: str, reason: str) -> None:
        self.reason = reason
        super().__init__(f"Run {run_id!r} is blocked: {reason}")

    def details(self) -> Mapping[str, Any]:
        return {"reason": self.reason}


# -- nobody, AWS, us --------------------------------------------------------------------------------------------------


class ConflictError(FlowcoreError):
    """Somebody else was faster. Reload and decide again."""

    code = "conflict"
    retryable = True


class OutsideError(FlowcoreError):
    """Something outside this process failed; the platform will try again."""

    code = "unavailable"
    retryable = True


class StoreUnavailable(OutsideError):
    """The table cannot be reached or refuses to answer."""

    code = "store-unavailable"


class Throttled(OutsideError):
    """The table asks for fewer requests."""

    code = "throttled"


class QueueUnavailable(OutsideError):
    """The work queue cannot be reached."""

    code = "queue-unavailable"


class SchedulerUnavailable(OutsideError):
    """EventBridge Scheduler cannot be reached."""

    code = "scheduler-unavailable"


class BlobsUnavailable(OutsideError):
    """The blob store, where large values lie, cannot be reached or refuses to answer."""

    code = "blobs-unavailable"


class Unreachable(OutsideError):
    """An API of flowcore gives no answer, or somebody in front of it answers that it cannot."""


class ApiError(FlowcoreError):
    """An API has told an error that is none of these, or has not answered as such an API does; see ``problem``."""

    code = "api-error"


class BlobLost(FlowcoreError):
    """A large value of a run cannot be read from the blob store; the run can go on once it is restored there."""

    code = "blob-lost"

    def __init__(self, subject: str, *, run_id: str, step: str | None, key: str, why: str) -> None:
        self.run_id = run_id
        self.step = step
        self.key = key
        place = f"of run {run_id!r}" if step is None else f"of step {step!r} in run {run_id!r}"
        super().__init__(f"The {subject} {place} cannot be read: {why} Its key is {key!r}.")

    def details(self) -> Mapping[str, Any]:
        return {"run_id": self.run_id, "step": self.step, "key": self.key}


class BlobMissing(BlobLost):
    """The blob store holds nothing under the value's key, or this App was given no blob store."""

    code = "blob-missing"


class BlobAltered(BlobLost):
    """What lies under the value's key is not what was stored there: its length or its hash differs."""

    code = "blob-altered"


class CapacityError(FlowcoreError):
    """A size limit was passed; trying again cannot help."""

    code = "capacity"


class PayloadTooLarge(CapacityError):
    """One value is larger than flowcore stores; nothing was written."""

    code = "payload-too-large"

    def __init__(self, subject: str, size: int, limit: int) -> None:
        self.size = size
        self.limit = limit
        super().__init__(f"{subject} is {size} bytes as JSON; at most {limit} are stored. Keep a reference instead.")

    def details(self) -> Mapping[str, Any]:
        return {"size": self.size, "limit": self.limit}


class StepTimeout(FlowcoreError, TimeoutError):
    """A try of a step took longer than the step's ``timeout``. Stored as the step's failure, never raised inside it.

    Name it, or ``TimeoutError``, in ``retry_on`` or ``no_retry_on``.
    """

    code = "step-timeout"

    def __init__(self, step: str, timeout_s: float, attempt: int, tries: int) -> None:
        self.timeout_s = timeout_s
        super().__init__(
            f"Try {attempt} of {tries} of step {step!r} did not end within its timeout of {timeout_s:g} seconds. "
            "Raise timeout=, or let the step look at ctx.remaining_time() and do less at a time."
        )


class EffectRefused(FlowcoreError):
    """A write that a step gave to ``ctx.commit_with`` was refused, so its outcome was not stored either.

    Example:
        >>> str(EffectRefused("reserve", 0, "Update", "stock", "ConditionalCheckFailed"))
        "Update 0 of step 'reserve', on table 'stock', was refused: ConditionalCheckFailed"
    """

    code = "effect-refused"

    def __init__(
        self, step: str, index: int | None, verb: str, table: str | None, reason: str, message: str = ""
    ) -> None:
        which = f"{verb} {index} of step {step!r}, on table {table!r}," if index is not None else f"{verb} of {step!r}"
        super().__init__(f"{which} was refused: {reason}{': ' if message else ''}{message}")
        self.index = index
        self.table = table
        self.reason = reason


class NeedsDynamoDB(FlowcoreError):
    """Something was asked for that only a store in DynamoDB can do.

    Example:
        >>> str(NeedsDynamoDB("ctx.commit_with()"))
        'ctx.commit_with() needs a store in DynamoDB; in a test, give LocalApp a DynamoStore on moto'
    """

    code = "needs-dynamodb"

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} needs a store in DynamoDB; in a test, give LocalApp a DynamoStore on moto")


class InvariantError(FlowcoreError):
    """A promise of this library was broken. Please report it with the run and the version in the message."""

    code = "invariant"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names) or "none"
