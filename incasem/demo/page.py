"""What the demo found, and the page that shows it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from incasem.config import load_data_config
from incasem.demo import settings as demo
from incasem.demo.settings import Places
from incasem.errors import DataError
from incasem.evaluation.report import Curve, SlicePanel, write_report
from incasem.geometry import Roi
from incasem.tasks.ground_truth import GroundTruth
from incasem.tracking import PREDICTIONS, TRAININGS, RunStore, open_store
from incasem.volumes import open_volume

SECTIONS = 2  # of the held-out part, on the page


@dataclass(frozen=True)
class Found:
    """The end of the demo.

    Attributes:
        segmentation: dataset in the cell's container.
        training_run, prediction_run: their numbers.
        f1, jaccard, precision, recall: of the held-out part, exclusion zone left out.
    """

    segmentation: str
    training_run: int
    prediction_run: int
    f1: float
    jaccard: float
    precision: float
    recall: float


def find_results(places: Places, size: tuple[int, int, int]) -> Found:
    """Read scores and places of the latest prediction from the run store.

    Raises:
        DataError: there is no finished prediction.
    """
    with open_store(None, places.runs, PREDICTIONS, {}) as store:
        runs = [run for run in store.list_runs() if run.status == "COMPLETED"]
        if not runs:
            raise DataError(f"{store.location} holds no finished prediction. Run the demo again.")
        info = runs[-1]
        settings = store.config(info.run_id)
    training_run = int(settings["prediction"]["run_id_training"])
    folder = Path(info.result["folders"][0])
    (nickname,) = demo.data_config("held_out", size)
    scores = info.result["scores"][nickname][1]
    return Found(
        segmentation=os.path.relpath(folder / "segmentation", places.cell),
        training_run=training_run,
        prediction_run=info.run_id,
        **{name: float(scores[name]) for name in ("f1", "jaccard", "precision", "recall")},
    )


def write_page(places: Places, found: Found, size: tuple[int, int, int]) -> Path:
    """Write the report of the demo; return its path."""
    with open_store(None, places.runs, TRAININGS, {}) as store:
        curves = _curves(store)
    return write_report(
        places.report,
        title="incasem demo: mitochondria of a generated cell",
        summary=(
            "The pictures show a part of the cell that the network never saw. Hatched voxels, the exclusion "
            "zone at the boundaries, are not scored."
        ),
        slices=_panels(places, found),
        curves=curves,
        scores={
            demo.STRUCTURE: {
                "F1": found.f1,
                "Jaccard": found.jaccard,
                "precision": found.precision,
                "recall": found.recall,
            }
        },
        class_names=[demo.STRUCTURE],
        facts={
            "Data": {
                "cell": f"{' × '.join(map(str, size))} voxels of {demo.VOXEL_NM} nm, generated",
                "container": places.cell,
                "segmentation": found.segmentation,
                "exclusion zone": f"{demo.EXCLUSION_VOXELS} voxels inwards and outwards",
            },
            "Runs": {
                "training": found.training_run,
                "prediction": found.prediction_run,
                "settings": places.settings("config_training.yaml"),
            },
        },
        commands=[
            ("watch the curves", f"tensorboard --logdir {places.runs / 'tensorboard'}"),
            ("convert your own images", "incasem convert -i MY_IMAGES -f MY_CELL.zarr"),
        ],
    )


def _panels(places: Places, found: Found) -> list[SlicePanel]:
    (entry,) = load_data_config(places.settings("held_out.json"), places.data)
    raw, segmentation = (
        open_volume(places.cell / demo.EQUALIZED),
        open_volume(places.cell / found.segmentation),
    )
    truth = GroundTruth(entry)
    region = segmentation.roi_voxels
    panels = []
    for part in range(1, SECTIONS + 1):
        z = region.begin[0] + region.shape[0] * part // (SECTIONS + 1)
        section = Roi((z, *region.begin[1:]), (1, *region.shape[1:]))
        panels.append(
            SlicePanel(
                title=f"held-out part, z = {z}",
                raw_YX=raw.read_voxels(section)[0],
                labels_YX=truth.classes(section)[0],
                prediction_YX=segmentation.read_voxels(section)[0],
                excluded_YX=~truth.metric_mask(section)[0],
                pixel_nm=demo.VOXEL_NM,
            )
        )
    return panels


def _curves(store: RunStore) -> list[Curve]:
    """Loss and F1 over the iterations of all parts of the training; a continued one is several runs."""
    lines: dict[str, dict[int, float]] = {"training": {}, "validation": {}, "F1": {}}
    names = {
        "training": "loss_train_0",
        "validation": "loss_val_ds_0_type_0",
        "F1": "f1_class_1_validation_ds_0",
    }
    for run in store.list_runs():
        metrics = store.metrics(run.run_id)
        for line, name in names.items():
            if name in metrics:
                lines[line] |= dict(zip(metrics[name].steps, metrics[name].values, strict=True))
    points: dict[str, Any] = {
        line: (sorted(values), [values[step] for step in sorted(values)]) for line, values in lines.items()
    }
    f1 = points.pop("F1")
    return [
        Curve("Loss", points, y_label="cross-entropy"),
        Curve("F1 of the validation part", {"mitochondria": f1}, y_label="F1", y_limits=(0, 1)),
    ]
