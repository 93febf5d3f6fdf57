"""Sacred observers that survive an outage of their store.

Sacred drops an observer for good at its first error, and swallows some. A training of days must neither end
because the database was restarted nor lose what was measured meanwhile. So events that cannot be written are
kept in order and tried again at the next heartbeat (10 s); what is still unwritten when the run ends is put
beside the trainings, and the run ends with an error that says so.
"""

import json
import logging
import mimetypes
import os
import shutil
import threading
from collections import deque
from pathlib import Path
from typing import Any

from pymongo.errors import ConnectionFailure, PyMongoError

from incasem.errors import TrackingError
from incasem.tracking.sacred_library import FileStorageObserver, MongoObserver, RunObserver, flatten
from incasem.tracking.unsent import Unsent

log = logging.getLogger(__name__)

Event = tuple[str, dict[str, Any]]


class SteadyObserver(RunObserver):
    """Passes Sacred's events on to an observer of a store, in order, and holds them back while it is away."""

    priority = 30

    def __init__(
        self,
        inner: "_Files | _Mongo",
        location: str,
        passing: tuple[type[Exception], ...],
        lasting: tuple[type[Exception], ...] = (),
    ) -> None:
        """Wrap an observer.

        Args:
            inner: writes to the store.
            location: of the store, for messages.
            passing: errors after which the same event is tried again.
            lasting: errors after which an event is given up.
        """
        self._inner = inner
        self._location = location
        self._passing, self._lasting = passing, lasting
        self._pending: deque[Event] = deque()
        # The heartbeat has a thread of its own.
        self._lock = threading.RLock()
        self._away = False
        self._given_up: list[str] = []

    def started_event(self, **event: Any) -> int:
        """Begin the record; nothing is held back here, since a run without an id cannot go on."""
        try:
            return int(self._inner.started_event(**event))
        except (*self._passing, *self._lasting) as error:
            raise TrackingError(
                f"the run cannot be recorded in {self._location} ({type(error).__name__}); allowed: a "
                "run store that "
                "can be written. Check the disk space, permissions and the server."
            ) from None

    def log_metrics(self, metrics_by_name: dict[str, Any], info: dict[str, Any]) -> None:
        """Write new values of metrics; each name is an event, so that none is written twice."""
        for one in self._inner.portions(metrics_by_name):
            self._take("log_metrics", {"metrics_by_name": one, "info": info})

    def heartbeat_event(self, **event: Any) -> None:
        """Write that the run lives; only the newest matters."""
        with self._lock:
            self._pending = deque(e for e in self._pending if e[0] != "heartbeat_event")
            self._take("heartbeat_event", event)

    def artifact_event(self, name: str, filename: str, **event: Any) -> None:
        """Store a file with the run."""
        if not os.access(filename, os.R_OK):
            log.warning("%s cannot be read and is not stored with the run", filename)
            return
        self._take("artifact_event", {"name": name, "filename": filename} | event)

    def completed_event(self, **event: Any) -> None:
        """Write the end of a run that succeeded."""
        self._take("completed_event", event)

    def interrupted_event(self, **event: Any) -> None:
        """Write the end of a run that was stopped."""
        self._take("interrupted_event", event)

    def failed_event(self, **event: Any) -> None:
        """Write the end of a run that failed."""
        self._take("failed_event", event)

    def _take(self, method: str, event: dict[str, Any]) -> None:
        with self._lock:
            self._pending.append((method, event))
            self._write_pending()

    def _write_pending(self) -> bool:
        while self._pending:
            method, event = self._pending[0]
            try:
                getattr(self._inner, method)(**event)
            except self._passing as error:
                if not self._away:
                    log.warning(
                        "the run store %s cannot be written (%s); the run goes on, and the record is "
                        "tried again "
                        "every 10 s", self._location, type(error).__name__,
                    )  # fmt: skip
                self._away = True
                return False
            except self._lasting as error:
                log.warning("not recorded in %s: %s (%s)", self._location, method, type(error).__name__)
                self._given_up.append(method)
            self._pending.popleft()
        if self._away:
            log.warning("the run store %s can be written again; the record is complete", self._location)
        self._away = False
        return True

    def finish(self, patience_s: float) -> str | None:
        """Write what is pending, for up to ``patience_s`` seconds; call it once, after the run.

        Returns:
            None if the record is complete, else what is missing and what becomes of it.
        """
        stop = threading.Event()
        waited = 0.0
        while True:
            with self._lock:
                if self._write_pending():
                    break
            if waited >= patience_s:
                with self._lock:
                    return self._inner.keep(list(self._pending))
            stop.wait(1.0)
            waited += 1.0
        if self._given_up:
            return f"not accepted there: {', '.join(sorted(set(self._given_up)))}"
        return None


