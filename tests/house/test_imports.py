"""Who may know whom: the picture is data, and the syntax tree of every module is held against it.

Each rule is a row; `violations` applies them all to one module's source, so a rule can be tried on planted source as
well as on the tree. Imports inside functions and under `if TYPE_CHECKING:` count: a type is knowledge too.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A row knows itself and the rows above it. A room that stands nowhere is an error, so a new module has to be placed.
# "flowcore" is the package's own __init__: it offers what a user writes workflows with, hence no adapters.
LAYERS = (
    ("flowcore.errors", "flowcore.keys", "flowcore.pmap", "flowcore.parcels"),
    ("flowcore.model",),
    ("flowcore.codec", "flowcore.ports", "flowcore.migrations", "flowcore.strict"),
    ("flowcore.authoring", "flowcore.core"),
    (
        *(
            "flowcore.failures",
            "flowcore.sources",
            "flowcore.terms",
            "flowcore.options",
            "flowcore.contexts",
            "flowcore.runner",
            "flowcore.crew",
            "flowcore.tries",
        ),
        *(
            "flowcore.fanout",
            "flowcore.beats",
            "flowcore.handing_out",
            "flowcore.hints",
            "flowcore.hold",
            "flowcore.hooks",
            "flowcore.mailbox",
            "flowcore.receipts",
        ),
        *("flowcore.tracing", "flowcore.spans", "flowcore.fields", "flowcore.redrive", "flowcore.delegation"),
        *(
            "flowcore.renewal",
            "flowcore.webhooks",
            "flowcore.deliveries",
            "flowcore.delivery_log",
            "flowcore.answering",
            "flowcore.arrivals",
            "flowcore.buses",
        ),
        *(
            "flowcore.cloudevents",
            "flowcore.egress",
            "flowcore.outgoing",
            "flowcore.publishing",
            "flowcore.step_events",
        ),
        *("flowcore.pace", "flowcore.notices", "flowcore.ledger", "flowcore.views", "flowcore.underway"),
        *("flowcore.session", "flowcore.engine", "flowcore.operating", "flowcore.results", "flowcore.run"),
        *("flowcore.starting", "flowcore.app", "flowcore"),
    ),
    (
        *("flowcore.settings", "flowcore.links", "flowcore.inbox", "flowcore.messages", "flowcore.intake"),
        *("flowcore.http", "flowcore.client", "flowcore.console", "flowcore.cli", "flowcore.ops"),
    ),
    ("flowcore.adapters", "flowcore.testing"),
    ("handlers", "infra"),
)
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}

# The one way against the picture: an App without ports is its own composition root, so that a script works at once.
# It may know what makes a process without AWS, and imports that inside App.__init__, where nobody else pays for it.
COMPOSITION = {"flowcore.app": ("flowcore.adapters.memory", "flowcore.adapters.system", "flowcore.adapters.roomy")}

# Who copies heads and records, parts of which may lie elsewhere: dataclasses.replace would fetch them all.
COPIES = (
    "flowcore.core",
    "flowcore.answering",
    "flowcore.engine",
    "flowcore.session",
    "flowcore.ledger",
    "flowcore.views",
    "flowcore.underway",
    "flowcore.notices",
    "flowcore.hooks",
    "flowcore.operating",
    "flowcore.redrive",
    "flowcore.renewal",
)
PLAIN_COPIES = ("flowcore.core.receipts", "flowcore.core.rename")

# What only some may import: (the name, the rooms that may, why).
RESERVED = (
    ("boto3", ("flowcore.adapters", "handlers.bootstrap", "infra"), "AWS is spoken to in the adapters"),
    ("botocore", ("flowcore.adapters", "handlers.bootstrap", "infra"), "AWS is spoken to in the adapters"),
    ("opentelemetry", ("flowcore.adapters.otel",), "tracing systems are spoken to in one adapter"),
    ("aws_lambda_powertools", ("flowcore.http", "handlers"), "Powertools belongs to the edge"),
    (
        "httpx",
        ("flowcore.client", "flowcore.adapters.sigv4", "flowcore.testing.served"),
        "httpx comes with the client, an extra",
    ),
    ("handlers", ("handlers",), "an entry point is started by Lambda, never imported"),
    ("os.environ", ("flowcore.settings", "infra"), "settings.py alone reads the environment"),
    ("os.environb", ("flowcore.settings", "infra"), "settings.py alone reads the environment"),
    ("os.getenv", ("flowcore.settings", "infra"), "settings.py alone reads the environment"),
)

# core/ is pure: of ours it knows these; of Python the standard library without what brings in IO, time or chance.
CORE_KNOWS = (
    *("flowcore.errors", "flowcore.keys", "flowcore.pmap", "flowcore.parcels", "flowcore.model"),
    *("flowcore.authoring.graph", "flowcore.core"),
)
IMPURE = frozenset({"asyncio", "logging", "os", "random", "secrets", "socket", "threading", "time", "uuid"})
CLOCK_READS = frozenset({"datetime.now", "datetime.utcnow", "datetime.today", "date.today"})


def is_in(name: str, room: str) -> bool:
    """Whether a dotted name is the room or lies inside it; the package's __init__ holds nothing but itself."""
    return name == room or (room != "flowcore" and name.startswith(room + "."))


