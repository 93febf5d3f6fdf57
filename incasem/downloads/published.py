"""Where the published models and volumes lie."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from incasem.downloads.s3 import Bucket
from incasem.errors import DataError, did_you_mean

MODELS = "models"


@dataclass(frozen=True)
class Place:
    """A bucket, the folder of its models and the folder of its volumes (prefixes that end in `/`)."""

    bucket: str
    models: str
    volumes: str


# The bucket of today, then the one that the first user guide names.
PUBLISHED = (
    Place("asem-project", models="models/", volumes="datasets/"),
    Place("fibsem", models="models/", volumes="dataset/"),
)


def find_published(
    name: str, places: Sequence[Place], open_bucket: Callable[[str], Bucket]
) -> tuple[Bucket, str]:
    """Return the bucket that holds `models` or a volume such as `cell_6`, and the prefix there.

    Raises:
        DataError: nobody holds it; the message lists what there is.
    """
    for place in places:
        bucket = open_bucket(place.bucket)
        prefix = place.models if name == MODELS else f"{place.volumes}{name.strip('/')}/"
        if bucket.holds(prefix):
            return bucket, prefix
    known = [found for _, names in available(places, open_bucket) for found in names]
    buckets = ", ".join(f"s3://{place.bucket}" for place in places)
    raise DataError(
        f"{name} is not in {buckets}; allowed: {', '.join(dict.fromkeys(known)) or 'nothing is there'}."
        f"{did_you_mean(name, known)} See: incasem download --list"
    )


def available(
    places: Sequence[Place], open_bucket: Callable[[str], Bucket]
) -> list[tuple[Bucket, list[str]]]:
    """Return what each bucket offers; those that do not exist are left out.

    Raises:
        DataError: the server cannot be reached.
    """
    offers = []
    for place in places:
        bucket = open_bucket(place.bucket)
        names = [MODELS] if bucket.holds(place.models) else []
        if bucket.holds(place.volumes):
            names += bucket.folders(place.volumes)
        if names:
            offers.append((bucket, names))
    return offers
