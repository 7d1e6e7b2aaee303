"""Who may: the caller as the gateway has verified him, the scope that each route needs, whose runs he sees.

Nothing in a body, a header or a path is believed about the caller. The gateway checks the token's signature; what it
hands on is checked here once more, because a route that somebody forgot to lock there must not be open here.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Literal, TypeAlias, get_args

from flowcore.app import App
from flowcore.codec import digest
from flowcore.errors import Forbidden, RunExists, RunNotFound, Unauthenticated
from flowcore.keys import RunRef, is_name, is_run_id

Scope: TypeAlias = Literal["read", "start", "resume", "cancel", "admin"]
"""``admin`` includes the others."""
Mode: TypeAlias = Literal["none", "iam", "jwt"]
"""How callers are known: not at all (tests, or a gateway of one's own in front), signed requests, bearer tokens."""

PUBLIC = frozenset({"GET /healthz", "GET /v1/openapi.json", "GET /v1/docs"})
"""Routes that need nobody to be known."""

NEEDED: Mapping[str, Scope] = {
    "GET /v1/workflows": "read",
    "GET /v1/workflows/{workflow}": "read",
    "GET /v1/workflows/{workflow}/graph": "read",
    "POST /v1/workflows/{workflow}/runs": "start",
    "GET /v1/runs": "read",
    "GET /v1/counts": "read",
    "GET /v1/runs/{run}": "read",
    "GET /v1/runs/{run}/graph": "read",
    "GET /v1/runs/{run}/events": "read",
    "GET /v1/runs/{run}/receipts": "read",
    "POST /v1/runs/{run}/resume": "resume",
    "POST /v1/runs/{run}/delegate": "resume",
    "POST /v1/runs/{run}/cancel": "cancel",
    "GET /v1/waits": "read",
    "GET /v1/waits/{wait}": "read",
    "POST /v1/waits/{wait}/answer": "resume",
    "POST /v1/events": "resume",
}
"""What a caller's token must allow. Every other route needs ``admin``."""

_SCOPES = frozenset(get_args(Scope))
_LISTINGS = frozenset({("GET", "/v1/runs"), ("GET", "/v1/counts"), ("GET", "/v1/waits")})


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a deployment wants to know of its callers.

    Args:
        tenant_claim: the claim that names the caller's tenant; None: everybody has the runs of the App that is served.
        owner_claim: the claim that must be a run's ``resource_id``, unless the caller is an admin; None: every caller
            sees every run of his tenant.
        issuer: who must have issued the token; None: the gateway's word is enough.
        audience: for whom it must be, one of these; none: the gateway's word is enough.
    """

    mode: Mode = "none"
    tenant_claim: str | None = None
    owner_claim: str | None = None
    issuer: str | None = None
    audience: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whoever calls, as far as he is known."""

    name: str | None = None
    """A token's subject or an IAM identity; kept with what he does."""
    tenant: str
    owner: str | None = None
    """Sees only runs of this ``resource_id``; None: all of the tenant."""
    scopes: frozenset[str] = _SCOPES

    def may(self, scope: Scope) -> bool:
        """Whether his token allows it."""
        return scope in self.scopes or "admin" in self.scopes


def caller_of(policy: Policy, event: Mapping[str, Any], now: datetime, *, tenant: str) -> Caller:
    """The caller of a request; of ``tenant``, unless his token is to name another. Raises: Unauthenticated, Forbidden.

    The tenant is the served App's: who serves the App of one tenant means its runs, whoever calls.
    """
    authorizer = _authorizer(event)
    match policy.mode:
        case "none":
            return Caller(name=name_of(event), tenant=tenant)
        case "iam":
            name = _identity(authorizer)
            if name is None:
                raise Unauthenticated("This request is not signed.")
            return Caller(name=name, tenant=tenant)
        case "jwt":
            return _bearer(policy, authorizer.get("jwt") or {}, now, tenant)


def scope_of(method: str, path: str) -> Scope | None:
    """The scope that a request needs; None: it needs nobody to be known."""
    if any(fits(key, method, path) for key in PUBLIC):
        return None
    for key, scope in NEEDED.items():
        if fits(key, method, path):
            return scope
    return "admin"


def also_needed(method: str, path: str, body: object) -> Scope | None:
    """What a request needs besides, for what stands in its body: an event that may start a run starts one."""
    if (method, path) != ("POST", "/v1/events") or not body:
        return None
    value = json.loads(str(body))
    return "start" if isinstance(value, dict) and value.get("start_if_absent") is not None else None


def guarded(app: App, owner: str, method: str, path: str, event: Mapping[str, Any]) -> dict[str, Any]:
    """What of a request is to be replaced so that its caller meets his own runs only.

    Raises: RunNotFound for a run of somebody else; Forbidden for what reaches beyond one's own runs.
    """
    run_id = _run_of(path)
    if run_id is not None:
        if app.engine.peek(RunRef(app.tenant, run_id)).resource_id != owner:
            raise RunNotFound(run_id)
        return {}
    if (method, path) in _LISTINGS:
        asked = dict(event.get("queryStringParameters") or {})
        return {"queryStringParameters": {**asked, "resource_id": owner}}
    if (workflow := _started_by(method, path)) is not None:
        body = json.loads(event.get("body") or "null")
        return _own_start(app, owner, workflow, body, event) if isinstance(body, dict) else {}
    if method == "GET" and path.startswith("/v1/workflows"):
        return {}
    raise Forbidden("This reaches beyond one's own runs; it takes flowcore:admin.")


def _own_start(
    app: App, owner: str, workflow: str, body: Mapping[str, Any], event: Mapping[str, Any]
) -> dict[str, Any]:
    """A start that begins, or finds again, a run of its caller's: an id, or a key, may be somebody else's as well."""
    if body.get("resource_id") not in (None, owner):
        raise Forbidden("The token allows runs of its own resource only.")
    run_id = body.get("run_id")
    if isinstance(run_id, str) and is_run_id(run_id):
        with suppress(RunNotFound):
            if app.engine.peek(RunRef(app.tenant, run_id)).resource_id != owner:
                raise RunExists(run_id, workflow)
    headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    if is_name(key := headers.get("idempotency-key")):
        headers["idempotency-key"] = digest([owner, key])
    return {"body": json.dumps({**body, "resource_id": owner}, ensure_ascii=False), "headers": headers}


def refuse_found(owner: str, method: str, path: str, answer: Mapping[str, Any]) -> None:
    """Raise RunExists where a start has found a run of somebody else, who began it at the same moment."""
    if (workflow := _started_by(method, path)) is not None and answer["statusCode"] < HTTPStatus.BAD_REQUEST:
        run = json.loads(answer["body"])
        if run["resource_id"] != owner:
            raise RunExists(run["run_id"], workflow)


def _started_by(method: str, path: str) -> str | None:
    """The workflow that a request starts a run of."""
    match = re.fullmatch(r"/v1/workflows/([^/]+)/runs", path) if method == "POST" else None
    return None if match is None else match[1]


def _run_of(path: str) -> str | None:
    """The run that a path is about, named or in the id of a wait."""
    match = re.fullmatch(r"/v1/(runs|waits)/([^/]+)(/.*)?", path)
    if match is None:
        return None
    return match[2] if match[1] == "runs" else wait_in(match[2])[0]


def run_answered(method: str, path: str) -> str | None:
    """What a request answers, or hands on: the run, or the link to one of its waits; None for any other request."""
    if method != "POST":
        return None
    if re.fullmatch(r"/(a|cb)/[^/]+", path):
        return path
    return _run_of(path) if re.fullmatch(r"/v1/(runs/[^/]+/(resume|delegate)|waits/[^/]+/answer)", path) else None


def wait_id_of(run_id: str, wait: str) -> str:
    """One name for a wait of a run, in characters that a path takes as they are."""
    return base64.urlsafe_b64encode(json.dumps([run_id, wait]).encode()).decode().rstrip("=")


def wait_in(id: str) -> tuple[str, str]:
    """The run and the wait of such a name. Raises: RunNotFound."""
    try:
        run_id, wait = json.loads(base64.urlsafe_b64decode(id + "=" * (-len(id) % 4)))
    except (ValueError, TypeError, RecursionError):
        raise RunNotFound(id[:100]) from None
    if not isinstance(run_id, str) or not isinstance(wait, str) or not is_run_id(run_id) or not is_name(wait):
        raise RunNotFound(id[:100])
    return run_id, wait


def _bearer(policy: Policy, jwt: Mapping[str, Any], now: datetime, tenant: str) -> Caller:
    claims = jwt.get("claims") or {}
    subject = claims.get("sub")
    if not isinstance(subject, str) or not is_name(subject):
        raise Unauthenticated("There is no token, or nobody is named in it.")
    if _seconds(claims.get("exp")) is not None and (_seconds(claims.get("exp")) or 0) <= now.timestamp():
        raise Unauthenticated("The token has expired.")
    if policy.issuer is not None and claims.get("iss") != policy.issuer:
        raise Unauthenticated("The token was issued by somebody else.")
    if policy.audience and not set(policy.audience) & set(_listed(claims.get("aud") or claims.get("client_id"))):
        raise Unauthenticated("The token is for somebody else.")
    scopes = _granted(jwt.get("scopes") or _listed(claims.get("scope")))
    return Caller(
        name=subject,
        tenant=tenant if policy.tenant_claim is None else _tenant(policy.tenant_claim, claims),
        owner=None if "admin" in scopes else _owner(policy, claims),
        scopes=scopes,
    )


def _tenant(claim: str, claims: Mapping[str, Any]) -> str:
    tenant = claims.get(claim)
    if not isinstance(tenant, str) or not is_run_id(tenant):
        raise Forbidden("The token names no tenant.")
    return tenant


def _owner(policy: Policy, claims: Mapping[str, Any]) -> str | None:
    if policy.owner_claim is None:
        return None
    owner = claims.get(policy.owner_claim)
    if not isinstance(owner, str) or not is_name(owner):
        raise Forbidden("The token names no owner.")
    return owner


def _granted(scopes: Iterable[str]) -> frozenset[str]:
    """Ours among a token's scopes: ``flowcore:start``, or ``flowcore/start`` as some issuers have to write it."""
    found = (re.fullmatch(r"flowcore[:/](\w+)", scope) for scope in scopes)
    return frozenset(match[1] for match in found if match is not None and match[1] in _SCOPES)


def name_of(event: Mapping[str, Any]) -> str | None:
    """Whom the gateway has found: a token's subject, or an IAM identity; None where it knows nobody."""
    authorizer = _authorizer(event)
    subject = ((authorizer.get("jwt") or {}).get("claims") or {}).get("sub")
    return subject if isinstance(subject, str) and is_name(subject) else _identity(authorizer)


def _authorizer(event: Mapping[str, Any]) -> Mapping[str, Any]:
    return (event.get("requestContext") or {}).get("authorizer") or {}


def _identity(authorizer: Mapping[str, Any]) -> str | None:
    name = (authorizer.get("iam") or {}).get("userArn")
    return name if isinstance(name, str) and is_name(name) else None


def _listed(value: Any) -> list[str]:
    """A claim that is one text, several in a list, or several in one text: ``a b``, ``[a b]``."""
    if isinstance(value, str):
        return value.strip("[]").replace(",", " ").split()
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _seconds(value: Any) -> float | None:
    try:
        return datetime.fromtimestamp(float(value), UTC).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def fits(key: str, method: str, path: str) -> bool:
    """Whether a request is one of a route, as ``GET /v1/runs/{run}`` names it."""
    wanted, _, pattern = key.partition(" ")
    shape = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(pattern))
    return wanted == method and re.fullmatch(shape, path) is not None