def room_of(name: str) -> str | None:
    """The room a dotted name of ours stands in."""
    return next((room for room in RANK if is_in(name, room)), None)


def references(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every dotted name a module imports or reads from an imported package, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            if owner in {"os", "datetime", "date"}:
                yield node.lineno, f"{owner}.{node.attr}"


def target_of(name: str) -> str:
    """The module behind an imported name: `flowcore.App` is the package itself, `flowcore.model.Run` is the model."""
    return name if room_of(name) or not name.startswith("flowcore.") or is_module(name) else "flowcore"


def is_module(name: str) -> bool:
    """Whether the checkout has a file for a dotted name."""
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def violations(module: str, source: str) -> list[str]:
    """What a module's source does against the picture, one sentence each."""
    room = room_of(module)
    if room is None:
        return [f"{module}: stands in no layer; place it in LAYERS"]
    found = []
    for line, name in references(ast.parse(source)):
        where = f"{module}:{line}: {name!r}: "
        top, target = name.partition(".")[0], target_of(name)
        if name.startswith("."):
            found.append(where + "imports are absolute")
        if top in {"flowcore", "handlers", "infra"}:
            knows = room_of(target)
            if knows is None:
                found.append(where + "stands in no layer; place it in LAYERS")
            elif RANK[knows] > RANK[room] and not any(is_in(name, root) for root in COMPOSITION.get(module, ())):
                found.append(where + f"{room} stands left of {knows} and may not know it")
        found += [
            where + why
            for reserved, rooms, why in RESERVED
            if is_in(name, reserved) and not any(is_in(module, allowed) for allowed in rooms)
        ]
        if name == "dataclasses.replace" and module not in PLAIN_COPIES and any(is_in(module, r) for r in COPIES):
            found.append(where + "heads and records are copied by flowcore.parcels.replace, which fetches nothing")
        if room == "flowcore.core" and not is_pure(name):
            found.append(where + "core/ is pure")
    return found


def is_pure(name: str) -> bool:
    """Whether core/ may know a name."""
    top = name.partition(".")[0]
    if top == "flowcore":
        return any(is_in(name, room) for room in CORE_KNOWS)
    return top in sys.stdlib_module_names | {"date"} and top not in IMPURE and name not in CLOCK_READS


def our_modules() -> dict[str, str]:
    """The source of each module of ours by its dotted name."""
    paths = sorted(path for top in ("flowcore", "handlers", "infra") for path in (ROOT / top).rglob("*.py"))
    parts = [(path, path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    return {".".join(p[:-1] if p[-1] == "__init__" else p): path.read_text("utf-8") for path, p in parts}


def test_no_module_knows_what_it_should_not() -> None:
    """The checkout agrees with the picture."""
    assert [] == [sentence for module, source in our_modules().items() for sentence in violations(module, source)]


PLANTED = (
    ("flowcore.gadget", "", "stands in no layer"),
    ("flowcore.model", "from flowcore.ports import Store", "may not know"),
    ("flowcore.engine", "import flowcore.adapters.dynamodb", "may not know"),
    ("flowcore.engine", "from flowcore.adapters.memory import MemoryStore", "may not know"),
    ("flowcore.app", "from flowcore.adapters.dynamodb import DynamoStore", "may not know"),
    ("flowcore.authoring.step", "from flowcore import App", "may not know"),
    ("flowcore.engine", "from flowcore import adapters", "may not know"),
    ("flowcore.ports", "if TYPE_CHECKING:\n    from flowcore.engine import Engine", "may not know"),
    ("flowcore.adapters.sqs", "import infra.table", "may not know"),
    ("flowcore.keys", "from . import errors", "absolute"),
    ("flowcore.keys", "from .errors import RequestError", "absolute"),
    ("flowcore.core.decide", "import pydantic", "pure"),
    ("flowcore.core.decide", "import time", "pure"),
    ("flowcore.core.decide", "from uuid import uuid4", "pure"),
    ("flowcore.core.decide", "import os.path", "pure"),
    ("flowcore.core.decide", "from flowcore.authoring.step import Step", "pure"),
    ("flowcore.core.decide", "from flowcore.codec import encode", "pure"),
    ("flowcore.core.admit", "from datetime import datetime\nnow = datetime.now(tz=UTC)", "pure"),
    ("flowcore.core.admit", "import datetime\nnow = datetime.datetime.now()", "pure"),
    ("flowcore.ops.doctor", "def check():\n    import boto3", "adapters"),
    ("flowcore.testing.faults", "from botocore.exceptions import ClientError", "adapters"),
    ("handlers.api", "import boto3", "adapters"),
    ("flowcore.app", "from aws_lambda_powertools import Logger", "edge"),
    ("flowcore.cli.runs", "import httpx", "an extra"),
    ("flowcore.core.heads", "from dataclasses import dataclass, replace", "flowcore.parcels.replace"),
    ("flowcore.links", "import os\nkey = os.environ['KEY']", "environment"),
    ("handlers.worker", "from os import getenv", "environment"),
    ("infra.local", "from handlers import api", "never imported"),
    ("flowcore.cli.dev", "def dev():\n    import handlers.api", "never imported"),
)


@pytest.mark.parametrize(("module", "source", "sentence"), PLANTED)
def test_a_planted_violation_is_seen(module: str, source: str, sentence: str) -> None:
    """Each rule bites."""
    assert any(sentence in found for found in violations(module, source))


WELCOME = (
    ("flowcore", "from flowcore.app import App\nfrom flowcore.authoring.step import step"),
    ("flowcore.model", "from flowcore.errors import InvariantError\nfrom flowcore import keys"),
    ("flowcore.core.decide", "import datetime\nfrom flowcore.authoring.graph import Graph\nfrom enum import Enum"),
    ("flowcore.core.retry", "from datetime import datetime, timedelta\nzero = datetime.min"),
    ("flowcore.engine", "from flowcore import errors, ports\nimport asyncio"),
    ("flowcore.settings", "import os\nstage = os.environ.get('STAGE')"),
    ("flowcore.app", "def make():\n    from flowcore.adapters.memory import MemoryStore"),
    ("flowcore.adapters.sqs", "import boto3\nfrom flowcore.ports import Hints"),
    ("flowcore.http.routes", "from aws_lambda_powertools.event_handler import Router"),
    ("handlers.bootstrap", "import boto3\nfrom flowcore.adapters import dynamodb"),
    ("handlers.api", "from handlers.bootstrap import engine\nfrom flowcore import App"),
)


@pytest.mark.parametrize(("module", "source"), WELCOME)
def test_what_the_picture_allows_is_left_alone(module: str, source: str) -> None:
    """No rule bites too much."""
    assert [] == violations(module, source)
