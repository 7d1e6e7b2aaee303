"""A workflow as a Mermaid flowchart: every line is of a form that Mermaid knows, whatever authors write."""

from __future__ import annotations

import re

import pytest

from flowcore import otherwise, workflow
from flowcore.authoring.drawing.mermaid import escaped
from flowcore.testing.generate import sample
from tests.unit.drawn import HOSTILE, a_step, hostile, is_small, wide

# A label holds letters and digits, entity codes, and of our own line breaks and signs.
LABEL = r'"(?:[^\W_]|[ ,·…✓✗▸■↵»‖?*]|#\d+;|<br/>|_)*"'
SHAPE = "|".join(
    rf"{re.escape(left)}{LABEL}{re.escape(right)}"
    for left, right in (
        ("[", "]"),
        ("[[", "]]"),
        ("[/", "/]"),
        ("([", "])"),
        ("{{", "}}"),
        ("{", "}"),
        ("((", "))"),
        ("(((", ")))"),
    )
)
LINES = (
    r"flowchart TB",
    rf"  n\d+(?:{SHAPE})",
    rf"  n\d+ -->(?:\|{LABEL}\|)? n\d+",
    rf"  subgraph n\d+\[{LABEL}\]",
    r"  direction TB",
    r"  end",
    r"  classDef [a-z]+ fill:#[0-9a-f]{6},stroke:#[0-9a-f]{6},color:#[0-9a-f]{6}",
    r"  class n\d+(?:,n\d+)* [a-z]+",
)


def strange_lines(chart: str) -> list[str]:
    """Lines of no known form."""
    return [line for line in chart.splitlines() if not any(re.fullmatch(form, line) for form in LINES)]


def undeclared(chart: str) -> set[str]:
    """Names that are linked and never declared."""
    declared = set(re.findall(r"^  (?:subgraph )?(n\d+)[\[({]", chart, re.MULTILINE))
    linked = re.findall(r"^  (n\d+) -->(?:\|.*\|)? (n\d+)$", chart, re.MULTILINE)
    return {name for pair in linked for name in pair} - declared


@pytest.mark.parametrize("seed", range(60))
def test_random_workflows_are_well_formed(seed: int) -> None:
    """Every line has a known form, every link leads somewhere, every subgraph is closed."""
    chart = sample(seed, size=14).workflow.to_mermaid()
    assert [] == strange_lines(chart)
    assert set() == undeclared(chart)
    assert chart.count("  subgraph ") == chart.count("  end\n")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_in_its_label(text: str) -> None:
    """Not one character of it reaches Mermaid's grammar, its Markdown or the page."""
    run = {"first": text, "poll": "success", "ways": "success"}
    assert [] == strange_lines(hostile(text).to_mermaid(run))


def test_every_kind_has_its_shape() -> None:
    """Nested workflows and what repeats one are subgraphs."""
    chart = wide().to_mermaid()
    assert [] == strange_lines(chart)
    for part in (
        '["first<br/>2 retries · The first of all"]',
        'subgraph n3["middle · workflow"]',
        '{{"both · all at once"}}',
        '{"ways · whichever is true"}',
        '-->|"is#95;small"|',
        '-->|"otherwise"|',
        '-->|"none is true"|',
        '[/"pick<br/>makes a, b"/]',
        '[["each<br/>each item, one at a time"]]',
        '(["rest<br/>sleeps 3 days"])',
        '(["may<br/>sleeps until 2031#45;05#45;01 12#58;00 UTC"])',
        '[["poll<br/>repeats until is#95;small"]]',
        '(["sent<br/>waits for order#46;sent of order',
        '-->|"again"|',
    ):
        assert part in chart


def test_a_small_workflow_line_by_line() -> None:
    """What people paste into a page."""
    made = workflow("small").branch((is_small, a_step("a")), (otherwise, a_step("b")), id="ways").commit()
    expected = """\
flowchart TB
  n0(("start"))
  n1{"ways · whichever is true<br/>✓ success"}
  n0 --> n1
  n2["a<br/>… waiting"]
  n1 -->|"is#95;small"| n2
  n3["b<br/>» skipped"]
  n1 -->|"otherwise"| n3
  n4((" "))
  n2 --> n4
  n3 --> n4
  n5((("end")))
  n4 --> n5
  classDef skipped fill:#f0f2f5,stroke:#59636e,color:#1f2328
  classDef success fill:#dafbe1,stroke:#1a7f37,color:#1f2328
  classDef waiting fill:#fff8c5,stroke:#8a5d00,color:#1f2328
  class n3 skipped
  class n1 success
  class n2 waiting
"""
    assert expected == made.to_mermaid({"ways": "success", "a": "waiting"})


def test_the_same_workflow_is_the_same_chart() -> None:
    """A chart can be committed and compared."""
    assert wide().to_mermaid() == wide().to_mermaid()


def test_entity_codes_are_what_mermaid_decodes() -> None:
    """A number sign, the code point in decimal, a semicolon."""
    assert "a#60;b#35;60#59;é漢" == escaped("a<b#60;é漢")
