"""``make package``: what Lambda unpacks to /var/task, staged in build/package.

The library, the handlers and the author's own packages, with their locked dependencies for arm64; boto3 is left to the
runtime. When this Python is the runtime's, everything is compiled beforehand: /var/task is read-only, and compiling
at each cold start costs more than all imports together.
"""

import argparse
import compileall
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
TARGET = PROJECT / "build" / "package"
DEPENDENCIES = ("pydantic", "typing-extensions", "aws-lambda-powertools", "jinja2", "itsdangerous")
"""What flowcore needs at run time and Lambda does not bring."""
OURS = ("flowcore", "handlers")


def main(arguments: Sequence[str]) -> int:
    """Stage everything; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m infra.package", description="Stage the Lambda package.")
    parser.add_argument("--python", default="3.12", help="version of the Lambda runtime")
    parser.add_argument("--platform", default="aarch64-manylinux2014", help="of the Lambda runtime")
    parser.add_argument("packages", nargs="*", default=["examples"], help="folders with the App and what it imports")
    parser.add_argument("--requirements", type=Path, help="file with what these packages need besides, one a line")
    options = parser.parse_args(arguments)
    shutil.rmtree(TARGET, ignore_errors=True)
    install = installing(TARGET, python=options.python, platform=options.platform, requirements=options.requirements)
    subprocess.run(install, check=True)
    stage_code(TARGET, [PROJECT / name for name in OURS] + [Path(name) for name in options.packages])
    compiled = options.python == f"{sys.version_info.major}.{sys.version_info.minor}"
    if compiled:
        compileall.compile_dir(TARGET, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    size = sum(file.stat().st_size for file in TARGET.rglob("*") if file.is_file()) / 1e6
    state = (
        "compiled"
        if compiled
        else f"not compiled: that takes Python {options.python}, this is {sys.version.split()[0]}"
    )
    print(f"{TARGET.relative_to(PROJECT)}: {size:.1f} MB, {state}")
    return 0


def installing(target: Path, *, python: str, platform: str, requirements: Path | None = None) -> list[str]:
    """The command that installs into ``target`` what flowcore and the author need, for the runtime.

    What ``requirements.lock`` knows comes in its version: with these flowcore was tested.
    """
    installer = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--no-build"]
    options = ["--target", str(target), "--python-version", python, "--python-platform", platform]
    locked = ["--constraints", str(PROJECT / "requirements.lock")]
    further = [] if requirements is None else ["--requirements", str(requirements)]
    return [*installer, *options, *locked, *DEPENDENCIES, *further]


def stage_code(target: Path, packages: Iterable[Path]) -> None:
    """Copy ``packages`` into ``target``, without what tools left in them. Our testing kit stays at home."""
    leftovers = ("__pycache__", "*.pyc")
    for package in packages:
        ours = ("testing",) if package == PROJECT / "flowcore" else ()
        shutil.copytree(package, target / package.name, ignore=shutil.ignore_patterns(*leftovers, *ours))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
