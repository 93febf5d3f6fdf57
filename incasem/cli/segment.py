"""The verb that turns affinities into segments."""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from incasem.cli.arguments import ZYX, Parser, add_workers, make_parser, path_argument, tell
from incasem.errors import ConfigError, explain

if TYPE_CHECKING:
    from incasem.segmentation.fragment_settings import FragmentSettings


def segment(program: str, arguments: Sequence[str]) -> None:
    """Segment affinities."""
    options = _parser(program).parse_args(list(arguments))

    from incasem.segmentation.agglomeration import SizeRules
    from incasem.segmentation.segment import SegmentOptions
    from incasem.segmentation.segment import segment as run

    job = SegmentOptions(
        file=options.filename,
        dataset=options.dataset,
        out_file=options.out_filename,
        out_group=options.out_group,
        offsets=_offsets(options.offsets),
        fragments=_fragment_settings(options),
        own_fragments=None if options.fragments is None else str(options.fragments),
        mask=None if options.mask is None else str(options.mask),
        scoring=options.scoring,
        thresholds=options.threshold,
        rules=SizeRules(options.min_size, options.join_affinity, options.dust),
        long_range=options.long_range,
        edge_store=options.edge_store,
        block_shape=options.block_shape,
        chunk_shape=options.chunk_shape,
    )
    tell(run(job, num_workers=options.num_workers).summary())


def _parser(program: str) -> Parser:
    parser = make_parser(
        program,
        "Segment an affinity map: a watershed gives fragments, whose region graph is agglomerated to one or "
        "several thresholds. Stages that are finished are kept, and an interrupted one goes on when the "
        "command is run again.",
    )
    add = parser.add_argument
    add("-f", "--filename", "--file", type=path_argument, required=True, help="container of the affinities")
    add("-d", "--dataset", required=True, help="affinities, such as …/predict_0001/affinities")
    add(
        "--offsets", nargs="+", type=int, metavar="N",
        help="which edge each channel is: z y x of its other end, voxels, channel after channel, such as "
        "-1 0 0 0 -1 0 0 0 -1 (default: as stored with the affinities; of three channels these)",
    )  # fmt: skip
    add(
        "--out_filename", type=path_argument, metavar="FILE",
        help="Zarr or N5 container to write to (default: that of the affinities)",
    )  # fmt: skip
    add(
        "-o", "--out_group", metavar="GROUP",
        help="group for fragments, edges.sqlite and segmentations (default: that of the affinities)",
    )  # fmt: skip
    add(
        "--mask",
        type=path_argument,
        metavar="MASK",
        help="x.zarr/DATASET, 0 outside the sample (default: none)",
    )
    _add_fragments(parser)
    _add_agglomeration(parser)
    add("-b", "--block_shape", nargs=3, type=int, metavar=ZYX, help="voxels a block (default: chosen)")
    add("-c", "--chunk_shape", nargs=3, type=int, default=[128, 128, 128], metavar=ZYX, help="chunks, voxels")
    add_workers(parser)
    return parser


def _offsets(numbers: Sequence[int] | None) -> list[Sequence[int]] | None:
    if numbers is None:
        return None
    if len(numbers) % 3:
        shown = " ".join(map(str, numbers))
        raise ConfigError(explain("--offsets", shown, "z y x of each channel, in one list", "Complete it"))
    return [numbers[at : at + 3] for at in range(0, len(numbers), 3)]


def _fragment_settings(options: argparse.Namespace) -> "FragmentSettings":
    from incasem.segmentation.fragment_settings import FragmentSettings

    settings = {field.name: getattr(options, field.name) for field in fields(FragmentSettings)}
    context = settings["context_voxels"]
    return FragmentSettings(
        **settings | {"context_voxels": context[0] if len(context) == 1 else tuple(context)}
    )


def _add_fragments(parser: Parser) -> None:
    from incasem.segmentation.fragment_settings import FragmentSettings

    default = FragmentSettings()
    add = parser.add_argument
    add(
        "--method", default=default.method,
        help="how fragments are made: watershed (of the affinities, as in waterz), seeded (of the distance "
        "from boundaries) or mutex (mutex watershed, for long-range channels)",
    )  # fmt: skip
    for flag, number, metavar, text in (
        ("--low", default.low, "A", "watershed, seeded: an edge of at most this affinity does not exist"),
        ("--high", default.high, "A", "watershed: edges of at least this affinity always join"),
        (
            "--boundary_threshold",
            default.boundary_threshold,
            "A",
            "seeded: mean affinity of a boundary voxel",
        ),
        (
            "--seed_blur",
            default.seed_blur,
            "SIGMA",
            "seeded: smoothing of the distance, shortest voxel sides",
        ),
        (
            "--seed_distance",
            default.seed_distance,
            "D",
            "seeded: a seed is the highest point within this distance",
        ),
        ("--mutex_bias", default.mutex_bias, "A", "mutex: nearest edges above attract, those below repel"),
        ("--long_range_bias", default.long_range_bias, "A", "mutex: the same for the other edges"),
        (
            "--join_overlap",
            default.join_overlap,
            "SHARE",
            "seeded, mutex: common part that joins two blocks' pieces",
        ),
    ):
        add(flag, type=float, default=number, metavar=metavar, help=text)
    add(
        "--per_section", action="store_true",
        help="fragments of one section each, by its edges in y and x; so are the segments of a map without "
        "edges between sections",
    )  # fmt: skip
    add(
        "--long_range_stride", nargs=3, type=int, default=list(default.long_range_stride), metavar=ZYX,
        help="mutex: take the other edges of every n-th voxel only",
    )  # fmt: skip
    add(
        "--context", nargs="+", type=int, default=[32], metavar="N",
        dest="context_voxels",
        help="seeded, mutex: how far a block looks beyond itself, voxels, one number or z y x",
    )  # fmt: skip
    add(
        "--fragments", type=path_argument, metavar="FRAGMENTS",
        help="x.zarr/DATASET of fragments made elsewhere (default: they are made here)",
    )  # fmt: skip


def _add_agglomeration(parser: Parser) -> None:
    add = parser.add_argument
    add(
        "-s", "--scoring", default="mean", metavar="NAME",
        help="score of two regions, by its name in waterz: mean, max, affNN_his256 (NN percent quantile of "
        "the largest affinities between fragments), hist_quant_NN (of all affinities)",
    )  # fmt: skip
    add(
        "-t", "--threshold", nargs="+", type=float, default=[0.5], metavar="T",
        help="merge while 1 - affinity is below T, as in waterz; a larger T merges more",
    )  # fmt: skip
    add("--long_range", action="store_true", help="long-range channels count as evidence, too")
    add("--min_size", type=int, default=0, metavar="N", help="segments of fewer voxels join a neighbour")
    add(
        "--join_affinity", type=float, default=0.2, metavar="A",
        help="lowest affinity (1 - score) at which they do",
    )  # fmt: skip
    add(
        "--dust",
        type=int,
        default=0,
        metavar="N",
        help="segments of fewer voxels become background in the end",
    )
    add(
        "--edge_store", metavar="STORE",
        help="a file, or postgresql://USER@HOST/DATABASE with the password in PGPASSWORD or ~/.pgpass "
        "(default: edges.sqlite in the output)",
    )  # fmt: skip
