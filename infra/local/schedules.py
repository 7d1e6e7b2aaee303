"""When a one-shot schedule is due. Pure.

Source: EventBridge Scheduler user guide, "Schedule types": ``at(yyyy-mm-ddThh:mm:ss)`` in the schedule's own time
zone, whole seconds, UTC when no zone is given.
"""

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_AT = re.compile(r"at\((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\)")


class UnknownExpression(ValueError):
    """Not a one-shot; the local stack fires no other kind of schedule."""


def due_at(expression: str, timezone: str | None) -> datetime:
    """The instant ``expression`` names, in UTC.

    A local time that the clocks skip or repeat is taken with the offset before the change.

    Raises:
        UnknownExpression: ``rate(...)``, ``cron(...)``, an unknown zone, or nonsense that real AWS would have refused.
    """
    found = _AT.fullmatch(expression.strip())
    if not found:
        raise UnknownExpression(f"The local stack fires at(...) only, not {expression!r}.")
    try:
        zone = ZoneInfo(timezone or "UTC")
        return datetime.fromisoformat(found[1]).replace(tzinfo=zone).astimezone(UTC)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise UnknownExpression(f"No such time: {expression!r} in {timezone!r}.") from error
