"""What time it is, in a time zone by its name."""

import difflib
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, available_timezones


def clock(time_zone: str = "UTC") -> str:
    """Tell the date and the time in a time zone such as Asia/Shanghai, Europe/Paris or UTC.

    Raises:
        ValueError: there is no such time zone.
    """
    if time_zone == "UTC":
        return datetime.now(UTC).strftime(_FORM)
    zones = available_timezones()
    if time_zone not in zones:
        near = difflib.get_close_matches(time_zone, zones, n=3, cutoff=0.5)
        hint = f"; near are {', '.join(near)}" if near else "; names are such as Asia/Shanghai"
        raise ValueError(f"there is no time zone {time_zone!r:.60}{hint}")
    return datetime.now(ZoneInfo(time_zone)).strftime(_FORM)


_FORM = "%Y-%m-%d %H:%M:%S %Z, %A"
