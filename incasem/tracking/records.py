"""A run as a whole, whichever store it is in: what copying runs from one store to another moves.

Records have the shape of Sacred's MongoObserver: times are `datetime` (UTC, without a zone), the settings
stand under `config`. Files and metrics are opened one at a time, so that a run need not fit into memory at
once.
"""

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, TypeAlias

from incasem.errors import TrackingError
from incasem.tracking.mongo import MongoStore
from incasem.tracking.stores import DirectoryStore, RunStore

Opener: TypeAlias = Callable[[], IO[bytes]]
TIMES = ("start_time", "stop_time", "heartbeat")


@dataclass(frozen=True)
class RunRecord:
    """A run with all that is recorded of it.

    Attributes:
        run_id: its number.
        entry: Sacred's run entry without artifacts; `_id` is the number.
        metrics: yields name and `steps`, `values`, `timestamps` of each metric.
        metric_names: their names.
        artifacts: files recorded with the run.
        sources: source files of the run, by their path.
    """

    run_id: int
    entry: dict[str, Any]
    metrics: Callable[[], Iterator[tuple[str, dict[str, list[Any]]]]]
    metric_names: tuple[str, ...]
    artifacts: Mapping[str, Opener]
    sources: Mapping[str, Opener] = field(default_factory=dict)

    def identity(self) -> tuple[object, ...]:
        """Return what two records of the same run share, whatever has been added to one of them since."""
        experiment, host = self.entry.get("experiment") or {}, self.entry.get("host") or {}
        start = _to_milliseconds(self.entry.get("start_time"))
        return experiment.get("name"), host.get("hostname"), start

    def state(self) -> tuple[object, ...]:
        """Return what tells an earlier copy of the same run from the complete one."""
        times = tuple(_to_milliseconds(self.entry.get(name)) for name in TIMES)
        return self.entry.get("status"), times, sorted(self.metric_names), len(self.artifacts)


def _to_milliseconds(time: Any) -> Any:
    """Return a time as precise as MongoDB keeps it."""
    if not isinstance(time, datetime):
        return time
    return time.replace(microsecond=time.microsecond // 1000 * 1000, tzinfo=None)


def read_record(store: RunStore, run_id: int) -> RunRecord:
    """Return the record of a run.

    Raises:
        TrackingError: there is no such run, or it is damaged.
    """
    if isinstance(store, DirectoryStore):
        return _from_directory(store, run_id)
    if isinstance(store, MongoStore):
        return _from_mongo(store, run_id)
    raise TypeError(f"{type(store).__name__} is no run store")


def _from_directory(store: DirectoryStore, run_id: int) -> RunRecord:
    info = store.info(run_id)  # also tells a missing run from a damaged one
    folder = store.directory / str(run_id)
    entry = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    for name in TIMES:
        if isinstance(entry.get(name), str):
            entry[name] = datetime.fromisoformat(entry[name])
    output = folder / "cout.txt"
    entry |= {
        "_id": run_id,
        "config": store.config(run_id),
        "info": _optional_json(folder / "info.json"),
        "captured_out": output.read_text(encoding="utf-8", errors="replace") if output.exists() else "",
    }
    sources = (entry.get("experiment") or {}).get("sources") or []
    found = {str(name): store.directory / str(place) for name, place in sources}
    metrics = store.metrics(run_id)

    def each() -> Iterator[tuple[str, dict[str, list[Any]]]]:
        for name, metric in metrics.items():
            times = [time.astimezone(UTC).replace(tzinfo=None) for time in metric.times]
            yield (
                name,
                {"steps": list(metric.steps), "values": list(metric.values), "timestamps": times},
            )

    return RunRecord(
        run_id,
        entry,
        each,
        tuple(metrics),
        {name: _file(folder / name) for name in info.artifacts if (folder / name).is_file()},
        {name: _file(place) for name, place in found.items() if place.is_file()},
    )


def _file(path: Path) -> Opener:
    return lambda: path.open("rb")


def _optional_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrackingError(
            f"{path} cannot be read ({error}); allowed: JSON as Sacred writes it. Restore the file, or leave "
            "this run out."
        ) from None
    return content


def _from_mongo(store: MongoStore, run_id: int) -> RunRecord:
    import gridfs

    with store.answering():
        entry = store.entry(run_id)
        names = tuple(store.database["metrics"].distinct("name", {"run_id": run_id}))

    def each() -> Iterator[tuple[str, dict[str, list[Any]]]]:
        with store.answering():
            for metric in store.database["metrics"].find({"run_id": run_id}, batch_size=1):
                yield metric["name"], {key: metric[key] for key in ("steps", "values", "timestamps")}

    files = gridfs.GridFS(store.database)

    def stored(file_id: Any) -> Opener:
        def read() -> IO[bytes]:
            with store.answering():
                return io.BytesIO(files.get(file_id).read())

        return read

    return RunRecord(
        run_id,
        entry,
        each,
        names,
        {artifact["name"]: stored(artifact["file_id"]) for artifact in entry.get("artifacts") or []},
        {name: stored(file_id) for name, file_id in (entry.get("experiment") or {}).get("sources") or []},
    )
