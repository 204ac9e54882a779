"""Moments with a zone, stored as microseconds since 1970-01-01 in UTC."""

from datetime import UTC, datetime, timedelta

UNKNOWN = -(2**62)  # stored for an unknown time; no datetime is that early
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_EXAMPLE = "2026-11-27T08:00:00+01:00"


def microseconds(name: str, value: str | datetime) -> int:
    """A moment in microseconds since 1970-01-01 UTC.

    Args:
        name: argument name for error messages.
        value: a datetime, or text in ISO 8601; both with a zone.

    Raises:
        TypeError, ValueError: it is no moment, or it has no zone.
    """
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError as error:
            raise ValueError(f"{name}: expected a time such as {_EXAMPLE}, got {value!r:.60}") from error
    elif isinstance(value, datetime):
        moment = value
    else:
        raise TypeError(f"{name}: expected a datetime or text, got {type(value).__name__}")
    if moment.utcoffset() is None:
        raise ValueError(f"{name}: expected a time with a zone, such as {_EXAMPLE}, got {str(value)!r}")
    return (moment - _EPOCH) // _MICROSECOND


def moment(value: int) -> datetime | None:
    """The datetime in UTC of stored microseconds; None if unknown."""
    return None if value == UNKNOWN else _EPOCH + value * _MICROSECOND


def now() -> int:
    return microseconds("now", datetime.now(UTC))
