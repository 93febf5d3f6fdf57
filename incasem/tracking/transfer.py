"""Copy runs into a store, complete or not at all, without ever replacing another run."""

import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from incasem.durable import sync, write_durably
from incasem.errors import TrackingError
from incasem.tracking.mongo import MongoStore
from incasem.tracking.records import Opener, RunRecord, read_record
from incasem.tracking.stores import DirectoryStore, RunStore, id_ranges, no_such_run

_MONGO_FORMAT = "MongoObserver-0.7.0"  # of the entries that Sacred 0.7 and 0.8 write
_OF_MONGO = ("_id", "format", "config", "info", "captured_out", "artifacts")
_RESERVED = ("run.json", "config.json", "cout.txt", "metrics.json", "info.json")


@dataclass(frozen=True)
class TransferReport:
    """Which runs were copied, and which the target had already; `where` is the target."""

    copied: tuple[int, ...]
    there: tuple[int, ...]
    where: str

    def summary(self) -> str:
        """Return one line for the terminal."""
        copied = f"{len(self.copied)} runs ({id_ranges(self.copied)})" if self.copied else "no runs"
        there = f"; {len(self.there)} were there" if self.there else ""
        return f"{copied} copied to {self.where}{there}"


def export_runs(source: RunStore, target: RunStore, run_ids: Iterable[int] = ()) -> TransferReport:
    """Copy runs with their numbers, settings, metrics, files, output and results from a store to another.

    A run that the target has in the same state is passed over; one of which it has an earlier state (still
    running then) is brought up to date.

    Args:
        source: where the runs are.
        target: where they go; its other runs are not touched.
        run_ids: which; none: all.

    Raises:
        TrackingError: a run does not exist or is damaged, or the target has another run of the same number;
        nothing is
            written then.
    """
    if (source.location, source.db_name) == (target.location, target.db_name):
        raise TrackingError(
            f"source and target are both {source.location} ({source.db_name}); allowed: two run stores. "
            "Name the target with --to."
        )
    wanted = list(dict.fromkeys(run_ids)) or [run.run_id for run in source.list_runs()]
    for run_id in wanted:
        if not source.exists(run_id):
            raise no_such_run(source, run_id)
    return copy_records(wanted, lambda run_id: read_record(source, run_id), target)


def copy_records(
    run_ids: Iterable[int], read: Callable[[int], RunRecord], target: RunStore
) -> TransferReport:
    """Copy records into a store; see `export_runs`. One record at a time is in memory."""
    todo: list[int] = []
    there: list[int] = []
    others: list[int] = []
    for run_id in run_ids:
        if not target.exists(run_id):
            todo.append(run_id)
            continue
        new, old = read(run_id), read_record(target, run_id)
        if new.identity() != old.identity():
            others.append(run_id)
        else:
            (there if new.state() == old.state() else todo).append(run_id)
    if others:
        raise TrackingError(
            f"{target.location} ({target.db_name}) has other runs with the numbers {id_ranges(others)}; "
            "allowed: numbers that are free there, since runs are never replaced. Nothing was copied. Choose "
            "the runs to copy by their numbers, or another target."
        )
    for run_id in todo:
        _write(read(run_id), target)
    return TransferReport(tuple(todo), tuple(there), f"{target.location} ({target.db_name})")


def _write(record: RunRecord, target: RunStore) -> None:
    if isinstance(target, DirectoryStore):
        _to_directory(record, target)
    elif isinstance(target, MongoStore):
        _to_mongo(record, target)
    else:
        raise TypeError(f"{type(target).__name__} is no run store")


def _to_directory(record: RunRecord, store: DirectoryStore) -> None:
    """Write a run's folder beside its place, and rename it when it is whole."""
    store.directory.mkdir(parents=True, exist_ok=True)
    folder = store.directory / str(record.run_id)
    new = store.directory / f".{record.run_id}.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    entry = {key: value for key, value in record.entry.items() if key not in _OF_MONGO}
    names = {}
    for name, opener in record.artifacts.items():
        names[name] = _file_name(name)
        with opener() as stream:
            write_durably(new / names[name], partial(shutil.copyfileobj, stream))
    entry["artifacts"] = list(names.values())
    if isinstance(entry.get("experiment"), dict):
        kept = [[name, _source(store.directory, name, opener)] for name, opener in record.sources.items()]
        entry["experiment"] = entry["experiment"] | {"sources": kept}
    metrics = {name: _metric_as_json(values) for name, values in record.metrics()}
    output = str(record.entry.get("captured_out") or "")
    write_durably(new / "cout.txt", output.encode())
    for name, content in (
        ("config.json", record.entry.get("config") or {}), ("metrics.json", metrics),
        ("info.json", record.entry.get("info") or {}), ("run.json", entry),
    ):  # fmt: skip
        text = json.dumps(as_json(content), indent=2, sort_keys=True)
        write_durably(new / name, text.encode())
    if folder.exists():
        old = store.directory / f".{record.run_id}.old"
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old)
    else:
        new.rename(folder)
    sync(store.directory)


