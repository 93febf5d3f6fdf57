"""What `incasem runs` shows: tables of recorded runs for the terminal, and the same as JSON."""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from incasem.config import PredictionConfig, TrainingConfig
from incasem.errors import TrackingError, did_you_mean
from incasem.runs.scored import OVERVIEW, Best, best_f1, lowest_validation_loss
from incasem.tracking import PREDICTIONS, Metric, RunInfo, RunStore

# Sacred writes a heartbeat every 10 s; the process of a run that is silent for so long is gone.
_SILENT = timedelta(minutes=5)
_WIDEST = 48
Row = dict[str, Any]


def list_rows(store: RunStore, *, last: int | None = None, status: str | None = None) -> list[Row]:
    """Return a row for each run, the oldest first.

    Raises:
        TrackingError: the store cannot be read.
    """
    runs = [run for run in store.list_runs() if status is None or status_of(run) == status.upper()]
    rows = []
    for run in runs if last is None else runs[max(len(runs) - last, 0) :]:
        metrics = store.metrics(run.run_id, OVERVIEW)
        rows.append(
            {
                "id": run.run_id, "name": run.name, "kind": run.kind, "status": status_of(run),
                "started": _time(run.started), "took": _duration(run), **_scores(metrics),
            }
        )  # fmt: skip
    return rows


def _scores(metrics: Mapping[str, Metric]) -> Row:
    f1, loss = best_f1(metrics), lowest_validation_loss(metrics)
    at = f1 or loss
    return {"F1": _value(f1), "loss": _value(loss), "at": None if at is None else at.iteration}


def _value(best: Best | None) -> float | None:
    return None if best is None else best.value


def status_of(run: RunInfo) -> str:
    """Return a run's status; `SILENT` for one that is said to be running but gives no sign of life."""
    seen = run.heartbeat or run.started
    silent = run.status == "RUNNING" and seen is not None and datetime.now(UTC) - seen > _SILENT
    return "SILENT" if silent else run.status


def _time(time: datetime | None) -> str | None:
    return None if time is None else f"{time.astimezone():%Y-%m-%d %H:%M}"


def _duration(run: RunInfo) -> str | None:
    end = run.stopped or run.heartbeat
    if run.started is None or end is None:
        return None
    minutes, seconds = divmod(int((end - run.started).total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def show(store: RunStore, run_id: int) -> Row:
    """Return what is recorded of a run, with a summary of each metric.

    Raises:
        TrackingError: there is no such run.
    """
    run = store.info(run_id)
    metrics = store.metrics(run_id)
    return {
        "id": run_id, "store": f"{store.location} ({store.db_name})", "name": run.name, "kind": run.kind,
        "status": status_of(run), "started": _time(run.started), "took": _duration(run), "host": run.host,
        "commit": (run.commit or "")[:10] or None, "result": run.result, "failure": run.failure,
        **_scores(metrics),
        "files": list(run.artifacts),
        "metrics": [_summary(name, metrics[name]) for name in sorted(metrics) if metrics[name].values],
        "settings": flat(store.config(run_id)),
    }  # fmt: skip


def _summary(name: str, metric: Metric) -> Row:
    lowest, highest = min(metric.values), max(metric.values)
    return {
        "metric": name, "values": len(metric.values), "first": metric.values[0], "last": metric.values[-1],
        "lowest": lowest, "lowest at": metric.steps[metric.values.index(lowest)],
        "highest": highest, "highest at": metric.steps[metric.values.index(highest)],
    }  # fmt: skip


def curve(store: RunStore, run_id: int, name: str) -> list[Row]:
    """Return the values of one metric.

    Raises:
        TrackingError: there is no such run or metric.
    """
    metrics = store.metrics(run_id)
    if name not in metrics:
        raise TrackingError(
            f"run {run_id} has no metric {name!r}; allowed: {', '.join(sorted(metrics)) or 'it has none'}."
            f"{did_you_mean(name, metrics)}"
        )
    metric = metrics[name]
    return [
        {"step": step, name: value, "time": f"{time.astimezone():%Y-%m-%d %H:%M:%S}"}
        for step, value, time in zip(metric.steps, metric.values, metric.times, strict=True)
    ]


def compare(store: RunStore, run_ids: Sequence[int]) -> list[Row]:
    """Return a row for each setting in which runs differ, and for their times and scores.

    Raises:
        TrackingError: a run does not exist.
    """
    shown = {run_id: show(store, run_id) for run_id in run_ids}
    names = dict.fromkeys(name for run in shown.values() for name in run["settings"])
    rows = [
        {"": key, **{str(run_id): run[key] for run_id, run in shown.items()}}
        for key in ("name", "status", "started", "took", "commit", "F1", "loss", "at")
    ]
    for name in names:
        values = {str(run_id): run["settings"].get(name) for run_id, run in shown.items()}
        if len({str(value) for value in values.values()}) > 1:
            rows.append({"": name, **values})
    return rows


def changed_settings(settings: Mapping[str, Any], db_name: str) -> Row:
    """Return the settings (flat) that are not the defaults of a training or of a prediction."""
    model = PredictionConfig if db_name == PREDICTIONS else TrainingConfig
    defaults = flat(model().to_dict())
    return {name: value for name, value in settings.items() if defaults.get(name) != value}


def flat(settings: Mapping[str, Any], prefix: str = "") -> Row:
    """Return nested settings by their dotted names."""
    found: Row = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of a table; numbers are set to the right, long texts are shortened."""
    if not rows:
        return
    columns = list(rows[0])
    cells = [[as_text(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(column), *(len(line[i]) for line in cells)) for i, column in enumerate(columns)]
    right = [_is_numeric(row.get(column) for row in rows) for column in columns]
    for line in [columns, *cells]:
        padded = (
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        )
        yield "  ".join(padded).rstrip()


def _is_numeric(values: Iterator[Any]) -> bool:
    return all(value is None or (isinstance(value, int | float) and value is not True) for value in values)


def as_text(value: Any, widest: int = _WIDEST) -> str:
    """Return a value as a cell: nothing for None, four digits of a fraction."""
    if value is None:
        return ""
    if isinstance(value, float) and math.isfinite(value):
        small = value != 0 and abs(value) < 1e-3
        return f"{value:.4g}" if small or abs(value) >= 1e4 else f"{value:.4f}"
    text = " ".join(str(value).split())
    return text if len(text) <= widest else f"{text[: widest - 1]}…"
