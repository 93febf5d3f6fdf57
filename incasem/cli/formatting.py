"""The verbs that turn stacks into volumes, prepare them, and turn them back into stacks."""

import argparse
from collections.abc import Sequence
from typing import Any

from incasem.cli.arguments import ZYX, Parser, add_workers, make_parser, path_argument, tell, tell_report

CONVERSIONS = "None, ScaleToUint8[:LOW,HIGH], RgbToGrayInversion, RelabelTo[:VALUE] or RelabelToUid"


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
        "-i", "--input_dir", nargs="+", type=path_argument, required=True, metavar="INPUT",
        help="folders of images, multi-page TIFFs, or datasets such as data.h5/volumes/raw",
    )  # fmt: skip
    add("-f", "--output_file", type=path_argument, required=True, help="Zarr container to write to")
    add(
        "-d", "--output_dataset", nargs="+", default=["volumes/raw"], metavar="DATASET",
        help="datasets to write",
    )  # fmt: skip
    add("-r", "--image_regex", default=r".*_(\d+).*\.tif$", help="images; group 1 is the section number")
    add("--dtype", nargs="+", default=["uint8"], help="data types of the datasets")
    add("--offset", nargs=3, type=int, default=[0, 0, 0], metavar=ZYX, help="crop begins here, voxels")
    add("--shape", nargs=3, type=int, metavar=ZYX, help="size of the crop, voxels (default: all)")
    add(
        "--resolution", nargs=3, type=float, metavar=ZYX,
        help="voxel size, nm (default: 5 5 5 for images, that of the input for Zarr, N5 and HDF5)",
    )  # fmt: skip
    add("--chunks", nargs=3, type=int, default=[128, 128, 128], metavar=ZYX, help="chunk shape, voxels")
    add("--conversion", nargs="+", default=["None"], help=f"how values become the dtype: {CONVERSIONS}")
    add("--invert", action="store_true", help="invert the grey values")
    add_workers(parser, "--num_workers", "-n")
    options = parser.parse_args(list(arguments))

    from incasem.formatting.convert import convert_stacks, pair_inputs

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
    for pair, report in convert_stacks(pairs, num_workers=options.num_workers):
        tell_report(report, pair.output_file / pair.output_dataset)


def phantom(program: str, arguments: Sequence[str]) -> None:
    """Generate a cell or neurites."""
    parser = make_parser(
        program,
        "Generate a FIB-SEM cell with exact labels (instance ids) of mitochondria, ER, nuclear envelope and "
        "nuclear pores, or a block of dense neurites with theirs (volumes/labels/neuron_ids) and with the "
        "membranes between them, drawn section by section (volumes/labels/membrane). The same options give "
        "the same bytes.",
    )
    add = parser.add_argument
    add("--kind", choices=("cell", "neurites"), default="cell", help="what to generate")
    add("-f", "--filename", type=path_argument, required=True, help="Zarr container to make")
    add("--shape", nargs=3, type=int, default=[112, 144, 288], metavar=ZYX, help="of the volume, voxels")
    add("--resolution", nargs=3, type=float, default=[10, 10, 10], metavar=ZYX, help="voxel size, nm")
    add("--seed", type=int, default=1, metavar="N", help="which one")
    add("--mito_fraction", type=float, default=0.11, metavar="SHARE", help="of a cell, its mitochondria")
    options = parser.parse_args(list(arguments))

    from incasem.formatting.generate import GenerateOptions, generate_volumes

    made = GenerateOptions(
        options.filename,
        options.shape,
        options.resolution,
        options.seed,
        options.mito_fraction,
        options.kind,
    )
    for dataset in generate_volumes(made):
        tell(f"  {options.filename / dataset}")


def equalize(program: str, arguments: Sequence[str]) -> None:
    """Equalise the histogram by CLAHE."""
    parser = _volume_parser(
        program,
        "Equalise the histogram of a volume: contrast-limited, adaptive (CLAHE), the same for any blocks.",
        dataset="volumes/raw",
        out="volumes/raw_equalized_0.02",
    )
    parser.add_argument("--kernel_size", type=int, default=128, metavar="N", help="side of a tile, voxels")
    parser.add_argument(
        "--clip_limit",
        type=float,
        default=0.02,
        metavar="SHARE",
        help="largest share of a tile's voxels in a bin",
    )
    options = parser.parse_args(list(arguments))

    from incasem.formatting.equalize import EqualizeOptions, equalize_histogram

    job = EqualizeOptions(**_volume(options), kernel_size=options.kernel_size, clip_limit=options.clip_limit)
    report = equalize_histogram(job, num_workers=options.num_workers)
    tell_report(report, job.file / job.out_dataset)


def mask(program: str, arguments: Sequence[str]) -> None:
    """Mask the sample by grey value."""
    parser = _volume_parser(
        program,
        "Mask the sample: grey values strictly between the two limits, opened, closed, holes filled and "
        "small objects removed; 255 inside, 0 outside.",
        dataset=None,
        out="volumes/mask",
    )
    for flag, default, text in (
        ("--min_gray_value", 2, "this and darker voxels are outside"),
        ("--max_gray_value", 180, "this and brighter voxels are outside"),
        ("--min_size_voxels", 100_000, "smaller objects and holes are removed"),
    ):
        parser.add_argument(flag, type=int, default=default, metavar="N", help=text)
    options = parser.parse_args(list(arguments))

    from incasem.formatting.mask import MaskOptions, create_mask

    job = MaskOptions(
        **_volume(options),
        min_gray_value=options.min_gray_value,
        max_gray_value=options.max_gray_value,
        min_size_voxels=options.min_size_voxels,
    )
    tell_report(create_mask(job, num_workers=options.num_workers), job.file / job.out_dataset)


