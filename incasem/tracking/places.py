"""Which run store is meant: one setting, a file, a URL or the environment."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from incasem.errors import ConfigError, did_you_mean, explain
from incasem.tracking.mongo import MongoStore, without_credentials
from incasem.tracking.stores import DirectoryStore, RunStore

TRAININGS = "incasem_trainings"
PREDICTIONS = "incasem_predictions"
_HOST_AND_PORT = re.compile(r"[A-Za-z0-9.-]+:\d{1,5}")
_ALLOWED = 'null, "localhost:27017", "mongodb://host:27017" or a folder such as "/data/runs" or "~/runs"'


def open_store(
    db_json: Path | str | None, runs_directory: Path, db_name: str, environment: Mapping[str, str]
) -> RunStore:
    """Open the run store of trainings or of predictions.

    Args:
        db_json: file such as `trainings_db.json`, `{"url": …, "db_name": …}`; or a `mongodb://`
            URL itself; or None. Its url is `host:port` or `mongodb://…` for MongoDB, a folder, or null.
        runs_directory: `directories.runs`; its folder `sacred` is the store if nothing else is named.
        db_name: `TRAININGS` or `PREDICTIONS`, where the file says nothing else.
        environment: where INCASEM_RUNS is looked up, usually `os.environ`.

    Raises:
        ConfigError: the file or the place is not understood.
        TrackingError: the server does not answer.
    """
    url: str | None = None
    origin = "INCASEM_RUNS"
    if isinstance(db_json, str) and db_json.startswith(("mongodb://", "mongodb+srv://")):
        url, origin = db_json, "the database"
    elif db_json is not None:
        url, db_name = _read(Path(db_json), db_name)
        origin = f"url in {db_json}"
    if url is None:
        url, origin = environment.get("INCASEM_RUNS") or None, "INCASEM_RUNS"
    sacred = Path(runs_directory).expanduser() / "sacred"
    if url is None:
        return DirectoryStore(sacred, db_name)
    if _HOST_AND_PORT.fullmatch(url):
        url = f"mongodb://{url}"
    if url.startswith(("mongodb://", "mongodb+srv://")):
        return MongoStore(url, db_name, sacred)
    if "://" not in url and (url.startswith(("~", ".")) or "/" in url):
        return DirectoryStore(Path(url).expanduser().absolute(), db_name)
    shown = without_credentials(url) if "://" in url else url
    raise ConfigError(explain(origin, shown, _ALLOWED, "Correct it"))


def find_store(
    where: str | None,
    runs_directory: Path,
    db_name: str,
    environment: Mapping[str, str],
    default_file: str,
) -> RunStore:
    """Open the run store that a user means; see `open_store` for the errors.

    Args:
        where: a folder, `host:port`, `mongodb://…` or a JSON file; None: the JSON file ``default_file`` of
            this folder if there is one, else what INCASEM_RUNS says, else ``runs_directory``.
        runs_directory: `directories.runs`.
        db_name: `TRAININGS` or `PREDICTIONS`.
        environment: where INCASEM_RUNS is looked up.
        default_file: such as `trainings_db.json`.
    """
    if where is None:
        return open_store(
            Path(default_file) if Path(default_file).is_file() else None, runs_directory, db_name, environment
        )
    path = Path(where).expanduser()
    if path.is_file():
        return open_store(path, runs_directory, db_name, environment)
    if not path.is_dir():
        # A server, or a folder that is not there yet.
        is_server = "://" in where or _HOST_AND_PORT.fullmatch(where)
        named = where if is_server else str(path.absolute())
        return open_store(None, runs_directory, db_name, {"INCASEM_RUNS": named})
    if (path / "sacred").is_dir():
        path = path / "sacred"
    elif path.name == db_name or any(path.glob("[0-9]*/run.json")):
        return DirectoryStore(path.parent.absolute(), path.name)
    return DirectoryStore(path.absolute(), db_name)


def _read(path: Path, db_name: str) -> tuple[str | None, str]:
    path = path.expanduser()
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(
            explain("the run-store file", path, "an existing file", f"Looked for {path.absolute()}")
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read as JSON ({error}); "
            'allowed: {"url": null, "db_name": "incasem_trainings"}. Correct the file.'
        ) from None
    if not isinstance(content, dict):
        raise ConfigError(
            explain(f"the content of {path}", "no object", '{"url": …, "db_name": …}', "Correct the file")
        )
    for key in content:
        if key not in ("url", "db_name"):
            hint = did_you_mean(key, ("url", "db_name"))
            raise ConfigError(f"{key!r} in {path} is not a setting; allowed: url, db_name.{hint}")
    url, name = content.get("url"), content.get("db_name", db_name)
    if url is not None and not isinstance(url, str):
        raise ConfigError(explain(f"url in {path}", repr(url), _ALLOWED, "Correct it"))
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ConfigError(explain(f"db_name in {path}", repr(name), "letters, digits, _ and -", "Correct it"))
    return url or None, name
