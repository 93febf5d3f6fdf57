"""Run a function as a recorded Sacred experiment."""

import json
import logging
import math
import os
import secrets
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TypeVar

from incasem.errors import TrackingError
from incasem.tracking.environment import git_state, gpu_names, hide_credentials, package_versions
from incasem.tracking.stores import RunStore

log = logging.getLogger(__name__)
Result = TypeVar("Result")

# How long the end of a run waits for a store that is away.
PATIENCE_S = 20.0
SIGTERM_EXIT_CODE = 128 + signal.SIGTERM


class Run:
    """A run in progress, as its function sees it."""

    def __init__(self, sacred_run: Any, store: RunStore) -> None:
        """Wrap Sacred's run."""
        self._run = sacred_run
        self._store = store
        self._not_finite: set[str] = set()

    @property
    def run_id(self) -> int:
        """The id that the store gave; folders are named `%04d` after it."""
        return int(self._run._id)

    @property
    def config(self) -> dict[str, Any]:
        """The recorded settings, with the seed."""
        return dict(self._run.config)

    @property
    def store(self) -> RunStore:
        """Where the run is recorded."""
        return self._store

    def log_scalar(self, name: str, value: float, step: int) -> None:
        """Record a metric value at a step; NaN and infinity are left out, with a warning for each name.

        Values reach the store with the next heartbeat, within 10 s.
        """
        number = float(value)
        if math.isfinite(number):
            self._run.log_scalar(name, number, int(step))
        elif name not in self._not_finite:
            self._not_finite.add(name)
            log.warning("%s is %s at step %d; such values are not recorded", name, number, step)

    def add_artifact(self, path: Path, name: str | None = None) -> None:
        """Store a copy of a file with the run, under its own name or ``name``."""
        self._run.add_artifact(str(path), name)


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """The id under which a run was recorded and what its function returned."""

    run_id: int
    result: Result


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM; Sacred records a KeyboardInterrupt as INTERRUPTED."""


def run_experiment(
    *,
    name: str | None,
    kind: str,
    config: Mapping[str, Any],
    store: RunStore,
    main: Callable[[Run], Result],
    artifacts: Sequence[Path] = (),
    options: Mapping[str, Any] | None = None,
) -> Outcome[Result]:
    """Run ``main``; record settings, versions, git state, host, metrics, files, log and result in ``store``.

    Args:
        name: of the run; found as `experiment.name` and `meta.options["--name"]`. None: ``kind``.
        kind: `train`, `predict` …, recorded as the command.
        config: JSON-able settings; a missing seed is drawn and recorded. Python's, numpy's and (if
            loaded) torch's global generators are seeded with it.
        store: the run store.
        main: the run; what it returns is recorded as the result if it can be written as JSON.
        artifacts: files to be stored before ``main`` begins, such as data configurations.
        options: command-line options for the record; credentials in URLs are masked.

    Returns:
        the run's id and the result of ``main``.

    Raises:
        TrackingError: the store cannot be written at the start, or the record is incomplete at the end
            (``main`` itself has succeeded then).
        SystemExit: code 143 after SIGTERM, which is recorded as INTERRUPTED like Ctrl-C.

    Whatever ``main`` raises comes out unchanged, after it was recorded as FAILED.
    """
    settings = json.loads(json.dumps(dict(config)))
    if settings.get("seed") is None:
        settings["seed"] = secrets.randbelow(2**31)
    kept: list[Result] = []

    def recorded_main(_run: Any) -> Any:
        run = Run(_run, store)
        with _log_file(store.log_file(run.run_id), run):
            for artifact_name, path in _distinct_names(artifacts).items():
                run.add_artifact(path, artifact_name)
            result = main(run)
        kept.append(result)
        return _as_json(result)

    experiment = _experiment(kind, settings, recorded_main)
    shown = hide_credentials({"--name": name, **(options or {})})
    run_id = _run_and_finish(experiment, store, name or kind, shown)
    return Outcome(run_id, kept[0])


def _run_and_finish(experiment: Any, store: RunStore, name: str, options: Mapping[str, Any]) -> int:
    """Run an experiment, complete its record however it ends, and return its id; see `run_experiment`."""
    observer = store.observer()
    experiment.observers.append(observer)
    failed = True
    try:
        with _sigterm_as_interrupt():
            experiment.run(options={"--name": name, "--capture": "no"}, meta_info={"options": options})
        failed = False
    except _TerminatedError:
        raise SystemExit(SIGTERM_EXIT_CODE) from None
    finally:
        missing = _finish(experiment.current_run, observer, patience_s=3.0 if failed else PATIENCE_S)
        if missing and failed:
            log.warning("the record of the run in %s lacks %s", store.location, missing)
    run_id = int(experiment.current_run._id)
    if missing:
        raise TrackingError(
            f"run {run_id} has ended and its results are complete, but its record in {store.location} "
            f"({store.db_name}) lacks {missing}. Check that the store can be reached and written; the "
            "run itself need not be repeated."
        )
    return run_id


def _experiment(kind: str, settings: dict[str, Any], main: Callable[[Any], Any]) -> Any:
    """Return a bare Sacred experiment: no ingredients, no config scopes, one command."""
    from incasem.tracking.sacred_library import HostInfoGetter, PackageDependency, sacred

    class Experiment(sacred.Experiment):
        def get_experiment_info(self) -> dict[str, Any]:
            info = dict(super().get_experiment_info())
            state = git_state()
            info["repositories"] = [] if state is None else [state]
            return info

    experiment = Experiment(
        kind,
        interactive=True,
        save_git_info=False,
        additional_host_info=[HostInfoGetter(gpu_names, "gpu_names")],
    )
    experiment.mainfile, experiment.sources = None, set()
    experiment.dependencies = {PackageDependency(*item) for item in package_versions().items()}
    # Without a logger of its own Sacred replaces the root logger's handlers. Ours goes to the log file only.
    logger = logging.getLogger("sacred")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    experiment.logger = logger
    experiment.add_config(settings)
    main.__name__ = kind
    experiment.main(main)
    return experiment


def _finish(sacred_run: Any, observer: Any, patience_s: float) -> str | None:
    if sacred_run is None or sacred_run._id is None:
        return None
    heartbeat = sacred_run._heartbeat
    if heartbeat is not None:
        # Sacred waits two seconds for its last heartbeat, less than a server that is away takes to say so.
        heartbeat.join(timeout=30.0)
    missing: str | None = observer.finish(patience_s)
    return missing


@contextmanager
def _log_file(path: Path, run: Run) -> Iterator[None]:
    """Write the log to ``path`` while the run lasts, and store it with the run, however that ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(), logging.getLogger("sacred")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    except BaseException:
        loggers[1].error("the run ends with\n%s", traceback.format_exc())
        raise
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()
        run.add_artifact(path, "log.txt")


