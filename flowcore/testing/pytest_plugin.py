"""pytest fixtures: ``from flowcore.testing.pytest_plugin import audited_runs, local_app`` in your ``conftest.py``.

``audited_runs`` need not be asked for: where it is imported, runs of every ``LocalApp`` are audited after each test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flowcore.app import App
from flowcore.authoring.workflow import Workflow
from flowcore.testing.local import LocalApp, audited


@pytest.fixture
def local_app() -> Callable[..., LocalApp]:
    """Makes a ``LocalApp`` of an App or of workflows; keywords go to ``LocalApp``."""

    def make(first: App | Workflow[Any, Any], *others: Workflow[Any, Any], **options: Any) -> LocalApp:
        app = first if isinstance(first, App) else App(first, *others)
        return LocalApp(app, **options)

    return make


@pytest.fixture(autouse=True)
def audited_runs() -> Iterator[None]:
    """Whatever a test did: its runs must be as the protocol allows."""
    with audited():
        yield
