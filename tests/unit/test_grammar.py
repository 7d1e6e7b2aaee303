"""The document's grammar and the App's are the same: what a generated client refuses would have been refused here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcore.errors import FlowcoreError
from flowcore.http import grammar
from flowcore.http.routes import routes
from flowcore.keys import event_mistake, is_entry_id, is_name, is_run_id
from flowcore.links import Links
from flowcore.tracing import accepted_tags
from tests.unit.test_http_cursors import an_app
from tests.unit.web import Web

_TEXT = st.text(st.sampled_from("aZ09._:@/- ,!\n\u00e9"), max_size=6) | st.sampled_from(
    [letter * length for letter in "a-é" for length in (0, 1, 64, 65, 128, 129, 1_000, 1_001)]
)


def _is_tag(text: str) -> bool:
    try:
        return bool(accepted_tags([text]))
    except FlowcoreError:
        return False


def _fits(rules: Mapping[str, Any], text: str) -> bool:
    pattern, least, most = rules.get("pattern", ""), rules.get("minLength", 0), rules.get("maxLength", len(text))
    return least <= len(text) <= most and re.search(pattern.replace("$", r"\Z"), text) is not None


@pytest.mark.parametrize(
    ("rules", "is_one"),
    [
        (grammar.RUN_ID, is_run_id),
        (grammar.WORKFLOW, is_entry_id),
        (grammar.EVENT, lambda text: event_mistake(text) is None),
        (grammar.HEADERS["Idempotency-Key"], is_name),
    ],
    ids=["run id", "workflow", "event", "name"],
)
def test_pattern_accepts_what_the_app_accepts(rules: Mapping[str, Any], is_one: Callable[[str], bool]) -> None:
    """And nothing else."""

    @settings(max_examples=200, deadline=None, derandomize=True)
    @given(text=_TEXT)
    def tried(text: str) -> None:
        assert is_one(text) is _fits(rules, text)

    tried()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(text=_TEXT)
def test_tag_of_the_pattern_is_a_tag(text: str) -> None:
    """The App takes more: whatever can be printed in any language."""
    assert _is_tag(text) or not _fits(grammar.TAG, text)


@pytest.mark.parametrize("keys", [None, {"2026-01_a": "0" * 32}])
def test_cursor_that_is_given_fits_its_pattern(keys: dict[str, str] | None) -> None:
    """So that a client may check what it was given."""
    app = an_app(keys)
    cursor = Web(app, routes).get("/v1/runs?limit=1").body["cursor"]
    assert _fits(grammar.CURSOR, cursor)
    assert keys is None or isinstance(app.engine.links, Links)
