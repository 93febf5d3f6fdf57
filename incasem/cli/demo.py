"""`incasem demo`."""

from collections.abc import Sequence
from pathlib import Path

from incasem.cli.arguments import ZYX, make_parser, path_argument, tell
from incasem.demo.settings import DEFAULT_ITERATIONS, DEFAULT_SIZE


def demo(program: str, arguments: Sequence[str]) -> None:
    """Run the main job on a generated cell."""
    parser = make_parser(
        program,
        "Run the main job on a generated FIB-SEM cell: TIFF stack, Zarr, CLAHE, exclusion zone, training, "
        "prediction, scores, TIFF stack, report. Run again after an interruption, it goes on.",
    )
    parser.add_argument(
        "-o", "--out_directory", type=path_argument, default=Path("demo"), help="where everything goes"
    )
    parser.add_argument("--seed", type=int, default=1, help="which cell")
    parser.add_argument(
        "--iterations", type=int, default=DEFAULT_ITERATIONS, metavar="N", help="training steps"
    )
    parser.add_argument(
        "--size", type=int, nargs=3, default=DEFAULT_SIZE, metavar=ZYX, help="of the cell, voxels"
    )
    options = parser.parse_args(list(arguments))

    from incasem.demo.job import run_demo

    run_demo(
        options.out_directory.resolve(),
        seed=options.seed,
        iterations=options.iterations,
        size=(options.size[0], options.size[1], options.size[2]),
        tell=tell,
    )
