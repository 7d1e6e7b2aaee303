"""Whatever is asked of the API: no fault of ours, an answer of the document's form, a typed problem where it is none.

Other random requests:
``python -c "from tests.property.fuzz import *; fuzz('GET /v1/runs', 9, GenerationMode.NEGATIVE, number=7)"``.
"""

from __future__ import annotations

import time
from collections import Counter

import pytest
from schemathesis.generation import GenerationMode

from flowcore.http.openapi import ANSWERS
from tests.property.fuzz import fuzz, walk
from tests.property.rows import told

FITTING, WRONG = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
PLAIN = ("GET /healthz",)
"""Nothing about it can be wrong."""


@pytest.mark.slow
@pytest.mark.gate
@pytest.mark.parametrize("key", ANSWERS)
def test_route_answers_200_random_requests(key: str) -> None:
    """Half of them fit the document."""
    _asked(key, 100)


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.parametrize("key", ANSWERS)
def test_route_answers_2000_random_requests(key: str) -> None:
    """As above, others and more."""
    _asked(key, 1_000, number=2)


def _asked(key: str, each: int, number: int = 1) -> None:
    began, count = time.monotonic(), 0
    modes = (FITTING,) if key in PLAIN else (FITTING, WRONG)
    try:
        for mode in modes:
            count += fuzz(key, each, mode, number=number).total()
    except BaseException:
        told("api", count + 1, 1, time.monotonic() - began, seed=str(number))
        raise
    assert count == each * len(modes) or key in PLAIN, count
    told("api", count, 0, time.monotonic() - began, seed=str(number))


@pytest.mark.slow
@pytest.mark.gate
def test_links_lead_from_a_start_to_its_end() -> None:
    """Whoever follows the document's links meets runs in each state, and no wrong answer on the way."""
    _walked(walk(60, number=1), least=200)


@pytest.mark.slow
@pytest.mark.proof
def test_links_lead_from_many_starts_to_their_ends() -> None:
    """As above, other walks and more of them."""
    _walked(walk(600, number=2), least=2_000)


def _walked(asked: Counter[str], least: int) -> None:
    """The walks were long enough, and have been everywhere."""
    assert asked.total() >= least, asked
    for wanted in (
        "POST /v1/workflows/{workflow}/runs 20",
        "GET /v1/runs/{run_id} 20",
        "POST /v1/runs/{run_id}/resume 20",
        "POST /v1/runs/{run_id}/resume 4",
        "POST /v1/runs/{run_id}/cancel 20",
    ):
        assert [key for key in asked if key.startswith(wanted)], asked
