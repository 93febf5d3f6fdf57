"""The verbs that turn predictions into segmentations and scores."""

from collections.abc import Sequence

from incasem.cli.arguments import (
    ZYX,
    Parser,
    add_masks,
    add_workers,
    make_parser,
    masks,
    path_argument,
    tell,
    tell_report,
)
from incasem.errors import ConfigError, explain


def threshold(program: str, arguments: Sequence[str]) -> None:
    """Make a segmentation of probabilities."""
    parser = make_parser(
        program,
        "Make a segmentation of a probability map: 255 where the probability is at least the threshold and "
        "the mask is not 0, else 0 (uint32). Interrupted, it goes on when run again.",
    )
    add = parser.add_argument
    add(
        "-f", "--prediction_filename", "--filename", "--file", type=path_argument, required=True,
        dest="filename", help="container of the probabilities",
    )  # fmt: skip
    add("-d", "--dataset", required=True, help="probabilities, such as …/prob_maps/class_1")
    add("-o", "--out_dataset", required=True, help="dataset to write, in the same container")
    add("-t", "--threshold", type=float, required=True, metavar="P", help="lowest probability, 0 to 1")
    add("--mask_filename", default="", metavar="FILE", help="container of the mask (default: no mask)")
    add("-m", "--mask_dataset", default="volumes/mask", metavar="DATASET", help="mask in --mask_filename")
    add("-c", "--chunk_shape", nargs=3, type=int, default=[128, 128, 128], metavar=ZYX, help="chunks, voxels")
    add_workers(parser)
    options = parser.parse_args(list(arguments))

    from incasem.formatting.threshold import ThresholdOptions, apply_threshold

    job = ThresholdOptions(
        options.filename,
        options.dataset,
        options.out_dataset,
        options.threshold,
        path_argument(options.mask_filename) if options.mask_filename else None,
        options.mask_dataset,
        tuple(options.chunk_shape),
    )
    tell_report(apply_threshold(job, num_workers=options.num_workers), job.file / job.out_dataset)


def evaluate(program: str, arguments: Sequence[str]) -> None:
    """Score a prediction against labels."""
    options = _evaluate_parser(program).parse_args(list(arguments))

    from incasem.evaluation.evaluate import EvaluateOptions
    from incasem.evaluation.evaluate import evaluate as run
    from incasem.evaluation.evaluate_report import summary, table, write_evaluation
    from incasem.metrics.thresholds import threshold_range

    job = EvaluateOptions(
        labels=str(options.labels),
        prediction=str(options.prediction),
        thresholds=threshold_range(options.threshold_start, options.threshold_stop, options.threshold_step),
        metric=options.metric,
        masks=masks(options),
        roi_padding=_padding(options.roi_padding),
        class_id=options.class_id,
        kind=options.kind,
        out_directory=options.out_directory,
    )
    evaluation = run(job, num_workers=options.num_workers)
    tell(summary(evaluation))
    tell(table(evaluation))
    tell(f"  {write_evaluation(evaluation)}")


def _evaluate_parser(program: str) -> Parser:
    parser = make_parser(
        program,
        "Score a prediction against labels: Jaccard, F1 (Dice), precision and recall at any number of "
        "thresholds in one pass; a table here, and a page, JSON and CSV on disk.",
    )
    add = parser.add_argument
    add(
        "--metric", choices=("jaccard", "dice", "precision_recall"), default="jaccard",
        help="what the best threshold is chosen by",
    )  # fmt: skip
    add("-l", "--labels", type=path_argument, required=True, help="labels, such as x.zarr/volumes/labels/er")
    add(
        "-p", "--prediction_probas", type=path_argument, required=True, dest="prediction",
        help="x.zarr/DATASET of probabilities (uint8 or float) or a segmentation",
    )  # fmt: skip
    add_masks(parser)
    add(
        "--roi_padding", type=int, nargs="+", metavar="N",
        help="voxels at the prediction's faces that are not scored, one number or z y x (default: those "
        "never written: 47 of published predictions, 0 of ours)",
    )  # fmt: skip
    for flag, default, text in (
        ("--threshold_start", 0.5, "lowest threshold"),
        ("--threshold_stop", 0.5, "highest threshold"),
        ("--threshold_step", 0.1, "from one threshold to the next"),
    ):
        add(flag, type=float, default=default, metavar="P", help=text)
    add(
        "--kind", choices=("auto", "probabilities", "labels"), default="auto",
        help="what the prediction holds; auto: floats and bytes are probabilities, except in `segmentation`",
    )  # fmt: skip
    add("--class_id", type=int, metavar="N", help="class of a segmentation to score (default: all but 0)")
    add(
        "-o", "--out_directory", type=path_argument, metavar="DIRECTORY",
        help="where the report goes (default: evaluations/NAME beside the prediction's container)",
    )  # fmt: skip
    add_workers(parser)
    return parser


def _padding(numbers: Sequence[int] | None) -> tuple[int, int, int] | None:
    if numbers is None:
        return None
    if len(numbers) not in (1, 3):
        raise ConfigError(explain("roi_padding", list(numbers), "one number, or three (z y x)", "Correct it"))
    z, y, x = list(numbers) * 3 if len(numbers) == 1 else numbers
    return (z, y, x)
