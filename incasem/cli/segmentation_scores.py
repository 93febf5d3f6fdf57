"""The verb that scores segmentations (instance ids) against the truth."""

from collections.abc import Sequence

from incasem.cli.arguments import Parser, add_masks, add_workers, make_parser, masks, path_argument, tell


def evaluate_segmentation(program: str, arguments: Sequence[str]) -> None:
    """Score segmentations against the truth."""
    options = _parser(program).parse_args(list(arguments))

    from incasem.evaluation.partition import evaluate_segmentations
    from incasem.evaluation.partition_inputs import PartitionOptions
    from incasem.evaluation.partition_report import misfit_rows, summary, table, write_evaluation

    job = PartitionOptions(
        labels=str(options.labels),
        segmentations=tuple(str(path) for path in options.segmentation),
        masks=masks(options),
        ignored_truth=None if options.count_all else options.ignored_id,
        boundary_tolerance_nm=options.boundary_tolerance,
        boundaries=not options.no_boundaries,
        metric=options.metric,
        worst=options.worst,
        out_directory=options.out_directory,
    )
    evaluation = evaluate_segmentations(job, num_workers=options.num_workers)
    tell(summary(evaluation))
    tell(table(evaluation))
    for title, misfits, noun in (
        ("mergers", evaluation.mergers, "segment"),
        ("splits", evaluation.splits, "object"),
    ):
        if misfits:
            tell(f"worst {title} of {evaluation.best.name} (voxels z y x):")
            for name, text in misfit_rows(misfits[:3], noun).items():
                tell(f"  {name}: {text}")
    tell(f"  {write_evaluation(evaluation)}")


def _parser(program: str) -> Parser:
    parser = make_parser(
        program,
        "Score segmentations (instance ids) against the truth: adapted Rand error, variation of information "
        "(split and merge) and F1 of boundaries, any number of segmentations in one pass; a table here, and "
        "a page with the worst mergers and splits, JSON and CSV on disk.",
    )
    add = parser.add_argument
    add(
        "-l", "--labels", type=path_argument, required=True,
        help="the truth, such as x.zarr/volumes/labels/neuron_ids",
    )  # fmt: skip
    add(
        "-s", "-p", "--segmentation", type=path_argument, nargs="+", required=True, metavar="SEGMENTATION",
        help="x.zarr/DATASET of segment ids, or a group: all datasets in it",
    )  # fmt: skip
    add(
        "--metric", choices=("adapted_rand", "voi"), default="adapted_rand",
        help="what the best segmentation is chosen by",
    )  # fmt: skip
    add_masks(parser)
    add("--ignored_id", type=int, default=0, metavar="ID", help="id of the truth whose voxels do not count")
    add("--count_all", action="store_true", help="count all voxels of the truth, --ignored_id too")
    add(
        "--boundary_tolerance", type=float, metavar="NM",
        help="how far a boundary may lie from that of the truth, nm (default: two voxels)",
    )  # fmt: skip
    add("--no_boundaries", action="store_true", help="do not score boundaries, which takes most of the time")
    add("--worst", type=int, default=10, metavar="N", help="mergers and splits to list")
    add(
        "-o", "--out_directory", type=path_argument, metavar="DIRECTORY",
        help="where the report goes (default: evaluations/NAME beside the segmentations' container)",
    )  # fmt: skip
    add_workers(parser)
    return parser
