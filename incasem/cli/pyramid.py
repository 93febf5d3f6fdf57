"""The verb that gives a dataset coarser levels."""

import argparse
from collections.abc import Sequence

from incasem.cli.arguments import add_workers, make_parser, path_argument, tell_report


def pyramid(program: str, arguments: Sequence[str]) -> None:
    """Give a dataset coarser levels for viewers."""
    parser = make_parser(
        program,
        "Give a dataset coarser levels, s1, s2, …, so that viewers show it at once. The dataset moves to "
        "DATASET/s0; DATASET goes on meaning it in all commands. Nothing else should read or write it "
        "meanwhile. Interrupted, it goes on when run again.",
    )
    add = parser.add_argument
    add("-f", "--file", type=path_argument, required=True, help="Zarr container")
    add("-d", "--ds", "--dataset", required=True, dest="dataset", help="dataset to get levels")
    add(
        "-s", "--scales", nargs="+", type=_factor, required=True, metavar="FACTOR",
        help="factor of each level to the one before, one for each level: 2 2 2, or 1,2,2 2 for z,y,x",
    )  # fmt: skip
    add(
        "-c", "--chunk_shape", nargs="+", type=int, metavar="N",
        help="chunks of the levels, voxels, one number or z y x (default: those of the dataset)",
    )  # fmt: skip
    add(
        "--method", choices=("auto", "mean", "stride", "majority"), default="auto",
        help="how voxels are merged; auto: stride for labels and masks, mean for the rest",
    )  # fmt: skip
    add_workers(parser, "--num_workers", "-n")
    options = parser.parse_args(list(arguments))

    from incasem.formatting.pyramid import PyramidOptions, make_pyramid

    chunks = options.chunk_shape
    job = PyramidOptions(
        options.file,
        options.dataset,
        options.scales,
        None if chunks is None else tuple(chunks * 3 if len(chunks) == 1 else chunks),
        options.method,
    )
    for name, report in make_pyramid(job, num_workers=options.num_workers):
        tell_report(report, job.file / job.dataset.removesuffix("/s0") / name)


def _factor(text: str) -> tuple[int, int, int]:
    """Return ``2`` or ``1,2,2`` as a factor for each of z, y, x."""
    numbers = [int(part) for part in text.split(",")]
    if len(numbers) not in (1, 3):
        raise argparse.ArgumentTypeError(f"{text!r} is neither one number nor three (z,y,x)")
    z, y, x = numbers * 3 if len(numbers) == 1 else numbers
    return (z, y, x)
