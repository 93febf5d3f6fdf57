"""Settings of trainings, recorded ones and those of the published models.

The published models carry the ids that their authors' database gave them; cards in `models/` hold their
settings, so that these ids work in a store that has never seen them.
"""

import json
from pathlib import Path
from typing import Any

from incasem.errors import TrackingError
from incasem.tracking.stores import RunStore, no_such_run

MODEL_CARDS = Path(__file__).parents[2] / "models"  # of the clone that this is installed from


def find_training_settings(store: RunStore, run_id: int, models_dir: Path) -> dict[str, Any]:
    """Return the settings of a training: of the run in the store, else of the published model with this id.

    Args:
        store: of the trainings.
        run_id: `--run_id`, `--start_from` …
        models_dir: folder with cards `ID_name.json`.

    Raises:
        TrackingError: neither knows the id, or the card is damaged.
    """
    if store.exists(run_id):
        return store.config(run_id)
    cards = sorted(Path(models_dir).glob(f"{run_id}_*.json")) + sorted(
        Path(models_dir).glob(f"{run_id}.json")
    )
    if not cards:
        known = sorted({card.stem.partition("_")[0] for card in Path(models_dir).glob("[0-9]*.json")})
        models = f", and the published models {', '.join(known)} (in {models_dir})" if known else ""
        raise no_such_run(store, run_id, models)
    try:
        settings = json.loads(cards[0].read_text())["config"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrackingError(
            f"the model card {cards[0]} cannot be read ({type(error).__name__}: {error}); "
            'allowed: JSON with the training\'s settings under "config". Restore the file.'
        ) from None
    if not isinstance(settings, dict):
        raise TrackingError(f'the model card {cards[0]} holds no settings under "config". Restore the file.')
    return settings
