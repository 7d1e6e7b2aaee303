"""Pages as text: templates filled with values, all of them escaped, and headers that let nothing else run.

The one style sheet stands in each page and is named by its hash, so nothing is loaded and nothing runs.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowcore.model import Json

if TYPE_CHECKING:
    from jinja2 import Environment

if find_spec("jinja2") is None:  # looked for, not loaded: it is only where a page is drawn
    raise ModuleNotFoundError(
        "The pages behind links are drawn with jinja2, which is not installed: pip install 'flowcore[console]'",
        name="jinja2",
    )

_TEMPLATES = Path(__file__).with_name("templates")


def page(template: str, **values: Any) -> str:
    """The page that a template makes of these values."""
    return _environment().get_template(f"{template}.html").render(values)


@cache
def headers() -> Mapping[str, str]:
    """What every page is sent with: nothing runs, loads, frames, keeps, indexes or passes on its address."""
    mark = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return {
        "Content-Security-Policy": (
            f"default-src 'none'; style-src 'sha256-{mark}'; form-action 'self'; base-uri 'none'; "
            "frame-ancestors 'none'"
        ),
        "Cache-Control": "no-store",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Robots-Tag": "noindex, nofollow, noarchive",
    }


@cache
def _style() -> str:
    return (_TEMPLATES / "style.css").read_text("utf-8")


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415  # only where a page is drawn

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals["style"] = _style()
    environment.filters["instant"] = told
    environment.filters["json"] = _json
    return environment


def told(instant: datetime | None) -> str:
    """An instant as a person reads it."""
    return "" if instant is None else f"{instant:%d %B %Y, %H:%M} UTC"


def _json(value: Json) -> str:
    """What lies too deep for a list of its own."""
    return json.dumps(value, ensure_ascii=False)
