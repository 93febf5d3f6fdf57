"""Run stores: whether they answer, and which number the next run will have."""

import os
from pathlib import Path

from incasem.preflight.findings import Findings
from incasem.preflight.machine import existing_parent
from incasem.tracking import RunStore


def check_store(findings: Findings, about: str, store: RunStore) -> int | None:
    """Add whether a run can be recorded; return the number that it would get, None where it cannot.

    Args:
        findings: gets it.
        about: which store.
        store: opened, so that a database has answered.
    """
    runs = findings.attempt("run-store", about, store.list_runs)
    if runs is None:
        return None
    number = max((run.run_id for run in runs), default=0) + 1
    place = f"{store.location} ({store.db_name})"
    if "://" not in store.location:
        parent = existing_parent(Path(store.location))
        if not os.access(parent, os.W_OK | os.X_OK):
            findings.error(
                "run-store", about, f"{place} cannot be written: no permission for {parent}",
                "Change its permissions, or name another store by directories.runs or INCASEM_RUNS.",
            )  # fmt: skip
            return None
    findings.ok(
        "run-store", about, f"{place}, {len(runs)} runs, the next is {number}",
        location=store.location, runs=len(runs), next=number,
    )  # fmt: skip
    return number
