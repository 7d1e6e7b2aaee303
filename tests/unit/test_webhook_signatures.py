"""Signatures of webhooks agree with those who sign: recorded vectors of each, and the library of Standard Webhooks.

Each vector is what the sender's own documentation or library (stripe 16.1, slack-sdk) gives for these bytes.
"""

import ast
import base64
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from flowcore import webhooks
from flowcore.errors import BadSignature, SettingsError
from flowcore.webhooks import GitHub, Hmac, Scheme, Slack, StandardWebhooks, Stripe, sign

STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
STRIPE_SECRET = "whsec_recorded_for_a_test"
STRIPE_BODY = (
    b'{"id":"evt_1NG8Du2eZvKYlo2CUI79vXWy","object":"event","type":"payment_intent.succeeded",'
    b'"data":{"object":{"id":"pi_3MtwBwLkdIwHu7ix28a3tqPa","metadata":{"order":"o-1"}}}}'
)
SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar"
    b"&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com"
    b"%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121"
    b".803a0bc887a14d10d2c447fce8b6703c"
)


@dataclass(frozen=True)
class Vector:
    """One delivery as its sender signed it."""

    scheme: Scheme
    secret: str
    headers: Mapping[str, str]
    body: bytes
    at: datetime
    id: str
    signed: str
    """The header that holds the signature."""

    def verified(self, *, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> str:
        """The delivery's id, as it was signed or changed on its way."""
        given = self.headers if headers is None else headers
        return self.scheme.verify(given, self.body if body is None else body, self.at, [self.secret])


VECTORS = {
    "standard": Vector(
        scheme=StandardWebhooks(),
        secret=STANDARD_SECRET,
        headers={
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        },
        body=b'{"test": 2432232314}',
        at=datetime.fromtimestamp(1614265330, UTC),
        id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        signed="webhook-signature",
    ),
    "stripe": Vector(
        scheme=Stripe(),
        secret=STRIPE_SECRET,
        headers={
            "stripe-signature": "t=1767268800,v1=62b5a8f91b935d9c360f1b72541e0cf52690e094a24d28316b1abc97845dc695"
        },
        body=STRIPE_BODY,
        at=datetime.fromtimestamp(1767268800, UTC),
        id="evt_1NG8Du2eZvKYlo2CUI79vXWy",
        signed="stripe-signature",
    ),
    "github": Vector(
        scheme=GitHub(),
        secret="It's a Secret to Everybody",
        headers={"x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"},
        body=b"Hello, World!",
        at=datetime(2026, 1, 1, tzinfo=UTC),
        id="dffd6021bb2bd5b0af676290809ec3a53191dd81",
        signed="x-hub-signature-256",
    ),
    "slack": Vector(
        scheme=Slack(),
        secret="8f742231b10e8888abcd99yyyzzz85a5",
        headers={
            "x-slack-request-timestamp": "1531420618",
            "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
        },
        body=SLACK_BODY,
        at=datetime.fromtimestamp(1531420618, UTC),
        id="390eeeff8d0cb7c9f6ecf8a88c3df6452fea0914",
        signed="x-slack-signature",
    ),
}
each = pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS)
timed = pytest.mark.parametrize("vector", [v for name, v in VECTORS.items() if name != "github"])


@each
def test_recorded_delivery_is_accepted(vector: Vector) -> None:
    """What the sender signed is what we verify, and it is named by something that is signed."""
    assert vector.id == vector.verified()


@each
def test_delivery_with_any_byte_changed_is_refused(vector: Vector) -> None:
    """Of the body, or of the signature."""
    bodies = [vector.body[:i] + bytes([vector.body[i] ^ 1]) + vector.body[i + 1 :] for i in range(len(vector.body))]
    mark = vector.headers[vector.signed]
    marks = [mark[:i] + wrong + mark[i + 1 :] for i in range(len(mark)) for wrong in "0AQZz/=" if wrong != mark[i]]
    assert [] == [body for body in bodies if _passes(partial(vector.verified, body=body))]
    forged = [{**vector.headers, vector.signed: one} for one in marks]
    assert [] == [one for one in forged if _passes(partial(vector.verified, headers=one))]


@each
@pytest.mark.parametrize("mark", ["", "v1,", "v0=", "sha256=", "t=,v1=", "\u00e9", "v1," + "A" * 10_000])
def test_nonsense_for_a_signature_is_refused(vector: Vector, mark: str) -> None:
    """Whatever stands there."""
    with pytest.raises(BadSignature):
        vector.verified(headers={**vector.headers, vector.signed: mark})


@each
def test_missing_header_is_refused(vector: Vector) -> None:
    """Each of them is needed."""
    for name in vector.headers:
        with pytest.raises(BadSignature):
            vector.verified(headers={n: v for n, v in vector.headers.items() if n != name})


@timed
@pytest.mark.parametrize("seconds", [-301, 301])
def test_delivery_out_of_its_time_is_refused(vector: Vector, seconds: int) -> None:
    """A stolen delivery is good for five minutes, and so is one from a clock that is ahead."""
    with pytest.raises(BadSignature) as refused:
        vector.scheme.verify(vector.headers, vector.body, vector.at + timedelta(seconds=seconds), [vector.secret])
    assert "300 seconds" in refused.value.reason
    assert vector.scheme.verify(
        vector.headers, vector.body, vector.at + timedelta(seconds=300 if seconds > 0 else -300), [vector.secret]
    )


