"""The example of neurons as printed, to the scores that its page claims: ten minutes, and half an hour.

`tests/docs/test_commands.py` types the same page with small settings on small volumes.
"""

import csv
import json
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, read_page
from tests.docs.sessions import AS_PRINTED, FIB25_FILE, examples, neurons, typed

LIMIT_S = 3 * 3600  # on a machine with much else to do
DATA = ROOT.parent / "shared/data"
PHANTOM, FIB25, BASELINE = read_page(ROOT / "examples/neurons/README.md").run[:3]
FOLDER = "incasem/examples/neurons"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(LIMIT_S)]


def scores(folder: Path, segmentation: str) -> list[dict[str, float]]:
    """Return the rows that `incasem evaluate-segmentation` left of a segmentation."""
    (table,) = (folder / "predictions/evaluations").glob(
        f"{segmentation}_segmentation_vs_neuron_ids/scores.csv"
    )
    with table.open() as lines:
        rows = [{k: float(v) for k, v in row.items() if k != "segmentation"} for row in csv.DictReader(lines)]
    print(table.read_text())
    return rows


def best(rows: list[dict[str, float]], name: str) -> float:
    return min(row[name] for row in rows)


def test_generated_neurites(tmp_path):
    shell = examples(tmp_path / "home", None)
    typed(shell, [PHANTOM], begin=shell.home / "incasem", prelude=AS_PRINTED, timeout_s=LIMIT_S)
    rows = scores(shell.home / FOLDER, "phantom_train_0001_predict_0001")
    # The page has 0.033, 0.42 and 0.991. Processors round differently, and a training amplifies it.
    assert len(rows) == 4
    assert best(rows, "adapted_rand_error") < 0.1
    assert best(rows, "voi") < 1.0
    assert max(row["boundary_f1"] for row in rows) > 0.95


@pytest.mark.skipif(not (DATA / FIB25_FILE).exists(), reason=f"{DATA / FIB25_FILE} is missing")
def test_real_tissue(tmp_path):
    shell = neurons(tmp_path / "home", None)  # a small training on small neurites is run 1, as on the page
    typed(shell, [PHANTOM], begin=shell.home / "incasem")
    folder = shell.home / FOLDER
    stand_in = shell.home / "shared/data" / FIB25_FILE
    stand_in.unlink()
    stand_in.symlink_to(DATA / FIB25_FILE)
    for name in ("fib25_training.json", "fib25_validation.json"):
        printed = (ROOT / "examples/neurons/data_configs" / name).read_text()
        assert json.loads(printed) != json.loads((folder / "data_configs" / name).read_text())
        (folder / "data_configs" / name).write_text(printed)
    typed(shell, [FIB25, BASELINE], begin=folder, prelude=AS_PRINTED, timeout_s=LIMIT_S)
    ours = scores(folder, "fib25_medulla_neurons_10nm_open_train_0002_predict_0002")
    baseline = scores(folder, "baseline_baseline")
    # The goals.
    assert best(ours, "adapted_rand_error") < 0.12
    assert best(ours, "voi") < 1.2
    for name in ("adapted_rand_error", "voi"):
        assert best(ours, name) < best(baseline, name), name
    # Nothing is learnt here: 0.0629 and 1.0021 on the page.
    assert best(baseline, "adapted_rand_error") == pytest.approx(0.063, abs=0.005)
    assert best(baseline, "voi") == pytest.approx(1.00, abs=0.03)
