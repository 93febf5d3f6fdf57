"""A training's own validation and a prediction with its checkpoint come to the same scores."""

import json

import pytest

from incasem.runs.checkpoint_series import CheckpointSeries
from incasem.runs.predict import PredictionRequest
from incasem.runs.predict_multiple import predict_multiple
from tests.training.conftest import project, run

__all__ = ["project"]


def test_validation_and_prediction_agree(project):
    run(project, "training.iterations=4")
    request = PredictionRequest(
        "series", 1,
        overrides=[
            f"prediction.data={project / 'validate.json'}", f"directories.data={project}",
            f"directories.runs={project / 'runs'}", "prediction.torch.device=cpu",
            "prediction.precision=fp32",
        ],
    )  # fmt: skip
    predict_multiple(request, CheckpointSeries(iterations=(0, 4)), lambda line: None)

    stored = json.loads((project / "runs/reports/predict_0001/scores.json").read_text())
    assert len(stored["scores"]) == 4
    for row in stored["scores"]:
        sidecar = f"runs/models/0001/model_checkpoint_{row['iteration']}.json"
        validated = json.loads((project / sidecar).read_text())["scores"]["validate"]
        for score in ("f1", "jaccard", "precision", "recall", "average_precision"):
            # The same up to voxels whose probability is rounded otherwise in tiles of another shape.
            assert row[score] == pytest.approx(validated[f"{score}_class_{row['class']}"], abs=2e-4), score
