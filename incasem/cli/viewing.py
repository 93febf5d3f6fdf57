"""The verbs that open volumes in neuroglancer."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from incasem.cli.arguments import Parser, make_parser, path_argument, tell
from incasem.errors import ConfigError, explain

if TYPE_CHECKING:
    from incasem.viewing import Dataset, Pyramid
    from incasem.viewing.scene import Scene

_SHADERS = ("default", "rgb", "mask", "heatmap", "probmap")
_LAYOUTS = ("xy", "xz", "yz")


def view(program: str, arguments: Sequence[str]) -> None:
    """Open volumes in neuroglancer."""
    parser = make_parser(
        program,
        "Open volumes in neuroglancer: raw data as images, labels and segmentations in colours, masks "
        "and probability maps over them. Groups stand for all arrays below them, groups of s0, s1, … are one "
        "array at several resolutions, NAME[3] and NAME[0:100] are parts. -f may be given several times, "
        "with a -d (-s, -g) each; a folder of `incasem export-precomputed` takes none.",
    )
    add = parser.add_argument
    add("-f", "--file", action="append", type=_container, required=True, metavar="FILE", help="container")
    add(
        "-d", "--datasets", action="append", nargs="+", metavar="DATASET",
        help="what to show of that container (default: everything)",
    )  # fmt: skip
    add(
        "-g", "--graphs", action="append", nargs="+", metavar="TABLE",
        help="tables of points in that container; z, y, x in nm",
    )  # fmt: skip
    add(
        "-s", "--shaders", action="append", nargs="+", choices=_SHADERS, metavar="SHADER",
        help=f"how to show each dataset, or all of that container: {', '.join(_SHADERS)} (default: by its "
        "name and type)",
    )  # fmt: skip
    add("--add_prefix", action="store_true", help="put the container's name before each layer's")
    add(
        "--select",
        nargs="+",
        type=int,
        default=[],
        metavar="ID",
        help="labels selected, with their surfaces (default: none)",
    )
    _add_serving(parser)
    options = parser.parse_args(list(arguments))

    from incasem.viewing import import_neuroglancer

    import_neuroglancer()
    from incasem.viewing.layers import make_layers, precomputed_layers
    from incasem.viewing.points import point_layer
    from incasem.viewing.precomputed import is_precomputed, served_precomputed
    from incasem.viewing.scene import Scene

    names = ", ".join(dict.fromkeys(os.path.basename(file) for file in options.file))
    folders = [file for file in options.file if is_precomputed(file)]
    options.file = [file for file in options.file if file not in folders]
    selected = tuple(options.select)
    opened, words = _open_all(options)
    layers = make_layers(opened, shader_words=words, add_prefix=options.add_prefix, selected=selected)
    tables = [(file, name) for file, names in _paired(options, "graphs") for name in names]
    points = {f"{name} ({os.path.basename(file)})": point_layer(file, name) for file, name in tables}
    with served_precomputed(folders) as volumes:
        layers += precomputed_layers(volumes, selected)
        _show(Scene(layers, annotations=points, title=names), options)


def view_rois(program: str, arguments: Sequence[str]) -> None:
    """Show the regions of data configurations."""
    parser = make_parser(
        program,
        "Show the regions of data configurations in neuroglancer, as boxes over the raw data: the region, "
        "and around it the context that the network reads.",
    )
    add = parser.add_argument
    add(
        "-d", "--dataset_config", nargs="+", type=path_argument, required=True, metavar="FILE",
        help="JSON data configurations",
    )  # fmt: skip
    add(
        "-p", "--data_prefix", type=path_argument, default=Path("~/incasem/data"), metavar="FOLDER",
        help="where the containers lie",
    )  # fmt: skip
    add("--context", type=int, default=47, metavar="N", help="context on each side, voxels")
    add(
        "-o", "--only_cell", metavar="FILE",
        help="the container to show, as the configurations name it (default: the only one)",
    )  # fmt: skip
    _add_serving(parser)
    options = parser.parse_args(list(arguments))
    if options.context < 0:
        raise ConfigError(explain("--context", options.context, "0 or more voxels", "Correct it"))

    from incasem.viewing import import_neuroglancer

    import_neuroglancer()
    from incasem.viewing.rois import load_rois, roi_scene

    entries = load_rois(options.dataset_config, options.data_prefix, options.only_cell)
    _show(roi_scene(entries, options.context), options)


def compare_predictions(program: str, arguments: Sequence[str]) -> None:
    """Show predictions side by side."""
    parser = make_parser(
        program,
        "Show predictions of one region side by side in neuroglancer, over the raw data, panels moving "
        "together: a row for each series, a column for each iteration, the labels on top.",
    )
    add = parser.add_argument
    add("--input_file", type=_container, required=True, metavar="FILE", help="container of the raw data")
    add("--raw_dataset", required=True, metavar="DATASET", help="raw data in it")
    add("--labels_datasets", nargs="*", default=[], metavar="DATASET", help="labels in it (default: none)")
    add(
        "--predictions_file", type=_container, metavar="FILE",
        help="container of the predictions (default: the input file)",
    )  # fmt: skip
    add(
        "--predictions_series", action="append", metavar="GROUP",
        help="a prediction, such as train_1841/predict_0001; may be given several times (default: all)",
    )  # fmt: skip
    add(
        "--iterations", nargs="+", type=int, action="append", metavar="N",
        help="iterations of predict_multiple.py to show, for all series or once for each (default: all)",
    )  # fmt: skip
    add("--layout", choices=_LAYOUTS, default="xy", help="the plane to show")
    add("--shader", choices=_SHADERS, default="heatmap", help="how to show the predictions")
    add(
        "--predictions_path_prefix", default="volumes/predictions", metavar="GROUP",
        help="group of all predictions",
    )  # fmt: skip
    add(
        "--predictions_path_suffix", default="prob_maps/class_1", metavar="DATASET",
        help="dataset in each prediction",
    )  # fmt: skip
    _add_serving(parser)
    options = parser.parse_args(list(arguments))

    from incasem.viewing import import_neuroglancer

    import_neuroglancer()
    from incasem.viewing.comparison import Comparison, comparison_scene

    comparison = Comparison(
        input_file=options.input_file,
        raw_dataset=options.raw_dataset,
        labels_datasets=options.labels_datasets,
        predictions_file=options.predictions_file or options.input_file,
        series=[name.strip("/") for name in options.predictions_series or ()],
        iterations=options.iterations or (),
        prefix=options.predictions_path_prefix.strip("/"),
        suffix=options.predictions_path_suffix.strip("/"),
        layout=options.layout,
        shader=options.shader,
    )
    _show(comparison_scene(comparison), options)


def _container(text: str) -> str:
    """Return a container with `~` expanded and without a slash at its end; URLs as they are."""
    return os.path.expanduser(text).rstrip("/")


def _add_serving(parser: Parser) -> None:
    add = parser.add_argument
    add("-n", "--no-browser", action="store_true", help="only print the address, open no browser")
    add(
        "--serve",
        action="store_true",
        help="for a browser elsewhere: say how to reach it, go on until interrupted",
    )
    add("--port", type=int, default=0, metavar="N", help="port on 127.0.0.1, 0 for any free one")


def _open_all(options: argparse.Namespace) -> tuple[list["tuple[Dataset, Pyramid]"], list[str | None]]:
    """Return what `-f`, `-d` and `-s` name, and the shader of each."""
    from incasem.viewing import find_datasets, open_pyramid

    opened: list[tuple[Dataset, Pyramid]] = []
    words: list[str | None] = []
    shaders = dict(enumerate(wanted for _, wanted in _paired(options, "shaders")))
    for k, (file, names) in enumerate(_paired(options, "datasets")):
        chosen = shaders[k] or ["default"]
        names = names or [""]
        if len(chosen) not in (1, len(names)):
            raise ConfigError(
                explain(f"-s of {file}", " ".join(chosen), f"one, or one for each of {len(names)} datasets",
                        "Correct it")
            )  # fmt: skip
        for name, shader in zip(names, chosen * len(names) if len(chosen) == 1 else chosen, strict=True):
            for dataset in find_datasets(file, name):
                opened.append((dataset, open_pyramid(dataset)))
                words.append(shader)
    return opened, words


def _paired(options: argparse.Namespace, name: str) -> list[tuple[str, list[str]]]:
    """Return each file with the k-th list of an option, or an empty one where it is not given."""
    given = getattr(options, name)
    if not given:
        return [(file, []) for file in options.file]
    if len(given) != len(options.file):
        raise ConfigError(
            explain(f"--{name}", f"given {len(given)} times", f"as often as -f, {len(options.file)} times",
                    "Give one list for each container")
        )  # fmt: skip
    return list(zip(options.file, given, strict=True))


def _show(scene: "Scene", options: argparse.Namespace) -> None:
    from incasem.viewing.session import show

    show(scene, tell=tell, browser=not options.no_browser, keep_serving=options.serve, port=options.port)
