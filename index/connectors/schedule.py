"""When a connector is due: a pure function of its interval, its last run and the time."""

import datetime

from index.connectors.mirror import LastRun

RETRY_S = 900
"""A run that did not see the whole source is repeated after this long, then after twice this long, and so on, up to
the interval: a network that was away for a moment costs little, a source that never works is not pestered."""


def is_due(every_s: int | None, last: LastRun | None, now: datetime.datetime) -> bool:
    """Whether a connector with this interval (None: by command alone) should run at `now` (with a time zone).

    A run that was killed counts as one that failed. One from the future (the clock was set back) counts as none.
    """
    if every_s is None:
        return False
    if last is None:
        return True
    started = datetime.datetime.fromisoformat(last.started)
    age_s = (now - started).total_seconds()
    wait_s = every_s if last.complete else min(every_s, RETRY_S * 2 ** min(max(last.failed_runs, 1) - 1, 20))
    return age_s < 0 or age_s >= wait_s
