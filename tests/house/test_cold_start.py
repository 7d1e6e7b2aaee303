"""What an import loads, pinned: lists are steadier than seconds, and every package is paid at each cold start."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    "FLOWCORE_APP": "examples.expense:app",
    "FLOWCORE_TABLE": "runs",
    "FLOWCORE_QUEUE_URL": "https://sqs.eu-central-1.amazonaws.com/123456789012/work",
    "FLOWCORE_SCHEDULE_GROUP": "flowcore",
    "FLOWCORE_SCHEDULE_ROLE_ARN": "arn:aws:iam::123456789012:role/schedules",
    "AWS_REGION": "eu-central-1",
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "PYTHONPATH": str(ROOT),
}

PYDANTIC = {"annotated_types", "pydantic", "pydantic_core", "typing_extensions", "typing_inspection"}
AWS = {"boto3", "botocore", "certifi", "dateutil", "jmespath", "s3transfer", "six", "urllib3"}
POWERTOOLS = {"aws_lambda_powertools"}
OURS = {"flowcore", "handlers", "examples"}

PACKAGES = {
    "flowcore": PYDANTIC | {"flowcore"},
    "handlers.worker": PYDANTIC | AWS | POWERTOOLS | OURS,
    "handlers.sweep": PYDANTIC | AWS | POWERTOOLS | OURS,
    "handlers.resume": PYDANTIC | AWS | POWERTOOLS | OURS,
    "handlers.api": PYDANTIC | AWS | POWERTOOLS | OURS,
}
"""Entry point -> every package outside the standard library that importing it may load."""

FORBIDDEN = {
    "flowcore": ("asyncio", "boto3", "aws_lambda_powertools", "flowcore.http", "flowcore.testing"),
    "handlers.worker": ("aws_xray_sdk", "aws_lambda_powertools.event_handler", "flowcore.http", "flowcore.testing"),
    "handlers.sweep": ("aws_xray_sdk", "aws_lambda_powertools.event_handler", "flowcore.http", "flowcore.testing"),
    "handlers.resume": ("aws_xray_sdk", "aws_lambda_powertools.event_handler", "flowcore.testing"),
    "handlers.api": ("aws_xray_sdk", "flowcore.testing", "flowcore.client", "httpx"),
    "flowcore.client": ("aws_lambda_powertools", "boto3", "flowcore.http", "flowcore.testing"),
}
"""Entry point -> modules whose import costs more than it is worth there."""


@cache
def loaded_by(module: str) -> frozenset[str]:
    """Every module that a fresh interpreter has after importing ``module``, less what it had before."""
    program = f"import sys, json; old = set(sys.modules); import {module}; print(json.dumps([*set(sys.modules) - old]))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=ENVIRONMENT,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return frozenset(found)


@pytest.mark.parametrize("module", PACKAGES)
def test_import_loads_only_the_packages_it_is_known_to_need(module: str) -> None:
    """A new package in a cold start is a decision, made here."""
    packages = {name.split(".", 1)[0] for name in loaded_by(module)}
    foreign = {name for name in packages if name not in sys.stdlib_module_names and not name.startswith("_")}
    assert PACKAGES[module] >= foreign, f"{module} now loads {sorted(foreign - PACKAGES[module])}"


@pytest.mark.parametrize("module", FORBIDDEN)
def test_import_leaves_the_dear_modules_alone(module: str) -> None:
    """The resolver, X-Ray and asyncio cost hundreds of milliseconds where nobody uses them."""
    loaded = loaded_by(module)
    dear = {name for name in loaded for root in FORBIDDEN[module] if name == root or name.startswith(f"{root}.")}
    assert set() == dear


def test_client_without_its_extra_says_what_to_install() -> None:
    """The extra by name, where httpx is not there."""
    program = "import sys; sys.modules['httpx'] = None; import flowcore; import flowcore.client"
    done = subprocess.run(
        [sys.executable, "-c", program], env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "pip install 'flowcore[client]'" in done.stderr.splitlines()[-1]
