"""The verbs that hand results over to other programs, and take over their settings."""

from collections.abc import Sequence
from pathlib import Path

from incasem.cli.arguments import ZYX, add_workers, make_parser, path_argument, tell, tell_report
from incasem.errors import ConfigError, explain


def export_precomputed(program: str, arguments: Sequence[str]) -> None:
    """Export labels for neuroglancer."""
    parser = make_parser(
        program,
        "Export labels (a segmentation, instances) as a precomputed volume of neuroglancer, for proofreading "
        "in the browser: scales, meshes at several resolutions, sizes of the segments. Look at it with "
        "`incasem view -f FOLDER`.",
    )
    add = parser.add_argument
    add("-f", "--file", type=path_argument, required=True, help="container of the labels")
    add(
        "-d", "--dataset", default="",
        help="labels: whole numbers, 0 is background (default: the container itself, such as a TIFF)",
    )  # fmt: skip
    add("-o", "--output", type=path_argument, required=True, metavar="FOLDER", help="folder to make")
    add(
        "--resolution", nargs=3, type=float, metavar=ZYX,
        help="voxel size, nm, instead of the stored one (default: as stored)",
    )  # fmt: skip
    add(
        "--sharded", action="store_true",
        help="few large files, for terabytes; the server must hand out parts of files",
    )  # fmt: skip
    add("--no_meshes", action="store_true", help="make no surfaces")
    add(
        "--mesh_scale", type=int, default=0, metavar="N",
        help="scale of the finest surfaces: 0 is that of the labels, 1 half as fine",
    )  # fmt: skip
    add_workers(parser)
    options = parser.parse_args(list(arguments))

    from incasem.formatting.precomputed import PrecomputedOptions
    from incasem.formatting.precomputed import export_precomputed as run_export

    job = PrecomputedOptions(
        options.file,
        options.dataset,
        options.output,
        resolution=None if options.resolution is None else tuple(options.resolution),
        sharded=options.sharded,
        meshes=not options.no_meshes,
        mesh_scale=options.mesh_scale,
    )
    for name, report in run_export(job, num_workers=options.num_workers):
        tell_report(report, job.output / name)
    tell(f"Look at it in the browser: incasem view -f {job.output}")


def export_h5(program: str, arguments: Sequence[str]) -> None:
    """Export datasets into one HDF5 file."""
    parser = make_parser(
        program,
        "Export datasets into one HDF5 file as vol0, vol1, …, as PyTorch Connectomics stores results: "
        "affinities as uint8, channels first. Floats from 0 to 1 become 0 to 255; everything else stays as "
        "it is. -f and -d may be given several times, in pairs.",
    )
    add = parser.add_argument
    add("-f", "--filename", action="append", type=path_argument, required=True, help="container")
    add(
        "-d", "--datasets", action="append", nargs="+", required=True, metavar="DATASET",
        help="datasets of that container",
    )  # fmt: skip
    add(
        "-o", "--output", type=path_argument, required=True, metavar="FILE", help="HDF5 file to make, NAME.h5"
    )
    add("--out_datasets", nargs="+", metavar="NAME", help="names in the file (default: vol0 vol1 …)")
    add("--lossless", action="store_true", help="keep floats as they are")
    options = parser.parse_args(list(arguments))
    if len(options.filename) != len(options.datasets):
        raise ConfigError(
            explain("-d", f"given {len(options.datasets)} times",
                    f"as often as -f, {len(options.filename)} times", "Give one list for each container")
        )  # fmt: skip

    from incasem.formatting.hdf5_file import Hdf5Options
    from incasem.formatting.hdf5_file import export_h5 as run_export

    datasets = [
        (file, dataset)
        for file, of_file in zip(options.filename, options.datasets, strict=True)
        for dataset in of_file
    ]
    job = Hdf5Options(datasets, options.output, options.out_datasets, options.lossless)
    for name, report in run_export(job):
        tell_report(report, job.output / name)


def import_pytc(program: str, arguments: Sequence[str]) -> None:
    """Take over the settings of a PyTorch Connectomics v1 training."""
    parser = make_parser(
        program,
        "Take over the settings of PyTorch Connectomics v1: writes config_training.yaml, "
        "config_prediction.yaml and data configurations, and lists what nothing here corresponds to. Later "
        "settings win: the defaults of that program, --config-base, --config-file, then KEY VALUE ….",
    )
    add = parser.add_argument
    add("--config-base", "--config_base", type=path_argument, metavar="FILE", help="YAML of many runs")
    add("--config-file", "--config_file", type=path_argument, metavar="FILE", help="YAML of this run")
    add("-o", "--output", type=path_argument, default=Path("."), metavar="FOLDER", help="where the files go")
    add(
        "--resolution", nargs=3, type=float, metavar=ZYX,
        help="voxel size, nm, which those settings do not have (default: as the images state)",
    )  # fmt: skip
    add("--ignore_unknown", action="store_true", help="list keys that version 1 does not have, and go on")
    add("settings", nargs="*", metavar="KEY VALUE", help="single settings, such as SOLVER.BASE_LR 0.01")
    options = parser.parse_args(list(arguments))

    from incasem.sharing.connectomics import ImportRequest, import_settings

    resolution = options.resolution
    made = import_settings(
        ImportRequest(
            options.config_base,
            options.config_file,
            options.settings,
            options.output,
            None if resolution is None else (resolution[0], resolution[1], resolution[2]),
            options.ignore_unknown,
        )
    )
    for line in made.listing.lines(with_taken=False):
        tell(line)
    for file in made.files:
        tell(f"wrote {file}")
    for volume in made.missing:
        tell(f"not there: {volume}")
    for command in made.commands():
        tell(f"  {command}")
