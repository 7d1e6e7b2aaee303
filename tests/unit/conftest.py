"""Every run of every unit test is audited when the test is over."""

from flowcore.testing.pytest_plugin import audited_runs

__all__ = ["audited_runs"]
