"""The verbs that turn stacks into volumes, prepare them, and turn them back into stacks."""

from collections.abc import Sequence

from incasem.cli.arguments import Parser, add_workers, make_parser, path_argument, tell

ZYX = ("Z", "Y", "X")


def convert(program: str, arguments: Sequence[str]) -> None:
    """Convert stacks of images to Zarr."""
    parser = make_parser(
        program,
        "Convert stacks of images (TIFF, PNG), or datasets of Zarr, N5 and HDF5, to Zarr. The k-th input "
        "goes with the k-th dataset, dtype and conversion. Interrupted, it goes on when run again.",
        config_flags=("-c", "--config"),
    )
    add = parser.add_argument
    add(
        "-i", "--input_dir", nargs="+", type=path_argument, required=True,
        help="folders of images, multi-page TIFFs, or datasets such as data.h5/volumes/raw",
    )  # fmt: skip
    add("-f", "--output_file", type=path_argument, required=True, help="Zarr container to write to")
    add("-d", "--output_dataset", nargs="+", default=["volumes/raw"], help="datasets to write")
    add("-r", "--image_regex", default=r".*_(\d+).*\.tif$", help="images; group 1 is the section number")
    add("--dtype", nargs="+", default=["uint8"], help="data types of the datasets")
    add("--offset", nargs=3, type=int, default=[0, 0, 0], metavar=ZYX, help="crop begins here, voxels")
    add(
        "--shape", nargs=3, type=int, default=None, metavar=ZYX, help="size of the crop, voxels; default: all"
    )
    add(
        "--resolution", nargs=3, type=float, default=None, metavar=ZYX,
        help="voxel size, nm; default: 5 5 5 for images, that of the input for Zarr, N5 and HDF5",
    )  # fmt: skip
    add("--chunks", nargs=3, type=int, default=[128, 128, 128], metavar=ZYX, help="chunk shape, voxels")
    add(
        "--conversion",
        nargs="+",
        default=["None"],
        help="how values are turned into the dtype, see the guide",
    )
    add("--invert", action="store_true", help="invert the grey values")
    add_workers(parser, "--num_workers", "-n")
    options = parser.parse_args(list(arguments))

    from incasem.formatting.convert import convert_stack, pair_inputs

    pairs = pair_inputs(
        options.input_dir,
        options.output_file,
        options.output_dataset,
        options.dtype,
        [None if name == "None" else name for name in options.conversion],
        image_regex=options.image_regex,
        offset=tuple(options.offset),
        shape=tuple(options.shape) if options.shape else (None, None, None),
        resolution=tuple(options.resolution) if options.resolution else None,
        chunks=tuple(options.chunks),
        invert=options.invert,
    )
    for pair in pairs:
        report = convert_stack(pair, num_workers=options.num_workers)
        tell(f"{report.summary()}\n  {pair.output_file / pair.output_dataset}")


def equalize(program: str, arguments: Sequence[str]) -> None:
    """Equalise the histogram by CLAHE."""
    parser = make_parser(
        program,
        "Equalise the histogram of a volume: contrast-limited, adaptive (CLAHE), the same for any blocks.",
    )
    _add_volume(parser, dataset="volumes/raw", out="volumes/raw_equalized_0.02")
    parser.add_argument("--kernel_size", type=int, default=128, help="side of a tile, voxels")
    parser.add_argument(
        "--clip_limit", type=float, default=0.02, help="largest share of a tile's voxels in a bin"
    )
    options = parser.parse_args(list(arguments))

    from incasem.formatting.equalize import EqualizeOptions, equalize_histogram

    job = EqualizeOptions(
        file=options.filename,
        dataset=options.dataset,
        out_dataset=options.out_dataset,
        chunk_shape=tuple(options.chunk_shape),
        kernel_size=options.kernel_size,
        clip_limit=options.clip_limit,
    )
    report = equalize_histogram(job, num_workers=options.num_workers)
    tell(f"{report.summary()}\n  {job.file / job.out_dataset}")


