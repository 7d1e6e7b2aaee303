"""Where a request of ours may go: every way to name this deployment's own network that we have heard of is refused."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import urllib3.util.connection
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from standardwebhooks import Webhook

from flowcore.adapters.egress import Delivered, Refused, Sender
from flowcore.cloudevents import MOST_BYTES, CloudEvent, fitting
from flowcore.codec import dumps
from flowcore.egress import Target, Uncallable, is_public, judged, target_of
from flowcore.errors import MalformedRequest, SettingsError
from flowcore.keys import LONGEST_NAME
from flowcore.outgoing import MOST_OF_A_LETTER, Outgoing, decode_letter, encode_letter, letter, pause_after
from flowcore.webhooks import StandardWebhooks

SECRET = "whsec_" + "QUJD" * 8
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

HOSTILE = {
    "plain http": "http://hooks.example.com/x",
    "another scheme": "gopher://hooks.example.com/",
    "a file": "file:///etc/passwd",
    "no scheme": "hooks.example.com/x",
    "the scheme in capitals": "HTTPS://hooks.example.com/",
    "the loopback": "https://127.0.0.1/",
    "the whole of the loopback": "https://127.8.9.10/",
    "localhost": "https://localhost/",
    "localhost with a dot": "https://localhost./",
    "one label": "https://metadata/",
    "the metadata service": "https://169.254.169.254/latest/meta-data/",
    "credentials of containers": "https://169.254.170.2/v2/credentials",
    "a private network": "https://10.0.0.5/",
    "another": "https://192.168.1.1/",
    "a third": "https://172.16.0.1/",
    "a carrier's": "https://100.64.0.1/",
    "the unspecified": "https://0.0.0.0/",
    "broadcast": "https://255.255.255.255/",
    "multicast": "https://224.0.0.1/",
    "reserved": "https://240.0.0.1/",
    "benchmarks": "https://198.18.0.1/",
    "one decimal number": "https://2130706433/",
    "one hexadecimal number": "https://0x7f000001/",
    "one octal number": "https://017700000001/",
    "hexadecimal parts": "https://0x7f.0x0.0x0.0x1/",
    "two parts": "https://0x7f.1/",
    "the same in decimal": "https://127.1/",
    "three parts": "https://127.0.1/",
    "octal parts": "https://0177.0.0.1/",
    "leading zeros": "https://127.000.000.001/",
    "a name that ends in a number": "https://example.1/",
    "full-width digits": "https://\uff11\uff12\uff17.0.0.1/",
    "circled letters": "https://\u24d4xample.com/",
    "another full stop": "https://127\u30020\u30020\u30021/",
    "an escaped host": "https://%31%32%37.0.0.1/",
    "IPv6 loopback": "https://[::1]/",
    "IPv6 unspecified": "https://[::]/",
    "IPv4 in IPv6": "https://[::ffff:127.0.0.1]/",
    "the same in hexadecimal": "https://[::ffff:7f00:1]/",
    "a public IPv4 in IPv6": "https://[::ffff:93.184.216.34]/",
    "IPv4-compatible": "https://[::127.0.0.1]/",
    "translated": "https://[64:ff9b::7f00:1]/",
    "6to4": "https://[2002:7f00:1::]/",
    "Teredo": "https://[2001::1]/",
    "unique local": "https://[fd00:ec2::254]/",
    "link-local": "https://[fe80::1]/",
    "link-local with a zone": "https://[fe80::1%25eth0]/",
    "site-local": "https://[fec0::1]/",
    "IPv6 multicast": "https://[ff02::1]/",
    "documentation": "https://[2001:db8::1]/",
    "a user": "https://hooks.example.com@127.0.0.1/",
    "a user that looks like a host": "https://127.0.0.1@hooks.example.com/",
    "a backslash": "https://hooks.example.com\\@127.0.0.1/",
    "a fragment": "https://hooks.example.com#@127.0.0.1/",
    "a blank": "https://hooks.example.com /",
    "a line break": "https://hooks.example.com/\r\nHost: 127.0.0.1",
    "a tab": "https://hooks.exa\tmple.com/",
    "a NUL": "https://hooks.example.com\0.evil.com/",
    "another port": "https://hooks.example.com:22/",
    "the port of a database": "https://hooks.example.com:6379/",
    "a port that is none": "https://hooks.example.com:99999/",
    "port 0": "https://hooks.example.com:0/",
    "an empty port": "https://hooks.example.com:/",
    "no host": "https:///x",
    "an empty label": "https://hooks..example.com/",
    "a bracket too few": "https://[::1/",
    "endless": "https://hooks.example.com/" + "x" * 3_000,
    "empty": "",
}


@pytest.mark.parametrize("url", HOSTILE.values(), ids=HOSTILE)
def test_hostile_url_is_refused_where_it_is_written(url: str) -> None:
    """The author is told at once, and no request is ever made."""
    with pytest.raises(SettingsError, match="cannot be called"):
        target_of(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://hooks.example.com/x?y=1", ("hooks.example.com", 443, "/x?y=1", "hooks.example.com")),
        ("https://Hooks.Example.com", ("hooks.example.com", 443, "/", "hooks.example.com")),
        ("https://hooks.example.com:8443/", ("hooks.example.com", 8443, "/", "hooks.example.com:8443")),
        ("https://93.184.216.34/", ("93.184.216.34", 443, "/", "93.184.216.34")),
        ("https://[2606:4700::1111]/", ("2606:4700::1111", 443, "/", "[2606:4700::1111]")),
        ("https://xn--exmple-cua.com/", ("xn--exmple-cua.com", 443, "/", "xn--exmple-cua.com")),
    ],
)
def test_plain_url_is_what_it_looks_like(url: str, expected: Any) -> None:
    """Names, addresses in their usual form, two ports."""
    target = target_of(url)
    assert expected == (target.host, target.port, target.path, target.authority)


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://localhost:9000/x", True),
        ("http://127.0.0.1/", True),
        ("https://[::1]:1/", True),
        ("http://hooks.example.com/", None),
        ("http://169.254.169.254/", None),
        ("http://127.1/", None),
        ("https://hooks.example.com/", False),
    ],
)
def test_this_machine_is_called_only_where_that_was_allowed(url: str, local: bool | None) -> None:
    """And nothing else is allowed with it."""
    if local is None:
        with pytest.raises(SettingsError):
            target_of(url, allow_local=True)
    else:
        assert local is target_of(url, allow_local=True).local


PUBLIC = target_of("https://hooks.example.com/x")
LOCAL = target_of("http://localhost:80/", allow_local=True)


@pytest.mark.parametrize(
    "found",
    [
        ["127.0.0.1"],
        ["169.254.169.254"],
        ["93.184.216.34", "10.0.0.1"],
        ["::1"],
        ["fe80::1%eth0"],
        ["::ffff:169.254.169.254"],
        ["64:ff9b::a9fe:a9fe"],
        ["2002:a9fe:a9fe::"],
        ["fd00:ec2::254"],
        ["0.0.0.0"],  # noqa: S104  # nobody listens there
        ["192.0.0.8"],
        ["192.88.99.1"],
        ["3fff::1"],
        [],
    ],
)
def test_name_that_turns_out_to_be_ours_is_not_called(found: list[str]) -> None:
    """Nor one of which only one address is."""
    with pytest.raises(Uncallable):
        judged(PUBLIC, found)


def test_name_that_was_allowed_to_be_local_has_to_be() -> None:
    """A name in the hosts file may say anything."""
    assert ["127.0.0.1"] == judged(LOCAL, ["127.0.0.1"])
    with pytest.raises(Uncallable):
        judged(LOCAL, ["10.0.0.1"])


def test_public_addresses_are_called() -> None:
    """Of both kinds."""
    assert ["93.184.216.34", "2606:4700::1111"] == judged(PUBLIC, ["93.184.216.34", "2606:4700::1111"])
    assert is_public(ip_address("8.8.8.8"))


# -- over the wire ----------------------------------------------------------------------------------------------------


class Stranger(BaseHTTPRequestHandler):
    """Answers as the test says, and remembers what came."""

    status = 204
    location = ""
    said = b""
    seen: list[tuple[str, dict[str, str], bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.status)
        if self.location:
            self.send_header("location", self.location)
        self.send_header("content-length", str(len(self.said)))
        self.end_headers()
        self.wfile.write(self.said)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@contextmanager
def stranger(context: ssl.SSLContext | None = None, **answer: Any) -> Iterator[tuple[int, Any]]:
    """A server on this machine: its port, and what it has seen."""
    kind = type("One", (Stranger,), {**answer, "seen": []})
    server = HTTPServer(("127.0.0.1", 0), kind)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1], kind.seen  # type: ignore[attr-defined]  # given above
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def local(port: int) -> Target:
    """A target on this machine."""
    return target_of(f"http://localhost:{port}/hook?x=1", allow_local=True)


def loopback(_host: str, _port: int) -> Sequence[str]:
    """Every name is this machine."""
    return ["127.0.0.1"]


def test_letter_is_posted_under_the_name_that_was_written() -> None:
    """To the address that was judged."""
    with stranger() as (port, seen):
        assert Delivered(204) == Sender(loopback).post(local(port), {"x-y": "1"}, b"{}")
    ((path, headers, body),) = seen
    assert ("/hook?x=1", f"localhost:{port}", "1", b"{}") == (path, headers["host"], headers["x-y"], body)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_to_the_metadata_service_is_not_followed(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an answer like any other that is not 2xx; nobody else is called."""
    called = watched_connections(monkeypatch)
    with stranger(status=status, location="http://169.254.169.254/latest/meta-data/") as (port, seen):
        came = Sender(loopback).post(local(port), {}, b"{}")
    assert isinstance(came, Refused)
    assert f"answered {status} (a redirect, which is not followed)" in came.reason
    assert ([("127.0.0.1", port)], 1) == (called, len(seen))