def _file_name(name: str) -> str:
    """Return an artifact's name as a file of the run's folder: no path, and none of Sacred's own."""
    flat = re.sub(r"[/\\\0]", "_", name).lstrip(".") or "file"
    return f"artifact_{flat}" if flat in _RESERVED else flat


def _source(directory: Path, name: str, opener: Opener) -> str:
    """Keep a source file as Sacred does, once for all runs that share it; return its path in the store."""
    with opener() as stream:
        content = stream.read()
    path = Path(_file_name(Path(name).name))
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    place = Path("_sources") / f"{path.stem}_{digest}{path.suffix}"
    (directory / "_sources").mkdir(exist_ok=True)
    if not (directory / place).exists():
        write_durably(directory / place, content)
    return str(place)


def _metric_as_json(metric: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return the finite values: JSON has no others, and `Run.log_scalar` keeps none."""
    steps, values, times = (metric[key] for key in ("steps", "values", "timestamps"))
    kept = [i for i, value in enumerate(values) if isinstance(value, int | float) and math.isfinite(value)]
    return {
        "steps": [int(steps[i]) for i in kept],
        "values": [values[i] for i in kept],
        "timestamps": [times[i].isoformat() for i in kept],
    }


def as_json(value: Any) -> Any:
    """Return a value from BSON as JSON: times as text, ids as text, no NaN, no bytes."""
    if isinstance(value, dict):
        return {str(key): as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(inner) for inner in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return value.hex() if isinstance(value, bytes) else str(value)


def _to_mongo(record: RunRecord, store: MongoStore) -> None:
    """Write files, then metrics, then the entry: a run that can be seen is complete."""
    from bson.errors import InvalidDocument

    entry = {key: value for key, value in record.entry.items() if key != "_id"}
    try:
        with store.answering():
            entry["artifacts"] = [
                {"name": name, "file_id": _grid_file(store, record.run_id, "artifact", name, opener)}
                for name, opener in record.artifacts.items()
            ]
            if isinstance(entry.get("experiment"), dict):
                sources = [
                    [name, _grid_file(store, record.run_id, "source", name, opener)]
                    for name, opener in record.sources.items()
                ]
                entry["experiment"] = entry["experiment"] | {"sources": sources}
            info = dict(entry.get("info") or {})
            info["metrics"] = [
                {"name": name, "id": _mongo_metric(store, record.run_id, name, values)}
                for name, values in record.metrics()
            ]
            if not info["metrics"]:
                del info["metrics"]
            entry |= {"info": info, "format": entry.get("format", _MONGO_FORMAT)}
            store.database["runs"].replace_one({"_id": record.run_id}, entry, upsert=True)
    except (InvalidDocument, OverflowError) as error:
        raise TrackingError(
            f"run {record.run_id} cannot be stored in MongoDB ({error}); allowed: settings and results "
            "without whole numbers beyond 64 bits. Leave this run out."
        ) from None


def _mongo_metric(store: MongoStore, run_id: int, name: str, values: dict[str, list[Any]]) -> str:
    """Store a metric, and return the id by which Omniboard finds it."""
    where = {"run_id": run_id, "name": name}
    store.database["metrics"].replace_one(where, where | values, upsert=True)
    return str(store.database["metrics"].find_one(where, {"_id": 1})["_id"])


def _grid_file(store: MongoStore, run_id: int, kind: str, name: str, opener: Opener) -> Any:
    """Store a file under an id made of its content, so that a repeated copy does not store it again."""
    import gridfs
    from bson import ObjectId

    digest = hashlib.sha256()
    with opener() as stream:
        while portion := stream.read(1 << 20):
            digest.update(portion)
    key = f"{store.db_name}/{run_id}/{kind}/{name}/{digest.hexdigest()}"
    file_id = ObjectId(hashlib.sha256(key.encode()).digest()[:12])
    files = gridfs.GridFS(store.database)
    if not files.exists(file_id):
        files.delete(file_id)  # chunks of a copy that broke off
        with opener() as stream:
            files.put(stream, _id=file_id, filename=f"{kind}://runs/{run_id}/{name}")
    return file_id