def mask(program: str, arguments: Sequence[str]) -> None:
    """Mask the sample by grey value."""
    parser = make_parser(
        program,
        "Mask the sample: grey values strictly between the two limits, opened, closed, holes filled and "
        "small objects removed; 255 inside, 0 outside.",
    )
    _add_volume(parser, dataset=None, out="volumes/mask")
    parser.add_argument("--min_gray_value", type=int, default=2, help="darker voxels are outside")
    parser.add_argument("--max_gray_value", type=int, default=180, help="brighter voxels are outside")
    parser.add_argument(
        "--min_size_voxels", type=int, default=100_000, help="smaller objects and holes are removed"
    )
    options = parser.parse_args(list(arguments))

    from incasem.formatting.mask import MaskOptions, create_mask

    job = MaskOptions(
        file=options.filename,
        dataset=options.dataset,
        out_dataset=options.out_dataset,
        chunk_shape=tuple(options.chunk_shape),
        min_gray_value=options.min_gray_value,
        max_gray_value=options.max_gray_value,
        min_size_voxels=options.min_size_voxels,
    )
    report = create_mask(job, num_workers=options.num_workers)
    tell(f"{report.summary()}\n  {job.file / job.out_dataset}")


def metric_mask(program: str, arguments: Sequence[str]) -> None:
    """Make the exclusion zone around objects."""
    parser = make_parser(
        program,
        "Make the exclusion zone: 0 at the boundaries of labelled objects, 255 elsewhere. Scores leave out "
        "the 0.",
    )
    _add_volume(parser, dataset=None, out=None)
    for side in ("outwards", "inwards"):
        parser.add_argument(
            f"--exclude_voxels_{side}", type=int, default=4, help=f"width of the zone {side}, voxels"
        )
    options = parser.parse_args(list(arguments))

    from incasem.formatting.metric_mask import MetricMaskOptions, create_metric_mask

    job = MetricMaskOptions(
        file=options.filename,
        dataset=options.dataset,
        out_dataset=options.out_dataset,
        chunk_shape=tuple(options.chunk_shape),
        exclude_voxels_outwards=options.exclude_voxels_outwards,
        exclude_voxels_inwards=options.exclude_voxels_inwards,
    )
    report = create_metric_mask(job, num_workers=options.num_workers)
    tell(f"{report.summary()}\n  {job.file / job.out_dataset}")


def export(program: str, arguments: Sequence[str]) -> None:
    """Export datasets as TIFF stacks."""
    parser = make_parser(
        program,
        "Export datasets as stacks of 8-bit TIFF images, section_0000.tif on. Labels become 0 and 255, "
        "floats from 0 to 1 become 0 to 255. -f and -d may be given several times, in pairs.",
    )
    add = parser.add_argument
    add("-f", "--filename", action="append", type=path_argument, required=True, help="container")
    add("-d", "--datasets", action="append", nargs="+", required=True, help="datasets of that container")
    add("-o", "--out_directory", type=path_argument, required=True, help="where the stacks go")
    add("--out_datasets", action="append", nargs="+", help="names of the stacks; default: the dataset names")
    add(
        "--values", choices=("auto", "labels", "grey"), default="auto",
        help="labels: 0 or 255; grey: as they are; auto: labels for uint32 and segmentations",
    )  # fmt: skip
    add_workers(parser)
    options = parser.parse_args(list(arguments))

    from incasem.formatting.export import export_images, pair_exports

    jobs = pair_exports(
        options.filename, options.datasets, options.out_directory, options.out_datasets, options.values
    )
    for job in jobs:
        report = export_images(job, num_workers=options.num_workers)
        tell(f"{report.summary()}\n  {job.images_dir}")


def _add_volume(parser: Parser, *, dataset: str | None, out: str | None) -> None:
    """Add file, dataset, output dataset, chunk shape and workers under their published flags."""
    add = parser.add_argument
    add("-f", "--filename", "--file", type=path_argument, required=True, help="container of the volume")
    add("-d", "--dataset", required=dataset is None, default=dataset, help="dataset to read")
    add("-o", "--out_dataset", required=out is None, default=out, help="dataset to write")
    add("-c", "--chunk_shape", nargs=3, type=int, default=[128, 128, 128], metavar=ZYX, help="chunks, voxels")
    add_workers(parser)
