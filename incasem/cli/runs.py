"""`incasem runs` and `incasem import-runs`: look into run stores, and copy between them."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from incasem.cli.arguments import make_parser, path_argument, tell
from incasem.cli.stores import add_store, open_chosen_store
from incasem.errors import ConfigError, explain

if TYPE_CHECKING:
    from incasem.tracking import RunStore

_ACTIONS = ("list", "show", "compare", "export")


def runs(program: str, arguments: Sequence[str]) -> None:
    """List, show, compare or export recorded runs."""
    parser = make_parser(
        program,
        "Look into a run store: `list` all runs with their best F1 and lowest validation loss (means over "
        "classes and datasets); `show ID`; `compare ID ID …`: the settings in which runs differ, and their "
        "scores; `export --to mongodb://… [ID …]`: copy runs into MongoDB for Omniboard, or into another "
        "folder. Runs of the target are never replaced.",
    )
    parser.usage = f"{program} list|show|compare|export [ID ...] [options]"
    add = parser.add_argument
    add("action", choices=_ACTIONS, help="what to do")
    add("ids", nargs="*", type=int, metavar="ID", help="runs (default: all, for export)")
    add_store(parser, predictions=True)
    add("--to", metavar="WHERE", help="export: run store to copy to, given like --store (default: none)")
    add("-n", "--last", type=int, metavar="N", help="list: only the newest ones (default: all)")
    add("--status", metavar="STATUS", help="list: COMPLETED, FAILED, … only (default: all)")
    add("--metric", metavar="NAME", help="show: the values of this metric (default: a summary of each)")
    add(
        "--picture",
        type=path_argument,
        metavar="FILE",
        help="compare: draw F1 over the iterations, a PNG file (default: none)",
    )
    add("--all", action="store_true", help="show: settings that have their default value, too")
    add("--json", action="store_true", help="print JSON for machines")
    options = parser.parse_args(list(arguments))
    _check(options)
    with open_chosen_store(options) as store:
        {"list": _list, "show": _show, "compare": _compare, "export": _export}[options.action](store, options)


def _check(options: argparse.Namespace) -> None:
    needed = {"list": (0, 0), "show": (1, 1), "compare": (2, None), "export": (0, None)}
    least, most = needed[options.action]
    if len(options.ids) < least or (most is not None and len(options.ids) > most):
        counts = {0: "no run", 1: "one run", 2: "two runs or more"}
        raise ConfigError(
            explain(
                f"`runs {options.action}`", f"given {len(options.ids)} runs", counts[least],
                "Find their numbers with: incasem runs list",
            )
        )  # fmt: skip
    if options.action == "export" and not options.to:
        raise ConfigError(
            explain("--to", "not given", "a run store to export to", "Such as --to mongodb://localhost:27017")
        )
    if options.last is not None and options.last < 1:
        raise ConfigError(explain("--last", options.last, "1 or more", "Correct it"))


def _list(store: "RunStore", options: argparse.Namespace) -> None:
    from incasem.runs.overview import list_rows

    rows = list_rows(store, last=options.last, status=options.status)
    if not rows and not options.json:
        tell(f"no runs in {store.location} ({store.db_name})")
        return
    _tell_rows(rows, options)


def _show(store: "RunStore", options: argparse.Namespace) -> None:
    from incasem.runs.overview import as_text, changed_settings, curve, show, table

    (run_id,) = options.ids
    if options.metric:
        _tell_rows(curve(store, run_id, options.metric), options)
        return
    shown = show(store, run_id)
    if not options.all:
        shown["settings"] = changed_settings(shown["settings"], store.db_name)
    if options.json:
        tell(json.dumps(shown, indent=2, default=str))
        return
    tell(f"run {run_id} of {shown.pop('store')}")
    settings, metrics, files = (shown.pop(key) for key in ("settings", "metrics", "files"))
    for key, value in shown.items():
        if key != "id" and value is not None and value != "":
            tell(f"  {key:<8} {as_text(value, 200)}")
    tell(f"  files    {', '.join(files) or 'none'}")
    for title, rows in (
        ("metrics", metrics),
        ("settings" if options.all else "settings that are not the defaults (--all shows the others)",
         [{"setting": name, "value": str(value)} for name, value in settings.items()]),
    ):  # fmt: skip
        tell(f"\n{title}" if rows else f"\n{title}: none")
        for line in table(rows):
            tell(f"  {line}")


def _compare(store: "RunStore", options: argparse.Namespace) -> None:
    from incasem.runs.overview import compare

    _tell_rows(compare(store, options.ids), options)
    if options.picture is not None:
        from incasem.runs.comparison import write_comparison

        write_comparison(store, options.ids, options.picture)
        if not options.json:
            tell(f"  {options.picture}")


def _export(store: "RunStore", options: argparse.Namespace) -> None:
    from incasem.tracking import export_runs

    target_options = argparse.Namespace(store=options.to, predictions=options.predictions)
    with open_chosen_store(target_options) as target:
        tell(export_runs(store, target, options.ids).summary())


def _tell_rows(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    from incasem.runs.overview import table

    if options.json:
        tell(json.dumps(rows, indent=2, default=str))
        return
    for line in table(rows):
        tell(line)


def import_runs(program: str, arguments: Sequence[str]) -> None:
    """Import the runs of a MongoDB dump."""
    parser = make_parser(
        program,
        "Copy the runs of a file that `mongodump --archive` wrote (gzipped or not) into a run store, a "
        "folder or a MongoDB, with their numbers. Needs neither MongoDB nor its tools. Runs of the store "
        "are never replaced; run again, it passes over those that are there.",
    )
    add = parser.add_argument
    add("archive", type=path_argument, metavar="ARCHIVE", help="file such as models/fiborganelle_trainings")
    add("--runs", nargs="+", type=int, default=[], metavar="ID", help="these runs (default: all)")
    add("--database", metavar="NAME", help="database of the dump (default: the only one with runs)")
    add_store(parser, predictions=True)
    options = parser.parse_args(list(arguments))

    from incasem.tracking import import_archive

    archive: Path = options.archive
    with open_chosen_store(options) as store:
        report = import_archive(archive, store, database=options.database, run_ids=options.runs)
    tell(report.summary())