class _Files(FileStorageObserver):
    """Sacred's directory layout, each file written whole under another name and then renamed."""

    def __init__(self, basedir: Path) -> None:
        super().__init__(basedir, copy_sources=False)
        self._metrics: dict[str, dict[str, list[Any]]] = {}

    def portions(self, metrics_by_name: dict[str, Any]) -> list[dict[str, Any]]:
        # The file is rewritten as a whole, so all names go into one write.
        return [metrics_by_name] if metrics_by_name else []

    def save_json(self, obj: Any, filename: str) -> None:
        path = Path(self.dir) / filename
        temporary = path.with_name(f".{filename}.new")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(flatten(obj), file, sort_keys=True, indent=2)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    def log_metrics(self, metrics_by_name: dict[str, Any], info: dict[str, Any]) -> None:
        new = dict(self._metrics)
        for name, logged in metrics_by_name.items():
            old = new.get(name, {"steps": [], "values": [], "timestamps": []})
            times = [time.isoformat() for time in logged["timestamps"]]
            new[name] = {
                "steps": old["steps"] + logged["steps"],
                "values": old["values"] + logged["values"],
                "timestamps": old["timestamps"] + times,
            }
        self.save_json(new, "metrics.json")
        self._metrics = new

    def artifact_event(
        self, name: str, filename: str, metadata: Any = None, content_type: str | None = None
    ) -> None:
        self.save_file(filename, name)
        if name not in self.run_entry["artifacts"]:
            self.run_entry["artifacts"].append(name)
        self.save_json(self.run_entry, "run.json")

    def keep(self, pending: list[Event]) -> str:
        return f"{len(pending)} entries of the record (status, metrics or files) in {self.dir}"


class _Mongo(MongoObserver):
    """Sacred's database layout; errors reach the caller, nothing is pickled or printed."""

    def __init__(self, client: Any, db_name: str, location: str, spill_directory: Path) -> None:
        super().__init__(client=client, db_name=db_name)
        self._unsent = Unsent(spill_directory / "unsent", db_name, location)
        self._offline = False

    def portions(self, metrics_by_name: dict[str, Any]) -> list[dict[str, Any]]:
        # Each name is a document: if one write fails, the others are not repeated.
        return [{name: logged} for name, logged in metrics_by_name.items()]

    def save(self) -> None:
        if not self._offline:
            # Upsert: a server that lost its newest data in a crash gets the whole entry again.
            self.runs.update_one({"_id": self.run_entry["_id"]}, {"$set": self.run_entry}, upsert=True)

    def final_save(self, attempts: int) -> None:
        self.save()

    @staticmethod
    def _try_to_detect_content_type(filename: str) -> str | None:
        return mimetypes.guess_type(filename)[0]

    def keep(self, pending: list[Event]) -> str:
        """Bring the entry up to date without the server and put all that it lacks on disk."""
        self._offline = True
        metrics: dict[str, Any] = {}
        files: dict[str, Path] = {}
        for method, event in pending:
            if method == "log_metrics":
                for name, logged in event["metrics_by_name"].items():
                    kept = metrics.setdefault(name, {"steps": [], "values": [], "timestamps": []})
                    for key, values in kept.items():
                        values += logged[key]
            elif method == "artifact_event":
                files[event["name"]] = Path(event["filename"])
            else:
                getattr(self, method)(**event)
        try:
            folder = self._unsent.put(self.run_entry, metrics, files)
        except (OSError, shutil.Error) as error:
            return f"the end of the record; it could not be kept on disk either ({error})"
        return (
            f"the end of the record ({len(metrics)} metrics, {len(files)} files, the status); it is "
            f"kept in {folder} "
            "and sent as soon as a command opens this store again while the server answers"
        )


def directory_observer(directory: Path) -> SteadyObserver:
    """Return the observer of one run for a folder of runs."""
    return SteadyObserver(_Files(directory), str(directory), passing=(OSError,))


def mongo_observer(client: Any, db_name: str, location: str, spill_directory: Path) -> SteadyObserver:
    """Return the observer of one run for a database; ``spill_directory`` keeps what it cannot send."""
    inner = _Mongo(client, db_name, location, spill_directory)
    # ConnectionFailure holds timeouts, restarts and failovers; other errors of a request would come again.
    lasting = (PyMongoError, OverflowError, OSError)
    return SteadyObserver(inner, f"{location} ({db_name})", passing=(ConnectionFailure,), lasting=lasting)
