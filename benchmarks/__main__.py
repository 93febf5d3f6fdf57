"""Run every benchmark: `python -m benchmarks [NAME …]` (modules with a `main`; default: all).

The table goes to the terminal and to ``benchmarks/results/DATE.md``.
"""

import argparse
import datetime
import importlib
import pkgutil
import sys
from pathlib import Path

from benchmarks.table import Row, as_markdown

HERE = Path(__file__).parent


def main() -> int:
    """Run the benchmarks that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help="benchmarks to run (default: all)")
    wanted = parser.parse_args().names
    found = {
        name: importlib.import_module(f"benchmarks.{name}")
        for _, name, _ in pkgutil.iter_modules([str(HERE)])
        if not name.startswith("_")
    }
    runnable = sorted(name for name, module in found.items() if hasattr(module, "main"))
    unknown = sorted(set(wanted) - set(runnable))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are: {', '.join(runnable)}")
    rows: list[Row] = []
    for name in wanted or runnable:
        print(f"{name} …", file=sys.stderr, flush=True)
        rows += found[name].main()
    table = as_markdown(rows)
    print(table)
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    target = results / f"{datetime.datetime.now():%Y-%m-%d_%H%M%S}.md"
    target.write_text(table)
    print(f"written to {target}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
