"""What our pages show is what happens, and where they point there is something. The rules stand in ``pages.py``."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flowcore import Workflow
from flowcore.http.bodies import EventBody, ResumeBody, StartBody
from tests.house.pages import ROOT, Block, anchors, blocks, commands, links, our_pages, pages, promised, text_of

MOST_TEXTS = 3
"""Blocks that nothing tries, over all pages."""

LANGUAGES = {"python", "console", "json", "yaml", "mermaid", "text"}
ROUTES = [
    route
    for file in (ROOT / "flowcore/http").glob("*.py")
    for route in re.findall(r'@router\.(get|post|delete)\("([^"]+)"\)', file.read_text(encoding="utf-8"))
]
BODIES = {
    "/events": EventBody,
    "/runs": StartBody,
    "/resume": ResumeBody,
    "/cancel": None,
    "/redrive": None,
    "/unblock": None,
}


@pytest.fixture(autouse=True)
def outside_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bank of the examples keeps its books in a fresh file."""
    monkeypatch.setenv("EXPENSE_BANK_FILE", str(tmp_path / "bank.sqlite"))


@pytest.mark.parametrize("page", pages())
def test_a_page_does_what_it_shows(page: str) -> None:
    """Every block of it, in order."""
    try_page(page, text_of(page))


def test_few_blocks_are_not_tried() -> None:
    """Text is for what cannot be run, and none of it is nameless."""
    found = [block for page in pages() for block in blocks(page, text_of(page))]
    assert [] == [str(block) for block in found if block.language not in LANGUAGES]
    assert MOST_TEXTS >= sum(block.language == "text" for block in found)


@pytest.mark.parametrize("page", our_pages())
def test_links_lead_somewhere(page: str) -> None:
    """A relative link names a file of the checkout, and an anchor a heading there."""
    assert [] == dead_links(page, text_of(page))


@pytest.mark.parametrize("page", pages())
def test_every_page_is_reached_from_the_front_page(page: str) -> None:
    """Following links alone."""
    seen, todo = set[str](), ["README.md"]
    while todo:
        here = todo.pop()
        if here not in seen and here.endswith(".md"):
            seen.add(here)
            todo += [target_of(here, link)[0] for link in links(text_of(here))]
    assert page in seen


FAULTS = {
    "an output that is another": ("python", "print(1)  # 2"),
    "an output that is not promised": ("python", "print(1)"),
    "a promise that is not printed": ("python", "if False:\n    print(1)  # 1"),
    "an error": ("python", "1 / 0"),
    "a test that fails": ("python", "def test_it():\n    assert False"),
    "an excerpt that has changed": ("python examples/approval.py", "approval = 1\n"),
    "a target that there is not": ("console", "$ make coffee"),
    "a variable that there is not": ("console", "$ make test MILK=1"),
    "a flag that there is not": ("console", "$ python -m infra.local up --milk 3"),
    "a command that nobody knows": ("console", "$ brew coffee"),
    "an example that prints something else": ("console", "$ python -m examples.redo\nnothing"),
    "a parameter that there is not": ("console", "$ sam deploy --parameter-overrides Milk=1"),
    "a route that there is not": ("console", "$ curl -X POST $URL/v1/coffee"),
    "a body that does not fit": ("console", "$ curl -X POST $URL/v1/runs/r-1/resume -d '{\"dta\": 1}'"),
    "no JSON": ("json", "{"),
    "no YAML": ("yaml", "a: [1"),
    "a drawing of nothing": ("mermaid", "flowchart TD\n  a --> b"),
    "a language that nobody knows": ("ini", "a = 1"),
}


@pytest.mark.parametrize(("info", "body"), FAULTS.values(), ids=FAULTS)
def test_a_wrong_block_is_noticed(info: str, body: str) -> None:
    """Each of these fails the page it stands on."""
    with pytest.raises(BaseException):  # noqa: B017  # whatever fails a test
        try_page("page.md", f"```{info}\n{body}\n```\n")


def test_a_dead_link_is_noticed() -> None:
    """A file that is not there, and a heading that is not."""
    text = "# One `two`, three\n[a](nothing.md) [b](#one-two-three) [c](#four) [d](README.md#flowcore) [e](README.md#x)"
    assert ["nothing.md", "#four", "README.md#x"] == dead_links("page.md", text)


# -- how a page is tried ----------------------------------------------------------------------------------------------


def try_page(page: str, text: str) -> None:
    """Try every block; the first that is wrong raises, with its place."""
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page, text):
        try:
            TRIES[block.language](block, names)
        except Exception as error:
            error.add_note(f"in the block at {block}")
            raise


