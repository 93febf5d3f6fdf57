"""Run stores: what was run with which settings, and what came out.

Two stores hold the same: a directory in the layout of Sacred's FileStorageObserver, and a MongoDB database in
that of its MongoObserver, as Omniboard reads it (`mongo.py`). Trainings and predictions have a store each, so
that each counts its runs from 1.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from incasem.errors import TrackingError

if TYPE_CHECKING:
    from incasem.tracking.observers import SteadyObserver


@dataclass(frozen=True)
class RunInfo:
    """What a store knows of a run besides its settings and metrics; times are UTC."""

    run_id: int
    name: str
    kind: str
    status: str
    """RUNNING, COMPLETED, FAILED or INTERRUPTED; a run whose process was killed stays RUNNING."""
    started: datetime | None = None
    stopped: datetime | None = None
    heartbeat: datetime | None = None
    host: str = ""
    result: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    artifacts: tuple[str, ...] = ()
    failure: str | None = None
    """Last line of the traceback of a failed run."""
    commit: str | None = None
    """Of the code that made the run; None where it was installed without its repository."""


@dataclass(frozen=True)
class Metric:
    """The values of one metric in the order in which they were logged."""

    steps: tuple[int, ...]
    values: tuple[float, ...]
    times: tuple[datetime, ...]


class RunStore(Protocol):
    """Where runs are recorded."""

    @property
    def location(self) -> str:
        """Where the store is, for messages; without credentials."""

    @property
    def db_name(self) -> str:
        """`incasem_trainings` or `incasem_predictions`."""

    def list_runs(self) -> list[RunInfo]:
        """Return all runs, the oldest id first."""

    def exists(self, run_id: int) -> bool:
        """Return whether the store holds this run."""

    def config(self, run_id: int) -> dict[str, Any]:
        """Return the settings that the run was started with; TrackingError if there is no such run."""

    def info(self, run_id: int) -> RunInfo:
        """Return the record of a run; TrackingError if there is no such run."""

    def metrics(self, run_id: int, pattern: str = "") -> dict[str, Metric]:
        """Return the metrics of a run whose names fit a regular expression.

        TrackingError if there is no such run.
        """

    def artifact(self, run_id: int, name: str) -> bytes:
        """Return the content of a file recorded with the run; TrackingError if there is none."""

    def observer(self) -> "SteadyObserver":
        """Return a Sacred observer that records one run here."""

    def log_file(self, run_id: int) -> Path:
        """Return where the log of a run is written while it runs."""

    def close(self) -> None:
        """Give back connections."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def no_such_run(store: RunStore, run_id: int, others: str = "") -> TrackingError:
    """Return the error for a run that the store does not hold, with those that it does, and ``others``."""
    ids = [run.run_id for run in store.list_runs()]
    held = id_ranges(ids) if ids else "none yet"
    return TrackingError(
        f"run {run_id} is not in {store.location} ({store.db_name}); allowed: the runs recorded "
        f"there, {held}{others}. "
        "Check the run id, and that trainings_db.json, predictions_db.json or INCASEM_RUNS name the "
        "store meant."
    )


def id_ranges(ids: Sequence[int]) -> str:
    """Return increasing run ids as text: `1-3, 7`; long lists are shortened in the middle."""
    parts: list[str] = []
    first = last = ids[0]
    for number in [*ids[1:], None]:
        if number == last + 1:
            last = number
            continue
        parts.append(str(first) if first == last else f"{first}-{last}")
        if number is not None:
            first = last = number
    return ", ".join(parts if len(parts) <= 12 else [*parts[:3], "…", *parts[-8:]])


def info_of(entry: dict[str, Any], run_id: int, artifacts: Sequence[str]) -> RunInfo:
    """Read Sacred's run entry, which both observers write with the same keys."""
    experiment, meta = entry.get("experiment") or {}, entry.get("meta") or {}
    trace = entry.get("fail_trace") or []
    return RunInfo(
        run_id=run_id,
        name=str(experiment.get("name", "")),
        kind=str(entry.get("command", "")),
        status=str(entry.get("status", "")),
        started=as_time(entry.get("start_time")),
        stopped=as_time(entry.get("stop_time")),
        heartbeat=as_time(entry.get("heartbeat")),
        host=str((entry.get("host") or {}).get("hostname", "")),
        result=entry.get("result"),
        options=dict(meta.get("options") or {}),
        artifacts=tuple(artifacts),
        failure=trace[-1].strip() if trace else None,
        commit=next((r.get("commit") for r in experiment.get("repositories") or []), None),
    )


