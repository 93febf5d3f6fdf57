"""The verbs that bring OpenOrganelle's and COSEM's data in."""

from collections.abc import Sequence

from incasem.cli.arguments import ZYX, Parser, add_workers, make_parser, path_argument, tell_report
from incasem.errors import ConfigError, explain


def n5_to_zarr(program: str, arguments: Sequence[str]) -> None:
    """Convert N5 (OpenOrganelle, COSEM) to Zarr."""
    parser = _parser(
        program,
        "Convert arrays of an N5 (or Zarr) container, such as OpenOrganelle's, to the pipeline's layout. "
        "A group of levels stands for its finest one. Interrupted, it goes on when run again.",
    )
    add = parser.add_argument
    add(
        "-i", "--in_arrays", nargs="+", required=True, metavar="ARRAY",
        help="arrays to convert, such as em/fibsem-uint16 or labels/mito_seg/s0",
    )  # fmt: skip
    add(
        "-o", "--out_arrays", nargs="+", metavar="DATASET",
        help="datasets to write (default: volumes/raw, and volumes/labels/NAME for labels)",
    )  # fmt: skip
    add("--raw_same_bit", action="store_true", help="keep the type of grey values instead of 8 bits")
    add(
        "--range", nargs=2, type=float, metavar=("LOW", "HIGH"),
        help="grey values that become 0 and 255 (default: the whole range of the type)",
    )  # fmt: skip
    add("--invert", action="store_true", help="invert the grey values")
    options = parser.parse_args(list(arguments))

    from incasem.formatting.n5 import N5Options, Source, convert_arrays, default_name

    names = options.out_arrays or [default_name(array) for array in options.in_arrays]
    if len(names) != len(options.in_arrays):
        raise ConfigError(
            explain(
                "out_arrays", " ".join(names), f"{len(options.in_arrays)} names", "Name one for each array"
            )
        )
    jobs = [
        N5Options(
            Source(options.n5, array, _triple(options.resolution), _triple(options.offset)),
            options.zarr,
            name,
            options.chunk_size,
            options.raw_same_bit,
            None if options.range is None else (options.range[0], options.range[1]),
            options.invert,
        )
        for array, name in zip(options.in_arrays, names, strict=True)
    ]
    for job, report in convert_arrays(jobs, num_workers=options.num_workers):
        tell_report(report, job.output_file / job.out_array)


def cosem_labels(program: str, arguments: Sequence[str]) -> None:
    """Make organelle labels of COSEM annotations."""
    parser = _parser(
        program,
        "Make labels of organelles of COSEM's annotations, which tell membranes and lumina apart: from one "
        "array of class ids, or from a group with an array for each part.",
    )
    add = parser.add_argument
    add("-i", "--in_array", required=True, metavar="ARRAY", help="array of class ids, or group of parts")
    add(
        "-o", "--organelles", nargs="+", default=["mito", "golgi", "er", "np"], metavar="NAME",
        help="organelles by COSEM's ids, or NAME=16,17 or NAME=er_mem,er_lum",
    )  # fmt: skip
    add("--out_group", default="volumes/labels", metavar="GROUP", help="group of the labels")
    add(
        "--mask_dataset", metavar="DATASET",
        help="dataset that gets 255 where anything is annotated (default: not written)",
    )  # fmt: skip
    add(
        "--unknown", nargs="+", type=int, metavar="VALUE",
        help="values that mean `not annotated`, such as 255 (default: only class id 0)",
    )  # fmt: skip
    options = parser.parse_args(list(arguments))

    from incasem.formatting.cosem import CosemOptions, make_labels, parse_organelle
    from incasem.formatting.n5 import Source

    job = CosemOptions(
        Source(options.n5, options.in_array, _triple(options.resolution), _triple(options.offset)),
        options.zarr,
        dict(parse_organelle(text) for text in options.organelles),
        options.out_group,
        options.mask_dataset,
        tuple(options.unknown or ()),
        options.chunk_size,
    )
    for dataset, report in make_labels(job, num_workers=options.num_workers):
        tell_report(report, job.output_file / dataset)


def _parser(program: str, description: str) -> Parser:
    """Return a parser of source, target, place and chunks, in their published flags."""
    parser = make_parser(program, description)
    add = parser.add_argument
    add("-n", "--n5", type=path_argument, required=True, help="N5 or Zarr container to read")
    add("-z", "--zarr", type=path_argument, required=True, help="Zarr container to write to")
    add("--chunk_size", type=int, default=128, metavar="N", help="edge of a chunk, voxels")
    add(
        "--offset", nargs=3, type=float, metavar=ZYX,
        help="corner of the first voxel, nm (default: what the file states)",
    )  # fmt: skip
    add(
        "--resolution", nargs=3, type=float, metavar=ZYX,
        help="voxel size, nm (default: what the file states)",
    )  # fmt: skip
    add_workers(parser, "--workers", "--num_workers")
    add(
        "--threads_per_worker",
        type=int,
        default=1,
        metavar="N",
        help="taken and not needed: threads are shared",
    )
    return parser


def _triple(numbers: Sequence[float] | None) -> tuple[float, float, float] | None:
    return None if numbers is None else (numbers[0], numbers[1], numbers[2])
