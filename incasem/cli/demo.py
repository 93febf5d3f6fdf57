"""`incasem demo`."""

from collections.abc import Sequence
from pathlib import Path

from incasem.cli.arguments import make_parser, path_argument, tell


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
        "--iterations", type=int, default=None, help="training steps; default: the demo's own"
    )
    parser.add_argument("--size", type=int, nargs=3, default=None, metavar=("Z", "Y", "X"), help="voxels")
    options = parser.parse_args(list(arguments))

    from incasem.demo import run_demo

    run_demo(
        options.out_directory.resolve(),
        seed=options.seed,
        iterations=options.iterations,
        size=tuple(options.size) if options.size else None,
        tell=tell,
    )
