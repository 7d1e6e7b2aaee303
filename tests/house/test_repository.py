"""The repository says nothing that is true on one machine only, and keeps the promises of its front page."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.lock", "requirements-bootstrap.lock")

# Third-party files that we ship as they are; their own test compares them with their hashes.
VENDORED = ("flowcore/console/static/",)

# What no text may say, and why. The patterns are written so that they do not match themselves.
FORBIDDEN = (
    (r"(?:py)pi\.(?:org|io)|(?:python)hosted|registry\.(?:npm|yarn)", "an installation source is a machine's choice"),
    (r"(?:extra-)?(?:index-)url\b(?<!no-emit-index-url)|--(?:find)-links", "an installation source again"),
    (r"(?<![\w.:/-])/(?:home|mnt|root|srv|work|Users)/\w", "a path of one machine"),
    (r"(?<![\w.:/-])/(?:opt)/(?!python\b|extensions\b)\w", "a path of one machine; Lambda's own layers are fine"),
    (r"\b(?:TO)(?:DO)\b|\b(?:FIX)(?:ME)\b|\b(?:XX)(?:X)\b", "do it, or write down why not"),
)


def our_texts() -> dict[str, str]:
    """Every text file that is, or would be, committed: its content by its path."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    names = [name for name in listed.stdout.decode().split("\0") if name and not name.startswith(VENDORED)]
    return {name: text for name in names if (text := read(ROOT / name)) is not None}


def read(path: Path) -> str | None:
    """A file's text; None for what is not text, or deleted but not yet committed."""
    try:
        return path.read_text("utf-8")
    except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
        return None


def findings(pattern: str, texts: dict[str, str]) -> list[str]:
    """Where a pattern is found, as `path:line: text`."""
    return [
        f"{name}:{number}: {line.strip()}"
        for name, text in texts.items()
        for number, line in enumerate(text.splitlines(), start=1)
        if re.search(pattern, line)
    ]


@pytest.mark.parametrize(("pattern", "why"), FORBIDDEN)
def test_no_text_says_what_is_forbidden(pattern: str, why: str) -> None:
    """Neither sources of packages, nor paths of a machine, nor unfinished work are written anywhere."""
    assert [] == findings(pattern, our_texts()), why


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_versions_and_hashes_only(lock: str) -> None:
    """Each line is a pinned name, a hash or a comment; so no lock can send an installer anywhere."""
    allowed = r"[a-z0-9][a-z0-9-]*==\S+( ; .+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?|\s*#.*|"
    lines = (ROOT / lock).read_text("utf-8").splitlines()
    assert [] == [line for line in lines if not re.fullmatch(allowed, line)]
    assert [] == [line for line in lines if "://" in line]


def test_both_locks_pin_the_same_installer() -> None:
    """The installer does not replace itself half way through an installation."""
    pins = [re.findall(r"^uv==\S+", (ROOT / lock).read_text("utf-8"), re.MULTILINE) for lock in LOCKS]
    assert pins[0] == pins[1] != []


def test_every_declared_dependency_is_locked() -> None:
    """A dependency that was added without `make lock` is noticed here, not on somebody else's machine."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    declared = [*project["dependencies"], *(line for lines in extras.values() for line in lines)]
    names = {re.split(r"[^\w.-]", line)[0].lower().replace("_", "-") for line in declared}
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / LOCKS[0]).read_text("utf-8"), re.MULTILINE))
    assert set() == names - locked


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_the_front_page_names_the_two_commands(command: str) -> None:
    """Whoever opens the repository finds what to type."""
    assert command in (ROOT / "README.md").read_text("utf-8")