def test_no_more_than_a_little_of_an_answer_is_read() -> None:
    """A receiver cannot fill our memory."""
    with stranger(status=500, said=b"x" * 5_000_000) as (port, _):
        came = Sender(loopback).post(local(port), {}, b"{}")
    assert isinstance(came, Refused)
    assert len(came.reason) < 300


def test_receiver_that_is_not_there_refuses() -> None:
    """Whatever is wrong with him is no fault of ours."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        assert isinstance(Sender(loopback).post(local(port), {}, b"{}"), Refused)

    def nowhere(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror("no such name")

    assert "cannot be resolved" in str(Sender(nowhere).post(PUBLIC, {}, b"{}"))


def test_next_address_is_tried_where_nobody_can_be_reached_at_the_first() -> None:
    """A network may have no way to one of them; a receiver that was reached is not asked twice."""
    with stranger() as (port, seen):
        assert Delivered(204) == Sender(lambda *_: ["127.0.0.2", "127.0.0.1"]).post(local(port), {}, b"{}")
    with stranger(status=500) as (port, seen):
        assert isinstance(Sender(lambda *_: ["127.0.0.1", "127.0.0.1"]).post(local(port), {}, b"{}"), Refused)
    assert 1 == len(seen)


def watched_connections(monkeypatch: pytest.MonkeyPatch, to: tuple[str, int] | None = None) -> list[tuple[str, int]]:
    """Where urllib3 connects to; with ``to`` it gets there instead, as if the internet were this machine."""
    called: list[tuple[str, int]] = []
    real = urllib3.util.connection.create_connection

    def connect(address: tuple[str, int], *rest: Any, **options: Any) -> socket.socket:
        called.append(address)
        return real(to or address, *rest, **options)

    monkeypatch.setattr(urllib3.util.connection, "create_connection", connect)
    return called


def test_name_that_resolves_to_something_else_a_moment_later_gains_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is resolved once; the address that was judged is called, under the certificate of the name."""
    answers = iter([["93.184.216.34"], ["127.0.0.1"], ["127.0.0.1"]])
    asked: list[str] = []

    def rebinding(host: str, _port: int) -> Sequence[str]:
        asked.append(host)
        return next(answers)

    server, client = certified("hooks.example.com", tmp_path)
    with stranger(server) as (port, seen):
        called = watched_connections(monkeypatch, ("127.0.0.1", port))
        sender = Sender(rebinding, client)
        assert Delivered(204) == sender.post(PUBLIC, {}, b"{}")
        assert ([("93.184.216.34", 443)], ["hooks.example.com"]) == (called, asked)
        assert "hooks.example.com" == seen[0][1]["host"]
        assert "not in the public internet" in str(sender.post(PUBLIC, {}, b"{}"))
        assert 1 == len(called)


