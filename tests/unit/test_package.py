"""What Lambda gets: the library without its testing kit, and all of the author's."""

from __future__ import annotations

from pathlib import Path

from infra.package import DEPENDENCIES, PROJECT, installing, stage_code


def test_package_leaves_out_what_tools_and_our_testing_kit_have_left(tmp_path: Path) -> None:
    """A folder of the author's is his own, whatever its name."""
    shop = tmp_path / "shop"
    for file in ("flows.py", "testing/prices.py", "__pycache__/flows.pyc"):
        (shop / file).parent.mkdir(parents=True, exist_ok=True)
        (shop / file).write_text("")
    stage_code(tmp_path / "staged", [PROJECT / "flowcore", shop])
    staged = tmp_path / "staged"
    assert [True, False] == [(staged / "flowcore" / name).exists() for name in ("engine.py", "testing")]
    found = {str(file.relative_to(staged / "shop")) for file in (staged / "shop").rglob("*") if file.is_file()}
    assert {"flows.py", "testing/prices.py"} == found


def test_what_the_author_needs_is_installed_together_with_what_flowcore_needs(tmp_path: Path) -> None:
    """In one go, so that what does not go together is told at once; and in locked versions."""
    options = {"python": "3.13", "platform": "aarch64-manylinux2014"}
    plain, more = (installing(tmp_path, **options, requirements=file) for file in (None, Path("shop.txt")))
    assert [*plain, "--requirements", "shop.txt"] == more
    assert {*DEPENDENCIES, "--constraints", str(PROJECT / "requirements.lock")} <= {*plain}
