"""The verb of the baseline: affinities without a network."""

from collections.abc import Sequence

from incasem.cli.arguments import ZYX, add_workers, make_parser, path_argument, tell_report


def baseline_affinities(program: str, arguments: Sequence[str]) -> None:
    """Make affinities of grey values."""
    parser = make_parser(
        program,
        "Make affinities of grey values alone: an edge is as weak as its voxels look like a dark sheet. "
        " The baseline for a trained network; `incasem segment` takes them like predicted "
        "ones. The same for any blocks; interrupted, it goes on when run again.",
    )
    add = parser.add_argument
    add("-f", "--filename", type=path_argument, required=True, help="container of the raw data")
    add("-d", "--dataset", default="volumes/raw", help="raw data, membranes dark")
    add("--out_filename", type=path_argument, metavar="FILE", help="container to write (default: --filename)")
    add(
        "-o", "--out_dataset", default="volumes/baseline/affinities", metavar="DATASET",
        help="affinities to write: uint8; c, z, y, x",
    )  # fmt: skip
    add("--smoothing", type=float, default=10.0, metavar="NM", help="noise filter, about half a membrane, nm")
    add("--thickness", type=float, default=15.0, metavar="NM", help="filter that finds sheets, nm")
    add("--surroundings", type=float, default=120.0, metavar="NM", help="what a voxel is compared with, nm")
    add(
        "--contrast", type=float, default=2.5, metavar="SD",
        help="from a sure membrane to a sure inside, in standard deviations of the surroundings",
    )  # fmt: skip
    add(
        "--per_section", action="store_true",
        help="each section by itself, as where they are thick: no filter and no edge leads to another one",
    )  # fmt: skip
    add("--offset", type=int, nargs=3, metavar=ZYX, help="of the region, voxels (default: all raw data)")
    add("--shape", type=int, nargs=3, metavar=ZYX, help="of the region, voxels (default: all raw data)")
    add("-c", "--chunk_shape", nargs=3, type=int, default=[64, 64, 64], metavar=ZYX, help="chunks, voxels")
    add_workers(parser)
    options = parser.parse_args(list(arguments))

    from incasem.formatting.grey_affinities import GreyAffinityOptions, grey_affinities

    out_file = options.out_filename or options.filename
    job = GreyAffinityOptions(
        file=options.filename,
        dataset=options.dataset,
        out_dataset=options.out_dataset,
        out_file=out_file,
        smoothing_nm=options.smoothing,
        thickness_nm=options.thickness,
        surroundings_nm=options.surroundings,
        contrast=options.contrast,
        offset=None if options.offset is None else tuple(options.offset),
        shape=None if options.shape is None else tuple(options.shape),
        chunk_shape=tuple(options.chunk_shape),
        per_section=options.per_section,
    )
    tell_report(grey_affinities(job, num_workers=options.num_workers), out_file / options.out_dataset)
