"""Nine ways to get the protocol slightly wrong: each is a patch, and each is found by a handful of schedules.

Without the patch the same schedules pass: what is shown is that they look where it matters.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.killers import KILLERS
from tests.property.rows import trying

ROOT = Path(__file__).resolve().parents[2]
PATCHES = ROOT / "tests" / "mutants"

EXPECTED = {
    "release-checks-only-the-epoch": "I5",
    "last-writer-wins-on-a-step": "I1",
    "decisions-not-journaled": "I2",
    "resume-does-not-touch-head": "I5",
    "resume-as-two-writes": "I5",
    "no-due-on-a-sleep": "I4",
    "no-fence": "I1",
    "steps-read-before-head": "I[15]",
    "join-by-counter": "I6",
}
"""By mutant: the rule it breaks."""


@pytest.mark.slow
@pytest.mark.gate
@pytest.mark.proof
@pytest.mark.parametrize("name", KILLERS)
def test_a_mutant_is_killed(name: str, tmp_path: Path) -> None:
    """In a copy of the package; the rule that it breaks is told, with others that fall with it."""
    with trying("mutants") as row:
        found = killers(patched(tmp_path, name), name).splitlines()
        print(*found, sep="\n")
        assert len(KILLERS[name]) == len(found)
        rule = rf"{name}: killed by (.* \| )?(run 'explored': )?{EXPECTED[name]} "
        assert all(re.match(rule, line) for line in found)
        row.count = 1


@pytest.mark.slow
@pytest.mark.gate
def test_without_a_patch_everything_passes(tmp_path: Path) -> None:
    """The killers kill nothing that is well."""
    found = killers(patched(tmp_path))
    assert [f"{name}: survived" for name in KILLERS for _ in KILLERS[name]] == found.splitlines()


def test_every_patch_has_a_killer() -> None:
    """And says which rule it breaks."""
    assert {path.stem for path in PATCHES.glob("*.patch")} == {*KILLERS} == {*EXPECTED}


def patched(folder: Path, name: str | None = None) -> Path:
    """A copy of the package as a mutant; a patch that no longer fits has to be made anew."""
    shutil.copytree(ROOT / "flowcore", folder / "flowcore")
    if name is not None:
        patch = (PATCHES / f"{name}.patch").read_bytes()
        where = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
        done = subprocess.run(
            ["git", "apply", "-"], cwd=folder, input=patch, capture_output=True, check=False, env=where
        )
        assert done.returncode == 0, f"{name}.patch no longer fits: {done.stderr.decode()}"
    return folder


def killers(folder: Path, *names: str) -> str:
    """What the killers say about the package in ``folder``."""
    program = "import flowcore, sys; assert flowcore.__file__.startswith(sys.argv[1]), flowcore.__file__"
    where = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    subprocess.run([sys.executable, "-c", program, str(folder)], cwd=folder, check=True, env=where)
    command = [sys.executable, "-m", "tests.mutants.killers", *names]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=where)
    assert not done.stderr, done.stderr
    return done.stdout
