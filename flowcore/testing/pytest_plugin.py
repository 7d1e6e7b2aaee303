"""A pytest fixture for authors: ``from flowcore.testing.pytest_plugin import local_app`` in a ``conftest.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flowcore.app import App
from flowcore.authoring.workflow import Workflow
from flowcore.testing.local import LocalApp


@pytest.fixture
def local_app() -> Callable[..., LocalApp]:
    """Makes a ``LocalApp`` of an App or of workflows; keywords go to ``LocalApp``."""

    def make(first: App | Workflow[Any, Any], *others: Workflow[Any, Any], **options: Any) -> LocalApp:
        app = first if isinstance(first, App) else App(first, *others)
        return LocalApp(app, **options)

    return make
