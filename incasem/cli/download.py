"""`incasem download`, the same as `download_models.py`."""

from collections.abc import Sequence

from incasem.cli.arguments import make_parser, path_argument, tell
from incasem.cli.stores import add_store, open_chosen_store
from incasem.errors import ConfigError, explain


def download(program: str, arguments: Sequence[str]) -> None:
    """Fetch published models and volumes."""
    parser = make_parser(
        program,
        "Download the published models (`models`, also without a name) or volumes (`cell_6`, `cell_3`, …) "
        "from their public S3 buckets. Needs no account. Interrupted, it goes on when run again; files that "
        "are there are checked and not fetched again.",
    )
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="`models` or volumes (default: models)")
    add("-l", "--list", action="store_true", help="list what there is")
    add(
        "--to", type=path_argument, metavar="FOLDER",
        help="where volumes or models go (default: ~/incasem/data, and `models` of this installation)",
    )  # fmt: skip
    add(
        "--only", nargs="+", default=[], metavar="PATH",
        help="datasets or folders, such as volumes/raw_equalized_0.02 (default: everything)",
    )  # fmt: skip
    add("--overwrite", action="store_true", help="replace files that differ from the published ones")
    add("--workers", type=int, default=8, metavar="N", help="files at a time")
    add("--bucket", metavar="NAME", help="look here (default: asem-project, then fibsem)")
    add(
        "--endpoint", metavar="URL",
        help="another server that speaks S3 (default: AWS_ENDPOINT_URL_S3, else Amazon)",
    )  # fmt: skip
    add(
        "--no_import", action="store_true",
        help="leave the published training records, which come with the models, out of the run store",
    )  # fmt: skip
    add_store(parser)
    options = parser.parse_args(list(arguments))
    if options.workers < 1:
        raise ConfigError(explain("--workers", options.workers, "1 or more", "Correct it"))

    from incasem.downloads import Bucket
    from incasem.runs.published import download_published, list_published, places

    def open_bucket(name: str) -> Bucket:
        return Bucket(name, options.endpoint, connections=options.workers)

    if options.list:
        list_published(places(options.bucket), open_bucket, tell)
        return
    import_into = None if options.no_import else lambda: open_chosen_store(options)
    for name in options.names or ["models"]:
        download_published(
            name, places(options.bucket), open_bucket, tell, target=options.to, only=options.only,
            overwrite=options.overwrite, workers=options.workers, import_into=import_into,
        )  # fmt: skip