@timed
@pytest.mark.parametrize("sent", ["-1", "1e9", "\u0661", "9" * 30, "253402300800", " 1", ""])
def test_time_that_is_none_is_refused(vector: Vector, sent: str) -> None:
    """Before anything is made of it."""
    there = next(name for name in vector.headers if "timestamp" in name or name == "stripe-signature")
    headers = {**vector.headers, there: f"t={sent},v1=00" if there == "stripe-signature" else sent}
    with pytest.raises(BadSignature):
        vector.verified(headers=headers)


@each
def test_any_of_several_secrets_is_enough(vector: Vector) -> None:
    """While a secret is being changed, both are good; none of them is not."""
    other = "whsec_" + "QUJD" * 8
    assert vector.scheme.verify(vector.headers, vector.body, vector.at, [other, vector.secret])
    for secrets in ([], [""], [other]):
        with pytest.raises(BadSignature):
            vector.scheme.verify(vector.headers, vector.body, vector.at, secrets)


def test_delivery_that_is_sent_again_has_the_same_id() -> None:
    """Stripe signs each try anew; what it is about stays."""
    later = "t=1767268900,v1=" + _hmac(STRIPE_SECRET.encode(), b"1767268900." + STRIPE_BODY)
    at = datetime.fromtimestamp(1767268900, UTC)
    assert VECTORS["stripe"].id == Stripe().verify({"stripe-signature": later}, STRIPE_BODY, at, [STRIPE_SECRET])


def test_standard_webhook_of_the_library_is_accepted_here_and_ours_there() -> None:
    """Signed there, verified here; signed here with two keys, verified there with the second."""
    now = datetime.now(UTC).replace(microsecond=0)
    theirs = Webhook(STANDARD_SECRET).sign("msg_1", now, "{}")
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": f"v1a,nonsense {theirs}",
    }
    assert "msg_1" == StandardWebhooks().verify(headers, b"{}", now, [STANDARD_SECRET])
    ours = sign("msg_2", b'{"a": 1}', now, ["whsec_" + "QUJD" * 8, STANDARD_SECRET])
    assert {"a": 1} == Webhook(STANDARD_SECRET).verify('{"a": 1}', ours)


def test_secret_that_is_not_base64_is_a_mistake_of_the_deployment() -> None:
    """Told as such, without the secret."""
    with pytest.raises(SettingsError, match="not base64") as refused:
        StandardWebhooks().verify(VECTORS["standard"].headers, b"", VECTORS["standard"].at, ["whsec_!secret!"])
    assert "!secret!" not in str(refused.value)


CUSTOM: list[tuple[Hmac, Sequence[str], bytes]] = [
    (Hmac(header="X-Mark"), ["x-mark"], b"body"),
    (Hmac(header="X-Mark", prefix="sig=", encoding="base64", algorithm="sha512"), ["x-mark"], b"body"),
    (Hmac(header="X-Mark", time_header="X-Time"), ["x-mark", "x-time"], b"1700000000.body"),
    (
        Hmac(header="X-Mark", time_header="X-Time", id_header="X-Id"),
        ["x-mark", "x-time", "x-id"],
        b"d.1700000000.body",
    ),
]


@pytest.mark.parametrize(("scheme", "names", "signed"), CUSTOM)
def test_signature_of_ones_own_is_verified(scheme: Hmac, names: Sequence[str], signed: bytes) -> None:
    """Over id, time and body, as far as there are headers for them."""
    raw = hmac.digest(b"secret", signed, scheme.algorithm)
    mark = scheme.prefix + (raw.hex() if scheme.encoding == "hex" else base64.b64encode(raw).decode())
    headers = {name: {"x-mark": mark, "x-time": "1700000000", "x-id": "d"}[name] for name in names}
    at = datetime.fromtimestamp(1700000000, UTC)
    id = scheme.verify(headers, b"body", at, ["old", "secret"])
    assert ("d" if "x-id" in names else id) == id
    with pytest.raises(BadSignature):
        scheme.verify(headers, b"bodY", at, ["secret"])
    for name in names:
        with pytest.raises(BadSignature):
            scheme.verify({**headers, name: headers[name] + "0"}, b"body", at, ["secret"])


def test_nothing_secret_is_compared_with_equals() -> None:
    """``==`` stops at the first byte that differs, and tells by its time how far it came."""
    tree = ast.parse(Path(webhooks.__file__).read_text("utf-8"))
    found = [
        f"line {node.lineno} in {function.name}"
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and function.name != "_is_plain"
        for node in ast.walk(function)
        if isinstance(node, ast.Compare)
        and any(isinstance(op, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for op in node.ops)
        and not (isinstance(node.left, ast.Attribute) and node.left.attr == "encoding")
    ]
    assert [] == found


def _passes(verify: Callable[[], str]) -> bool:
    try:
        verify()
    except BadSignature:
        return False
    return True


def _hmac(key: bytes, signed: bytes) -> str:
    return hmac.digest(key, signed, "sha256").hex()