def test_certificate_of_another_name_is_not_believed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever stands at the address has to be whom the author has named; what nobody vouches for neither."""
    server, client = certified("somebody.example.com", tmp_path)
    with stranger(server) as (port, seen):
        watched_connections(monkeypatch, ("127.0.0.1", port))
        for sender in (Sender(lambda *_: ["93.184.216.34"], client), Sender(lambda *_: ["93.184.216.34"])):
            assert "SSLError" in str(sender.post(PUBLIC, {}, b"{}"))
    assert [] == seen


def certified(name: str, folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's side of a certificate for ``name``, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    written = folder / f"{name}.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    written.write_bytes(pem + secret)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(written)
    return server, ssl.create_default_context(cadata=pem.decode())


# -- letters ----------------------------------------------------------------------------------------------------------

EVENT = CloudEvent(
    id="r-1/1/2/run-success", source="/flowcore/default/w", kind="run-success", subject="r-1", time=NOON, data={"x": 1}
)
LEDGER = Outgoing(name="ledger", url="https://ledger.example.com/x", secret="env:LEDGER")


def test_letter_is_signed_as_standard_webhooks_says() -> None:
    """Their own library takes it, and so does ours; under each of the secrets, anew at each try."""
    sent = letter(LEDGER, EVENT)
    now = datetime.now(UTC)
    headers = dict(sent.headers(now, [SECRET, "whsec_" + "REVG" * 8]))
    assert EVENT.plain() == Webhook(SECRET).verify(sent.body, headers)
    assert sent.id == StandardWebhooks().verify(headers, sent.body.encode(), now, ["whsec_" + "REVG" * 8])
    later = sent.headers(now + timedelta(hours=1), [SECRET])
    assert (headers["webhook-id"], True) == (later["webhook-id"], later["webhook-signature"] not in headers.values())


def test_letter_survives_its_queue() -> None:
    """What is no letter is refused."""
    sent = letter(LEDGER, EVENT)
    assert sent == decode_letter(encode_letter(sent))
    for message in ("{", "[]", '{"v": 2, "to": "x", "id": "y", "body": "z"}', '{"v": 1}'):
        with pytest.raises(MalformedRequest):
            decode_letter(message)


def test_letter_is_of_characters_that_a_queue_takes() -> None:
    """Values of runs may hold any character that JSON may; SQS takes those of XML."""
    values = "".join(map(chr, range(0xD800))) + "".join(map(chr, range(0xE000, 0x11000))) + "\U0001f600\U0010ffff"
    sent = letter(LEDGER, replace(EVENT, data={"x": values}))
    message = encode_letter(sent)
    assert re.fullmatch("[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*", message)
    assert sent == decode_letter(message)


@pytest.mark.parametrize("filler", ["x", "ä", "\uffff", '"', "\\", "\x01", "\U0001f600"])
def test_letter_with_the_most_of_values_fits_into_its_queue(filler: str) -> None:
    """Whatever they consist of: what is escaped in the letter is escaped once more in its message."""
    each = len(dumps(filler).encode()) - 2
    value = filler * ((MOST_BYTES - 2) // each)
    data = {**fitting({"output": lambda: value}), "tags": ["\\" * 64] * 10, "resource_id": "\\" * LONGEST_NAME}
    assert value == data["output"]
    assert len(encode_letter(letter(LEDGER, replace(EVENT, data=data))).encode()) < MOST_OF_A_LETTER


def test_pause_between_tries_grows_to_six_hours() -> None:
    """Within what SQS can hide a message; chance shortens it by a fifth at most."""
    pauses = [pause_after(tries, 0.0) for tries in range(1, 15)]
    assert [15, 30, 60] == [pause.total_seconds() for pause in pauses[:3]]
    assert timedelta(hours=6) == pauses[-1] == pause_after(10_000, 0.0)
    assert timedelta(seconds=12) < pause_after(1, 0.99) < timedelta(seconds=15)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"name": "a b"}, "cannot name"),
        ({"secret": SECRET}, "names no place"),
        ({"url": "https://169.254.169.254/"}, "public internet"),
        ({"events": ["run-done"]}, "'run-done'"),
    ],
)
def test_receiver_that_cannot_be_meant_is_refused(wrong: dict[str, Any], complaint: str) -> None:
    """Where it is written, and without a secret in the message."""
    given: dict[str, Any] = {"name": "l", "url": "https://l.example.com/", "secret": "env:L", **wrong}
    with pytest.raises(SettingsError, match=complaint) as refused:
        Outgoing(**given)
    assert SECRET not in str(refused.value)
