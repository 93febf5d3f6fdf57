"""The run store in MongoDB, laid out as Sacred's MongoObserver does and Omniboard expects."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from incasem.errors import TrackingError
from incasem.tracking.stores import Metric, RunInfo, info_of, no_such_artifact, no_such_run

if TYPE_CHECKING:
    from incasem.tracking.observers import SteadyObserver

PATIENCE_MS = 5000


def without_credentials(url: str) -> str:
    """Return a database URL as it may be shown: no user, no password, no options."""
    scheme, _, rest = url.partition("://")
    # A password that is not percent-encoded may hold any separator, so everything up to the last @ goes.
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}".rstrip("/")


class MongoStore:
    """Runs in the collections `runs`, `metrics` and GridFS of one database."""

    def __init__(self, url: str, db_name: str, spill_directory: Path) -> None:
        """Connect.

        Args:
            url: `mongodb://…`, with credentials if the server wants some.
            db_name: `incasem_trainings` or `incasem_predictions`.
            spill_directory: keeps the logs of runs that go on, and what could not be sent to the server.

        Raises:
            TrackingError: the server does not answer within five seconds, or refuses the user.
        """
        import pymongo
        from pymongo.errors import ConfigurationError, InvalidURI

        self._url, self._db_name = url, db_name
        self.spill_directory = spill_directory
        # A setting in the URL wins over an argument of the same name.
        patience = {"serverSelectionTimeoutMS": PATIENCE_MS, "connectTimeoutMS": PATIENCE_MS}
        unset: Any = {key: value for key, value in patience.items() if key.lower() not in url.lower()}
        try:
            self._client: Any = pymongo.MongoClient(url, **unset)
        except (InvalidURI, ConfigurationError, ValueError) as error:
            raise TrackingError(
                f"the database URL {self.location} cannot be used ({type(error).__name__}); allowed: "
                "mongodb://[user:password@]host[:port], special characters of the password percent-encoded. "
                "Correct the url in trainings_db.json / predictions_db.json or in INCASEM_RUNS."
            ) from None
        self._database = self._client[db_name]
        try:
            with self.answering():
                self._client.admin.command("ping")
                # Only a look at the data tells whether the user may read it.
                self._database["runs"].find_one({}, {"_id": 1})
        except TrackingError:
            self._client.close()
            raise
        self._send_what_was_kept()

    @property
    def location(self) -> str:
        """The server, without credentials."""
        return without_credentials(self._url)

    @property
    def db_name(self) -> str:
        """The database."""
        return self._db_name

    @property
    def database(self) -> Any:
        """pymongo's database; use it within `answering`."""
        return self._database

    def list_runs(self) -> list[RunInfo]:
        """Return all runs, the oldest id first."""
        with self.answering():
            entries = list(self._database["runs"].find({}, {"captured_out": 0, "config": 0}).sort("_id", 1))
        # Ids that are no numbers come from Sacred's own --id, which we never pass on.
        return [_info(entry) for entry in entries if isinstance(entry["_id"], int)]

    def exists(self, run_id: int) -> bool:
        """Return whether the store holds this run."""
        with self.answering():
            return self._database["runs"].find_one({"_id": run_id}, {"_id": 1}) is not None

    def config(self, run_id: int) -> dict[str, Any]:
        """Return the settings that the run was started with."""
        config: dict[str, Any] = self.entry(run_id).get("config") or {}
        return config

    def info(self, run_id: int) -> RunInfo:
        """Return the record of a run."""
        return _info(self.entry(run_id))

    def metrics(self, run_id: int, pattern: str = "") -> dict[str, Metric]:
        """Return the metrics of a run by name, those whose names fit a regular expression."""
        self.entry(run_id)
        with self.answering():
            documents = list(self._database["metrics"].find({"run_id": run_id, "name": {"$regex": pattern}}))
        return {
            metric["name"]: Metric(
                tuple(metric["steps"]),
                tuple(metric["values"]),
                tuple(time.replace(tzinfo=UTC) for time in metric["timestamps"]),
            )
            for metric in documents
        }

    def artifact(self, run_id: int, name: str) -> bytes:
        """Return the content of a file recorded with the run."""
        import gridfs

        files = {a["name"]: a["file_id"] for a in self.entry(run_id).get("artifacts", [])}
        if name not in files:
            raise no_such_artifact(self, run_id, name, list(files))
        with self.answering():
            content: bytes = gridfs.GridFS(self._database).get(files[name]).read()
        return content

    def observer(self) -> "SteadyObserver":
        """Return a Sacred observer that records one run here."""
        from incasem.tracking.observers import mongo_observer

        with self.answering():
            stray = self._database["runs"].find_one({"_id": {"$type": "string"}}, {"_id": 1})
        if stray is not None:
            raise TrackingError(
                f"{self.location} ({self.db_name}) holds a run whose id is the text {stray['_id']!r}; "
                "allowed: "
                "numbers, of which the next one is found by counting. Delete or renumber that run."
            )
        return mongo_observer(self._client, self._db_name, self.location, self.spill_directory)

    def log_file(self, run_id: int) -> Path:
        """Return the log's place beside the trainings; it is copied to the database when the run ends."""
        return self.spill_directory / "logs" / self._db_name / f"{run_id:04d}.txt"

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def __enter__(self) -> Self:
        """Return the store."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    def entry(self, run_id: int) -> dict[str, Any]:
        """Return a run's document; TrackingError if there is no such run."""
        with self.answering():
            entry: dict[str, Any] | None = self._database["runs"].find_one({"_id": run_id})
        if entry is None:
            raise no_such_run(self, run_id)
        return entry

    def _send_what_was_kept(self) -> None:
        if (self.spill_directory / "unsent").is_dir():
            from incasem.tracking.unsent import Unsent

            Unsent(self.spill_directory / "unsent", self._db_name, self.location).send(self._database)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Turn pymongo's errors into ours, without what they may quote of the URL."""
        from pymongo.errors import OperationFailure, PyMongoError

        try:
            yield
        except OperationFailure as error:
            raise TrackingError(
                f"{self.location} ({self._db_name}) refuses the request (code {error.code}); allowed: "
                "a user who may "
                "read and write this database. Give user and password in the URL: "
                "INCASEM_RUNS=mongodb://user:password@host:27017."
            ) from None
        except PyMongoError as error:
            raise TrackingError(
                f"MongoDB at {self.location} does not answer ({type(error).__name__}); allowed: a "
                "running server. "
                "Start it (sudo service mongod start), check host, port and firewall, or record runs "
                "in a folder: "
                'set "url" to null in trainings_db.json and predictions_db.json and leave INCASEM_RUNS unset.'
            ) from None


def _info(entry: dict[str, Any]) -> RunInfo:
    return info_of(entry, entry["_id"], [artifact["name"] for artifact in entry.get("artifacts", [])])
