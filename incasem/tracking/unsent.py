"""The ends of records that a database could not take, on disk until it answers again."""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

from bson import json_util

log = logging.getLogger(__name__)


class Unsent:
    """A folder with one sub-folder for each run of one database whose record is incomplete.

    A sub-folder holds `run.json` (extended JSON of BSON: times and ids keep their types; nothing is pickled)
    and the files to be stored.
    """

    def __init__(self, directory: Path, db_name: str, location: str) -> None:
        """Name the folder; ``location`` (without credentials) tells servers apart."""
        self._directory = directory
        self._db_name = db_name
        self._location = location

    def put(self, run_entry: dict[str, Any], metrics: dict[str, Any], files: dict[str, Path]) -> Path:
        """Keep the entry of a run, the metric values not yet sent and copies of the files not yet sent."""
        folder = self._directory / f"{self._db_name}_{run_entry['_id']:04d}"
        being_written = folder.with_suffix(".new")
        shutil.rmtree(being_written, ignore_errors=True)
        being_written.mkdir(parents=True)
        for name, path in files.items():
            shutil.copyfile(path, being_written / f"file_{name}")
        content = {
            "location": self._location,
            "run": run_entry,
            "metrics": metrics,
            "files": list(files),
        }
        (being_written / "run.json").write_text(json_util.dumps(content, indent=2))
        shutil.rmtree(folder, ignore_errors=True)
        being_written.rename(folder)
        return folder

    def send(self, database: Any) -> None:
        """Send what is kept for this database; problems are logged and leave it where it is."""
        for folder in sorted(self._directory.glob(f"{self._db_name}_[0-9]*")):
            if folder.suffix or not folder.is_dir():
                continue
            claimed = folder.with_suffix(f".sending-{os.getpid()}")
            try:
                content = json_util.loads((folder / "run.json").read_text())
                if content["location"] != self._location:
                    continue
                folder.rename(claimed)
            except FileNotFoundError:
                continue  # another process sends it
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("%s cannot be read and is not sent (%s)", folder, error)
                continue
            self._send_one(claimed, folder, content, database)

    def _send_one(self, claimed: Path, folder: Path, content: dict[str, Any], database: Any) -> None:
        import gridfs
        from pymongo.errors import PyMongoError

        run = content["run"]
        run_id = run["_id"]
        present = database["runs"].find_one({"_id": run_id}, {"start_time": 1})
        if present is not None and present["start_time"] != _naive(run["start_time"]):
            log.warning("%s is not sent: run %s of %s is another one by now", folder, run_id, self._location)
            claimed.rename(folder)
            return
        try:
            for name, logged in content["metrics"].items():
                push = {key: {"$each": values} for key, values in logged.items()}
                database["metrics"].update_one({"run_id": run_id, "name": name}, {"$push": push}, upsert=True)
            for name in content["files"]:
                with (claimed / f"file_{name}").open("rb") as file:
                    file_id = gridfs.GridFS(database).put(file, filename=f"artifact://runs/{run_id}/{name}")
                run["artifacts"].append({"name": name, "file_id": file_id})
            database["runs"].update_one({"_id": run_id}, {"$set": run}, upsert=True)
        except (PyMongoError, OSError) as error:
            log.warning("%s could not be sent in full (%s)", folder, type(error).__name__)
            claimed.rename(folder)
            return
        shutil.rmtree(claimed, ignore_errors=True)
        log.warning("the record of run %s, kept while %s was away, is complete now", run_id, self._location)


def _naive(time: Any) -> Any:
    return time.replace(tzinfo=None)