def try_python(block: Block, names: dict[str, Any]) -> None:
    """Run it, or find it in the file it is taken from."""
    if block.info != "python":
        source = (ROOT / block.info.split(" ", 1)[1]).read_text(encoding="utf-8")
        assert block.body in source, f"{block.info} does not hold this excerpt (any more)"
        return
    known = {name: value for name, value in names.items() if name.startswith("test_")}
    with printing() as printed:
        exec(compile("\n" * block.line + block.body, block.page, "exec", dont_inherit=True), names)  # noqa: S102  # ours
        for name, value in list(names.items()):
            if name.startswith("test_") and known.get(name) is not value:
                value()
    assert promised(block.body) == printed()


@contextlib.contextmanager
def printing() -> Iterator[Callable[[], list[str]]]:
    """What is printed meanwhile, as lines."""
    buffer = io.StringIO()
    with contextlib.redirect_stdout(buffer):
        yield lambda: buffer.getvalue().splitlines()


def try_console(block: Block, _: dict[str, Any]) -> None:
    """Each command by its first word, or first three."""
    for command, output in commands(block.body):
        words = shlex.split(command, comments=True)
        match words:
            case ["make", target, *variables]:
                try_make(target, variables)
            case ["python", "-m", module] if module.startswith("examples."):
                with printing() as printed:
                    importlib.reload(importlib.import_module(module)).main()
                assert output == printed()
            case ["python", "-m", "infra.local" | "infra.package" as module, *arguments]:
                name = "infra/local/__main__.py" if module == "infra.local" else "infra/package.py"
                known = set(re.findall(r'"(--[\w-]+)"', (ROOT / name).read_text(encoding="utf-8")))
                assert {word for word in arguments if word.startswith("--")} <= known
            case ["sam", "deploy", *arguments]:
                try_sam(arguments)
            case ["curl", *arguments]:
                try_curl(arguments)
            case _:
                raise AssertionError(f"no rule for this command: {command}")


def try_make(target: str, variables: list[str]) -> None:
    """A target of the Makefile, and variables that it reads."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), f"no target {target!r}"
    for variable in variables:
        assert f"$({variable.split('=', 1)[0]})" in makefile, f"the Makefile does not read {variable!r}"


def try_sam(arguments: list[str]) -> None:
    """Flags that we know, and parameters of our template."""
    template = (ROOT / "template.yaml").read_text(encoding="utf-8")
    for argument in arguments:
        if argument.startswith("--"):
            assert argument in ("--guided", "--parameter-overrides")
        else:
            assert re.search(rf"^  {argument.split('=', 1)[0]}:$", template, re.MULTILINE), f"no parameter {argument!r}"


def try_curl(arguments: list[str]) -> None:
    """A route that is served, and a body whose fields it takes."""
    method = arguments[arguments.index("-X") + 1].lower() if "-X" in arguments else "get"
    (url,) = [argument for argument in arguments if argument.startswith("$URL/")]
    path = url.removeprefix("$URL").split("?", 1)[0]
    shapes = [re.sub(r"<\w+>", "[^/]+", route) for verb, route in ROUTES if verb == method]
    assert any(re.fullmatch(shape, path) for shape in shapes), f"no route {method.upper()} {path}"
    if "-d" in arguments:
        (model,) = [model for end, model in BODIES.items() if path.endswith(end)]
        assert model is not None
        model.model_validate_json(arguments[arguments.index("-d") + 1])


def try_mermaid(block: Block, names: dict[str, Any]) -> None:
    """The drawing of a workflow that the page knows."""
    drawn = [value.to_mermaid() for value in names.values() if isinstance(value, Workflow)]
    assert block.body.strip() in [text.strip() for text in drawn], f"no workflow is drawn like this; there are {drawn}"


def nothing(block: Block, _: dict[str, Any]) -> None:
    """Text is text."""


TRIES: dict[str, Callable[[Block, dict[str, Any]], None]] = {
    "python": try_python,
    "console": try_console,
    "json": lambda block, _: json.loads(block.body),
    "yaml": lambda block, _: yaml.safe_load(block.body),
    "mermaid": try_mermaid,
    "text": nothing,
}


def target_of(page: str, link: str) -> tuple[str, str]:
    """The file, from the root of the checkout, and the anchor that a link on ``page`` means."""
    path, _, anchor = link.partition("#")
    file = (ROOT / page).parent / path if path else ROOT / page
    return str(file.resolve().relative_to(ROOT)), anchor


def dead_links(page: str, text: str) -> list[str]:
    """The links of a page that lead nowhere."""
    dead = []
    for link in links(text):
        target, anchor = target_of(page, link)
        there = (ROOT / target).exists() or target == page
        known = text if target == page else text_of(target) if anchor and there else ""
        if not there or (anchor and anchor not in anchors(known)):
            dead.append(link)
    return dead