_process_of_the_run = 0


def _on_sigterm(number: int, _: FrameType | None) -> None:
    if os.getpid() == _process_of_the_run:
        raise _TerminatedError
    _forget_sigterm_in_child()
    os.kill(os.getpid(), number)


def _forget_sigterm_in_child() -> None:
    # Forked workers (a data loader's) inherit the handler; for them SIGTERM means what it always does.
    if signal.getsignal(signal.SIGTERM) is _on_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


os.register_at_fork(after_in_child=_forget_sigterm_in_child)


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the run as Ctrl-C does, unless the caller handles it or this is not the main thread."""
    global _process_of_the_run
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    _process_of_the_run = os.getpid()
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is _on_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _distinct_names(paths: Sequence[Path]) -> dict[str, Path]:
    """Return names for files: their own, numbered where two different files share one."""
    names: dict[str, Path] = {}
    for path in dict.fromkeys(Path(p).absolute() for p in paths):
        name, number = path.name, 2
        while name in names:
            name, number = f"{path.stem}_{number}{path.suffix}", number + 1
        names[name] = path
    return names


def _as_json(value: Any) -> Any:
    """Return the result as it can be recorded: JSON without NaN, else its text."""
    if isinstance(value, dict):
        return {str(key).replace(".", ",").replace("$", "@"): _as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(inner) for inner in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)