def metric_mask(program: str, arguments: Sequence[str]) -> None:
    """Make the exclusion zone around objects."""
    parser = _volume_parser(
        program,
        "Make the exclusion zone: 0 at the boundaries of labelled objects, 255 elsewhere. Scores leave out "
        "the 0.",
        dataset=None,
        out=None,
    )
    for side in ("outwards", "inwards"):
        parser.add_argument(
            f"--exclude_voxels_{side}", type=int, default=4, metavar="N",
            help=f"width of the zone {side}, voxels",
        )  # fmt: skip
    options = parser.parse_args(list(arguments))

    from incasem.formatting.metric_mask import MetricMaskOptions, create_metric_mask

    job = MetricMaskOptions(
        **_volume(options),
        exclude_voxels_outwards=options.exclude_voxels_outwards,
        exclude_voxels_inwards=options.exclude_voxels_inwards,
    )
    tell_report(create_metric_mask(job, num_workers=options.num_workers), job.file / job.out_dataset)


def components(program: str, arguments: Sequence[str]) -> None:
    """Number the connected objects of labels."""
    parser = _volume_parser(
        program,
        "Number the connected objects of labels: ids 1, 2, … (uint64), 0 for background. With --invert the "
        "objects are what is not labelled: of membranes, the cells between them. The same for any blocks; "
        "interrupted, it goes on when run again.",
        dataset=None,
        out=None,
    )
    add = parser.add_argument
    add(
        "--out_filename", type=path_argument, metavar="FILE",
        help="Zarr or N5 container to write to (default: --filename)",
    )  # fmt: skip
    add("--invert", action="store_true", help="number what is 0 in the labels")
    add(
        "--per_section", action="store_true",
        help="each section by itself, as where they are thick: ids are unique in the volume",
    )  # fmt: skip
    add(
        "--connectivity", type=int, metavar="N",
        help="neighbours of one object: 6 (faces), 18 or 26; per section 4 or 8 (default: faces)",
    )  # fmt: skip
    add("--min_size", type=int, default=0, metavar="N", help="objects of fewer voxels become background")
    options = parser.parse_args(list(arguments))

    from incasem.formatting.components import ComponentOptions, write_components

    job = ComponentOptions(
        **_volume(options),
        out_file=options.out_filename,
        invert=options.invert,
        per_section=options.per_section,
        connectivity=options.connectivity,
        min_size=options.min_size,
    )
    report, count = write_components(job, num_workers=options.num_workers)
    tell_report(report, (job.out_file or job.file) / job.out_dataset)
    tell(f"  {count:,} objects")


def export(program: str, arguments: Sequence[str]) -> None:
    """Export datasets as TIFF stacks."""
    parser = make_parser(
        program,
        "Export datasets as stacks of 8-bit TIFF images, section_0000.tif on. Labels become 0 and 255, "
        "floats from 0 to 1 become 0 to 255; --lossless keeps all values. -f and -d may be given several "
        "times, in pairs.",
    )
    add = parser.add_argument
    add("-f", "--filename", action="append", type=path_argument, required=True, help="container")
    add(
        "-d", "--datasets", action="append", nargs="+", required=True, metavar="DATASET",
        help="datasets of that container",
    )  # fmt: skip
    add("-o", "--out_directory", type=path_argument, required=True, help="where the stacks go")
    add(
        "--out_datasets", action="append", nargs="+", metavar="NAME",
        help="names of the stacks (default: the dataset names)",
    )  # fmt: skip
    add(
        "--values", choices=("auto", "labels", "grey", "lossless"), default="auto",
        help="labels: 0 or 255; grey: as they are; auto: labels for uint32 and segmentations",
    )  # fmt: skip
    add(
        "--lossless", action="store_const", const="lossless", dest="values", default=argparse.SUPPRESS,
        help="every value as it is, in 8, 16 or 32 bits as the largest one needs (default: no)",
    )  # fmt: skip
    add(
        "--single_file", action="store_true",
        help="one TIFF with all sections, NAME.tif, BigTIFF above 4 GB, instead of a folder",
    )  # fmt: skip
    add_workers(parser)
    options = parser.parse_args(list(arguments))

    from incasem.formatting.export import export_stacks, pair_exports

    jobs = pair_exports(
        options.filename,
        options.datasets,
        options.out_directory,
        options.out_datasets,
        options.values,
        options.single_file,
    )
    for job, report in export_stacks(jobs, num_workers=options.num_workers):
        tell_report(report, job.images_dir)


def _volume_parser(program: str, description: str, *, dataset: str | None, out: str | None) -> Parser:
    """Return a parser of file, dataset, output dataset, chunk shape and workers, in their published flags."""
    parser = make_parser(program, description)
    add = parser.add_argument
    add("-f", "--filename", "--file", type=path_argument, required=True, help="container of the volume")
    add("-d", "--dataset", required=dataset is None, default=dataset, help="dataset to read")
    add("-o", "--out_dataset", required=out is None, default=out, help="dataset to write")
    add("-c", "--chunk_shape", nargs=3, type=int, default=[128, 128, 128], metavar=ZYX, help="chunks, voxels")
    add_workers(parser)
    return parser


def _volume(options: argparse.Namespace) -> dict[str, Any]:
    """Return what `_volume_parser` has read, under the names that the stages' options share."""
    return {
        "file": options.filename,
        "dataset": options.dataset,
        "out_dataset": options.out_dataset,
        "chunk_shape": tuple(options.chunk_shape),
    }
