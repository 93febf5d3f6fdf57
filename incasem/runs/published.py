"""Published models and volumes: fetched, and the models' training records brought into the run store."""

from collections.abc import Callable, Sequence
from pathlib import Path

from incasem.config import load_prediction_config
from incasem.downloads import PUBLISHED, Bucket, Place, available, fetch, find_published
from incasem.errors import ConfigError, explain
from incasem.tracking import MODEL_CARDS, RunStore, import_archive

MODELS = "models"
RECORDS = "fiborganelle_trainings"  # the archive among the models that mongodump made of their database


def places(bucket: str | None) -> Sequence[Place]:
    """Return where published data is looked for: everywhere, or in one bucket, laid out like any of them."""
    if bucket is None:
        return PUBLISHED
    name = bucket.removeprefix("s3://").strip("/")
    if not name or "/" in name:
        raise ConfigError(
            explain("--bucket", bucket, "the name of a bucket, such as asem-project", "Correct it")
        )
    return [Place(name, place.models, place.volumes) for place in PUBLISHED]


def list_published(
    where: Sequence[Place], open_bucket: Callable[[str], Bucket], tell: Callable[[str], None]
) -> None:
    """Print what can be downloaded.

    Raises:
        DataError: the server cannot be reached.
    """
    seen: set[str] = set()
    for bucket, names in available(where, open_bucket):
        new = [name for name in names if name not in seen]
        seen.update(new)
        if new:
            tell(f"{bucket.location}: {', '.join(new)}")
    tell("download with: incasem download NAME" if seen else "nothing is there")


def download_published(
    name: str,
    where: Sequence[Place],
    open_bucket: Callable[[str], Bucket],
    tell: Callable[[str], None],
    *,
    target: Path | None = None,
    only: Sequence[str] = (),
    overwrite: bool = False,
    workers: int = 8,
    import_into: Callable[[], RunStore] | None = None,
) -> None:
    """Download the models or a volume; with the models comes the import of their training records.

    Args:
        name: `models`, or a volume such as `cell_6`.
        where: buckets to look in, the first that holds it counts.
        open_bucket: connects to a bucket by its name.
        tell: prints a line.
        target: folder of the models, or of all volumes; None: that of this installation, or the default
            `directories.data`.
        only, overwrite, workers: see `incasem.downloads.fetch`.
        import_into: opens the run store of trainings; None: the records are not imported.

    Raises:
        IncasemError: it is not there, the connection or the disk fails, or records cannot be imported.
    """
    bucket, prefix = find_published(name, where, open_bucket)
    folder = _folder(name, target)
    tell(f"{name}: {bucket.location}/{prefix} to {folder}")
    report = fetch(bucket, prefix, folder, only=only, overwrite=overwrite, workers=workers)
    tell(f"  {report.summary()}")
    records = folder / RECORDS
    if name == MODELS and import_into is not None and records.is_file():
        with import_into() as store:
            tell(f"  {import_archive(records, store).summary()}")


def _folder(name: str, target: Path | None) -> Path:
    if name == MODELS:
        return MODEL_CARDS if target is None else target
    data = load_prediction_config(None).directories.data if target is None else target
    return Path(data).expanduser() / name.strip("/")
