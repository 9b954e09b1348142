"""Records to experiment trackers, after the local file; a failing tracker warns and changes nothing.

    trackers = parse_trackers(["jsonl:runs.jsonl", "mlflow:http://localhost:5000", "tensorboard:logs"])
    log_record(record, trackers, path=path, notify=print)

Where a tracker needs a package, that is looked for by :func:`parse_trackers` and imported when the first
record is logged. ``evalkit log`` sends records that are there already. No torch.
"""

from evalkit.tracking.entry import Entry, entry_of
from evalkit.tracking.logging import Failure, log_record
from evalkit.tracking.trackers import TRACKERS, Tracker, TrackerKind, parse_trackers

__all__ = [
    "TRACKERS",
    "Entry",
    "Failure",
    "Tracker",
    "TrackerKind",
    "entry_of",
    "log_record",
    "parse_trackers",
]
