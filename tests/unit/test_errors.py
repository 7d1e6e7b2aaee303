"""What an error says and carries."""

from flowcore.errors import NotSuspended, RunFinished


def test_run_finished_says_with_which_status() -> None:
    """An ended run refuses in one sentence, and is still caught as a run that waits for nobody."""
    error = RunFinished("r-1", "canceled")
    assert "Run 'r-1' has ended with status 'canceled'; it takes no more answers." == str(error)
    assert {"run_status": "canceled"} == error.details()
    assert ("r-1", []) == (error.run_id, error.open_steps)
    assert isinstance(error, NotSuspended)