def as_time(value: Any) -> datetime | None:
    """Return a recorded time (UTC, without a zone, as Sacred writes it) with its zone."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else None


class DirectoryStore:
    """Runs as folders `ROOT/DB_NAME/ID/` with `run.json`, `config.json`, `metrics.json` and artifacts."""

    def __init__(self, root: Path, db_name: str) -> None:
        """Name the store; folders are made by the first run."""
        self._root = Path(root)
        self._db_name = db_name

    @property
    def location(self) -> str:
        """The root folder."""
        return str(self._root)

    @property
    def db_name(self) -> str:
        """The folder below it."""
        return self._db_name

    @property
    def directory(self) -> Path:
        """The folder of the runs' folders."""
        return self._root / self._db_name

    def _ids(self) -> list[int]:
        try:
            names = [path.name for path in self.directory.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise TrackingError(
                f"the run store {self.directory} cannot be read: {error.strerror}; allowed: a "
                "readable folder. "
                "Check its path and permissions."
            ) from None
        return sorted(int(n) for n in names if n.isdecimal() and (self.directory / n / "run.json").exists())

    def list_runs(self) -> list[RunInfo]:
        """Return all runs, the oldest id first."""
        return [self.info(run_id) for run_id in self._ids()]

    def exists(self, run_id: int) -> bool:
        """Return whether the store holds this run."""
        return run_id in self._ids()

    def config(self, run_id: int) -> dict[str, Any]:
        """Return the settings that the run was started with."""
        config: dict[str, Any] = self._read(run_id, "config.json")
        return config

    def info(self, run_id: int) -> RunInfo:
        """Return the record of a run."""
        entry = self._read(run_id, "run.json")
        return info_of(entry, run_id, entry.get("artifacts", []))

    def metrics(self, run_id: int, pattern: str = "") -> dict[str, Metric]:
        """Return the metrics of a run by name, those whose names fit a regular expression."""
        if not self.exists(run_id):
            raise no_such_run(self, run_id)
        if not (self.directory / str(run_id) / "metrics.json").exists():
            return {}
        return {
            name: Metric(
                tuple(values["steps"]),
                tuple(values["values"]),
                tuple(datetime.fromisoformat(t).replace(tzinfo=UTC) for t in values["timestamps"]),
            )
            for name, values in self._read(run_id, "metrics.json").items()
            if re.search(pattern, name)
        }

    def artifact(self, run_id: int, name: str) -> bytes:
        """Return the content of a file recorded with the run."""
        names = self.info(run_id).artifacts
        if name not in names:
            raise no_such_artifact(self, run_id, name, names)
        return (self.directory / str(run_id) / name).read_bytes()

    def observer(self) -> "SteadyObserver":
        """Return a Sacred observer that records one run here."""
        from incasem.tracking.observers import directory_observer

        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrackingError(
                f"the run store {self.directory} cannot be made: {error.strerror}; allowed: a folder "
                "that can be "
                "written. Set directories.runs, or INCASEM_RUNS=/another/folder."
            ) from None
        return directory_observer(self.directory)

    def log_file(self, run_id: int) -> Path:
        """Return the log's place in the run's folder."""
        return self.directory / str(run_id) / "log.txt"

    def close(self) -> None:
        """Do nothing; there are no connections."""

    def __enter__(self) -> Self:
        """Return the store."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""

    def _read(self, run_id: int, file: str) -> Any:
        path = self.directory / str(run_id) / file
        if not self.exists(run_id):
            raise no_such_run(self, run_id)
        try:
            return json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise TrackingError(
                f"{path} cannot be read ({type(error).__name__}: {error}); allowed: the record of a "
                "run as Sacred "
                "writes it. Restore the file, or use another run."
            ) from None


def no_such_artifact(store: RunStore, run_id: int, name: str, names: Sequence[str]) -> TrackingError:
    """Return the error for a file that was not recorded with a run."""
    return TrackingError(
        f"run {run_id} of {store.location} ({store.db_name}) has no file {name!r}; "
        f"allowed: {', '.join(names) or 'none'}. Check the name."
    )
