"""Settings of trainings, recorded ones and those of the published models.

The published models carry the ids that their authors' database gave them; cards in `models/` hold their
settings, so that these ids work in a store that has never seen them. What was never published is assumed, and
a card says so in its `notes`, which are shown whenever the card is used.
"""

import json
import logging
from pathlib import Path
from typing import Any

from incasem.errors import CheckpointError, TrackingError, explain
from incasem.tracking.stores import RunStore, no_such_run

logger = logging.getLogger(__name__)

MODEL_CARDS = Path(__file__).parents[2] / "models"  # of the clone that this is installed from
CHECKPOINTS = "pretrained_checkpoints"


def find_training_settings(store: RunStore, run_id: int, models_dir: Path) -> dict[str, Any]:
    """Return the settings of a training: of the run in the store, else of the published model with this id.

    What a published model's card does not know for certain is logged as a warning, one line for each note.

    Args:
        store: of the trainings.
        run_id: `--run_id`, `--start_from` …
        models_dir: folder with cards `ID_name.json`.

    Raises:
        TrackingError: neither knows the id, or the card is damaged.
    """
    if store.exists(run_id):
        return store.config(run_id)
    cards = _cards(Path(models_dir), run_id)
    if not cards:
        ids = (card.stem.partition("_")[0] for card in Path(models_dir).glob("[0-9]*.json"))
        known = sorted({number for number in ids if number.isdecimal()}, key=int)
        models = f", and the published models {', '.join(known)} (in {models_dir})" if known else ""
        raise no_such_run(store, run_id, models)
    try:
        card = json.loads(cards[0].read_text(encoding="utf-8"))
        settings = card["config"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrackingError(
            f"the model card {cards[0]} cannot be read ({type(error).__name__}: {error}); "
            'allowed: JSON with the training\'s settings under "config". Restore the file.'
        ) from None
    if not isinstance(settings, dict):
        raise TrackingError(f'the model card {cards[0]} holds no settings under "config". Restore the file.')
    for note in card.get("notes", []):
        logger.warning("model %s (%s): %s", run_id, card.get("organelle", "published"), note)
    return settings


def published_checkpoint(run_id: int, models_dir: Path) -> Path | None:
    """Return the downloaded checkpoint of a published model, `pretrained_checkpoints/model_checkpoint_ID_…`.

    None where there is none, or ``run_id`` is no published model's.

    Raises:
        CheckpointError: there are several.
    """
    if not _cards(Path(models_dir), run_id):
        return None
    found = sorted((Path(models_dir) / CHECKPOINTS).glob(f"model_checkpoint_{run_id}_*.pt"))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise CheckpointError(
            explain(
                "prediction.checkpoint", "not set", f"one of {names}", f"Add prediction.checkpoint={found[0]}"
            )
        )
    return found[0] if found else None


def _cards(models_dir: Path, run_id: int) -> list[Path]:
    return sorted(models_dir.glob(f"{run_id}_*.json")) + sorted(models_dir.glob(f"{run_id}.json"))
