"""Fetching published models and volumes from public S3 buckets, anonymously.

`s3.py` speaks the two requests that are needed (list, read from an offset), `checksums.py` tells whether a
file is whole, `fetch.py` brings a folder of a bucket onto the disk, `published.py` knows where things lie.
"""

from incasem.downloads.fetch import FetchReport, fetch
from incasem.downloads.published import PUBLISHED, Place, available, find_published
from incasem.downloads.s3 import Bucket

__all__ = ["PUBLISHED", "Bucket", "FetchReport", "Place", "available", "fetch", "find_published"]
