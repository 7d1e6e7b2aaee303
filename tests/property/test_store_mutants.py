"""The store on DynamoDB with one of its conditions gone: each is a patch, and a few tests of the contract find it.

These stand beside the mutants of the protocol, which are broken in memory. Here it is shown that the contract looks at
what DynamoDB is asked, request by request.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.property.test_mutants import PATCHES, ROOT, patched

CONTRACT = "TestDynamoStore::"
KILLERS: Mapping[str, set[str]] = {
    "last-writer-wins-on-a-step": {
        CONTRACT + "test_commit_of_a_first_record_happens_once",
        *(CONTRACT + f"test_commit_over_a_record_needs_that_record[standing{number}-False]" for number in (2, 3, 4)),
    },
    "release-checks-only-the-epoch": {CONTRACT + "test_release_of_a_head_that_moved_is_refused[other version]"},
    "no-fence": {
        CONTRACT + "test_release_of_a_head_that_moved_is_refused[other epoch]",
        CONTRACT + "test_release_of_a_head_that_moved_is_refused[other version]",
    },
    "resume-does-not-touch-head": {CONTRACT + "test_resume_writes_head_and_record"},
    "resume-as-two-writes": {
        CONTRACT + "test_resume_of_a_moved_head_writes_neither",
        CONTRACT + "test_resume_with_an_event_that_was_taken_writes_nothing",
    },
    "join-by-counter": {CONTRACT + "test_a_join_adds_items_and_tells_what_stands_there"},
    "steps-read-before-head": {
        "test_load_reads_the_head_before_the_records[1-1]",
        "test_load_reads_the_head_before_the_records[2-2]",
    },
    "claim-of-what-is-held": {CONTRACT + f"test_claim_table[RUNNING-{lease}-None-False]" for lease in (0, 1)},
    "an-event-settles-two-waits": {CONTRACT + "test_resume_with_an_event_that_was_taken_writes_nothing"},
    "cancel-of-what-is-over": {
        CONTRACT + f"test_cancel_of_an_ended_run_changes_nothing[{status}]"
        for status in ("CANCELED", "FAILED", "SUCCESS")
    },
    "own-write-not-known": {
        f"test_a_write_whose_reply_was_lost_is_known_again[{write}]" for write in ("commit", "release", "resume")
    },
}
"""By mutant: the tests that must fail under it, each of them."""


@pytest.mark.slow
@pytest.mark.gate
@pytest.mark.parametrize("name", KILLERS)
def test_a_broken_condition_is_found(name: str, tmp_path: Path) -> None:
    """In a copy of the package; what was told was wrong, and nothing else went wrong."""
    assert KILLERS[name] == failed(patched(tmp_path, f"dynamodb/{name}"), KILLERS[name])


@pytest.mark.slow
@pytest.mark.gate
def test_without_a_broken_condition_everything_passes(tmp_path: Path) -> None:
    """The tests find nothing where nothing is broken."""
    assert set() == failed(patched(tmp_path), set.union(*KILLERS.values()))


def test_every_broken_condition_has_a_killer() -> None:
    """By the names of the patches."""
    assert {path.stem for path in (PATCHES / "dynamodb").glob("*.patch")} == {*KILLERS}


def failed(folder: Path, tests: set[str]) -> set[str]:
    """Which of the tests find something else than they expect, over the package in ``folder``."""
    page = ROOT / "tests" / "contract" / "test_dynamodb_store.py"
    options = ["-q", "-n0", "--tb=short", "-p", "no:randomly", "-p", "no:cacheprovider", "--junitxml=told.xml"]
    where = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), "-o", f"pythonpath={folder}"]
    command = [sys.executable, "-m", "pytest", *options, *where, *(f"{page}::{test}" for test in sorted(tests))]
    around = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=around)
    told = ET.parse(folder / "told.xml").iter("testcase")  # noqa: S314  # pytest has just written it
    found = {test.attrib["name"]: [why.attrib["message"] for why in test] for test in told}
    names = {test.rpartition("::")[2]: test for test in tests}
    assert found.keys() == names.keys(), done.stdout
    assert all(why.startswith(("assert ", "AssertionError")) for test in found.values() for why in test), done.stdout
    return {names[name] for name, why in found.items() if why}
