"""`incasem export-model`: a trained network for other programs."""

from collections.abc import Sequence

from incasem.cli.arguments import Parser, add_database, database_file, make_parser, path_argument, tell
from incasem.cli.predict import TRAININGS_FILE
from incasem.errors import ConfigError, explain

FORMATS = ("bioimageio", "torchscript", "onnx")


def export_model(program: str, arguments: Sequence[str]) -> None:
    """Parse the flags and export a model."""
    parser = make_parser(
        program,
        "Export a trained network for other programs: as a BioImage.IO model (ilastik, deepImageJ, "
        "bioimageio.core), as TorchScript or as ONNX, with a test input and what the network says of it. The "
        "result was run and gives our numbers. Nothing is overwritten.",
    )
    _add_model(parser)
    _add_output(parser)
    _add_about(parser)
    options = parser.parse_args(list(arguments))
    if options.format != "bioimageio" and tuple(options.weights) != ("torchscript",):
        raise ConfigError(
            explain(
                "--weights", " ".join(options.weights), "only with --format bioimageio", "Leave --weights out"
            )
        )

    from incasem.config import PredictionConfig
    from incasem.sharing import About, ExportRequest, ModelChoice
    from incasem.sharing import export_model as run_export

    choice = ModelChoice(
        run_id=options.run_id,
        checkpoint=options.checkpoint,
        runs=options.runs or PredictionConfig().directories.runs,
        trainings=database_file(options.mongodb_training, TRAININGS_FILE),
        output_size_voxels=None if options.output_size_voxels is None else tuple(options.output_size_voxels),
    )
    about = About(
        name=options.name,
        description=options.description,
        authors=tuple(options.author),
        cite=tuple((doi, text) for doi, text in options.cite),
        license=options.license,
        classes=tuple(options.classes),
    )
    weights = tuple(dict.fromkeys(options.weights))
    run_export(
        ExportRequest(choice, options.output, options.format, weights, options.sample, about),
        tell,
    )


def _add_model(parser: Parser) -> None:
    parser.add_argument(
        "-r", "--run_id", type=int, metavar="ID",
        help="training run or published model (default: what the checkpoint's JSON file says)",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint", type=path_argument, metavar="FILE",
        help="the weights; with a JSON file beside it no run is needed (default: the best one of the run)",
    )  # fmt: skip
    parser.add_argument(
        "--runs", type=path_argument, metavar="FOLDER",
        help="directories.runs of the training (default: ~/incasem/training_runs)",
    )  # fmt: skip
    add_database(parser, "--mongodb_training", TRAININGS_FILE, "trainings")


def _add_output(parser: Parser) -> None:
    parser.add_argument(
        "-o", "--output", type=path_argument, required=True, metavar="FOLDER",
        help="folder to make, or a file NAME.zip",
    )  # fmt: skip
    parser.add_argument("--format", choices=FORMATS, default="bioimageio", help="what to make")
    parser.add_argument(
        "--weights", nargs="+", choices=FORMATS[1:], default=["torchscript"], metavar="FORMAT",
        help="formats of the weights in a BioImage.IO model: torchscript, onnx, or both",
    )  # fmt: skip
    parser.add_argument(
        "--sample", metavar="DATASET",
        help="grey values, such as cell.zarr/volumes/raw, whose middle is the test input "
        "(default: generated tissue)",
    )  # fmt: skip
    parser.add_argument(
        "--output_size_voxels", nargs=3, type=int, metavar=("Z", "Y", "X"),
        help="of a network with model.norm=group, whose result depends on the tile: voxels that a tile "
        "emits, as prediction.output_size_voxels (default: 110 110 110)",
    )  # fmt: skip


def _add_about(parser: Parser) -> None:
    add = parser.add_argument
    add(
        "--classes", nargs="+", default=(), metavar="NAME",
        help="names of the classes from 1 on, not of affinities (default: as recorded in the training)",
    )  # fmt: skip
    add("--name", help="of the model (default: made of classes or task, and run)")
    add("--description", metavar="TEXT", help="one paragraph (default: made of classes and voxel size)")
    add(
        "--author", action="append", default=[], metavar="NAME",
        help="who trained it; may be given several times (default: nobody is named)",
    )  # fmt: skip
    add("--license", metavar="SPDX", help="such as CC-BY-4.0 (default: none is given)")
    add(
        "--cite", nargs=2, action="append", default=[], metavar=("DOI", "TEXT"),
        help="a paper besides those of the method; may be given several times (default: none)",
    )  # fmt: skip
