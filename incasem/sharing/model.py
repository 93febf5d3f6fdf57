"""Which model is shared: found by its run, its checkpoint, or both, and what is known of it."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from incasem.errors import CheckpointError, ConfigError, explain
from incasem.geometry import Coordinate
from incasem.networks import (
    ValidNetwork,
    best_checkpoint,
    build_network,
    load_checkpoint,
    load_into,
    read_sidecar,
)
from incasem.prediction.tiling import PUBLISHED_OUTPUT
from incasem.sharing.meaning import first_channels, outputs_of, task_settings
from incasem.sharing.outputs import Outputs
from incasem.tracking import (
    MODEL_CARDS,
    TRAININGS,
    checkpoint_folder,
    find_training_settings,
    open_store,
    published_checkpoint,
)

_NAME = re.compile(r"[A-Za-z0-9_+\-() ]{5,128}")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_+\-() ]+")
_DOI = re.compile(r"10\.\d{4,9}/\S+")
_SPDX = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
_LONGEST_DESCRIPTION = 1024
_PUBLISHED_VOXEL_SIZE = (5.0, 5.0, 5.0)


@dataclass(frozen=True)
class About:
    """What only the user knows; what is left out is taken from the training or not said.

    Attributes:
        name: of the model, 5 to 128 letters, digits, spaces and ``_+-()``.
        description: one paragraph.
        authors: names.
        cite: pairs of a DOI and a text.
        license: SPDX identifier, such as CC-BY-4.0.
        classes: names of the classes from 1 on.
    """

    name: str | None = None
    description: str | None = None
    authors: tuple[str, ...] = ()
    cite: tuple[tuple[str, str], ...] = ()
    license: str | None = None
    classes: tuple[str, ...] = ()

    def check(self) -> None:
        """Check what has a form.

        Raises:
            ConfigError: a name or a DOI that BioImage.IO does not take.
        """
        if self.name is not None and not _NAME.fullmatch(self.name):
            raise ConfigError(
                explain(
                    "--name", repr(self.name), "5 to 128 letters, digits, spaces and _+-()", "Change the name"
                )
            )
        if self.license is not None and not _SPDX.fullmatch(self.license):
            raise ConfigError(
                explain(
                    "--license",
                    repr(self.license),
                    "an identifier of https://spdx.org/licenses such as CC-BY-4.0 or MIT",
                    "Correct it",
                )
            )
        if len(self.description or "") > _LONGEST_DESCRIPTION:
            allowed = f"at most {_LONGEST_DESCRIPTION} characters"
            raise ConfigError(
                explain("--description", f"{len(self.description or '')} long", allowed, "Shorten it")
            )
        for doi, _ in self.cite:
            if not _DOI.fullmatch(doi):
                raise ConfigError(
                    explain("--cite", doi, "a DOI such as 10.1083/jcb.202208005, then a text", "Correct it")
                )


@dataclass(frozen=True)
class ModelChoice:
    """How the user named the model.

    Attributes:
        run_id: of the training, None where the checkpoint says all.
        checkpoint: a file, None for the best validated one of the run.
        runs: `directories.runs`.
        trainings: `trainings_db.json`, or None where there is none.
        cards: the folder of published model cards.
        output_size_voxels: `prediction.output_size_voxels`, for networks that depend on the tile; None: its
            default.
    """

    run_id: int | None
    checkpoint: Path | None
    runs: Path
    trainings: Path | None = None
    cards: Path = MODEL_CARDS
    output_size_voxels: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class SharedModel:
    """A trained network and what its files say of it.

    Attributes:
        network: with its weights, on the CPU; without channels that only helped to learn.
        checkpoint: where they came from.
        run_id: of the training, where it is known.
        run_name: of the training, where it is known.
        iteration: of the checkpoint, where it is known.
        voxel_size: nm, z, y, x, that it was trained for.
        outputs: what its channels mean.
        fixed_input: the one input size (z, y, x, voxels) that it is described for, if its result depends on
            the tile; None: any legal size.
        scores: of the validation: dataset → name → value.
        about: what the user said.
        settings: the `model` section of its training.
    """

    network: ValidNetwork
    checkpoint: Path
    run_id: int | None
    run_name: str | None
    iteration: int | None
    voxel_size: tuple[float, float, float]
    outputs: Outputs
    fixed_input: Coordinate | None
    scores: Mapping[str, Mapping[str, float | None]]
    about: About
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """A name that BioImage.IO takes."""
        if self.about.name is not None:
            return self.about.name
        parts = ["incasem", " ".join(self.outputs.names), self.run_name or "", _numbered("run", self.run_id)]
        return _NOT_IN_NAMES.sub(" ", " ".join(part for part in parts if part))[:64].strip()

    @property
    def description(self) -> str:
        """One paragraph."""
        if self.about.description is not None:
            return self.about.description
        size = " x ".join(f"{v:g}" for v in self.voxel_size)
        summary = self.outputs.summary(f"a voxel size of {size} nm (z, y, x)")
        if self.fixed_input is None:
            return summary
        tile = " x ".join(map(str, self.fixed_input))
        return f"{summary} Normalises over its whole input: made for inputs of {tile} voxels."


def find_model(choice: ModelChoice, about: About) -> SharedModel:
    """Find and load the model; nothing is written.

    Raises:
        ConfigError: neither a run nor a checkpoint is named, or ``about`` has a mistake.
        TrackingError: the run is not known.
        CheckpointError: there is no checkpoint, it is damaged, or nothing says what network it is.
    """
    about.check()
    if choice.run_id is None and choice.checkpoint is None:
        raise ConfigError(
            explain("the model", "not named", "--run_id N, --checkpoint FILE, or both", "Add one of them")
        )
    settings: Mapping[str, Any] | None = None
    checkpoint, sidecar = choice.checkpoint, {}
    if checkpoint is not None:
        sidecar = read_sidecar(checkpoint) or {}
    if choice.run_id is not None and not (checkpoint is not None and "model" in sidecar):
        with open_store(choice.trainings, choice.runs, TRAININGS, os.environ) as store:
            settings = find_training_settings(store, choice.run_id, choice.cards)
        if checkpoint is None:
            checkpoint = _of_run(choice, choice.run_id, settings)
            sidecar = read_sidecar(checkpoint) or {}
    assert checkpoint is not None
    return _load(checkpoint, sidecar, settings, choice, about)


def _load(
    checkpoint: Path,
    sidecar: Mapping[str, Any],
    settings: Mapping[str, Any] | None,
    choice: ModelChoice,
    about: About,
) -> SharedModel:
    loaded = load_checkpoint(checkpoint)
    described = sidecar if "model" in sidecar else settings
    if described is None:
        raise CheckpointError(
            explain(
                f"what network {checkpoint} holds",
                f"not known: there is no {checkpoint.name}.json that says it",
                "a checkpoint with its JSON file, or --run_id N of its training",
                "Add --run_id, for instance 1841 for a published model",
            )
        )
    model, data = _section(described, "model", checkpoint), _section(described, "data", checkpoint)
    network = build_network(model)
    load_into(network, loaded)
    known = sidecar.get("classes") if isinstance(sidecar.get("classes"), list) else None
    outputs = outputs_of(task_settings(described, checkpoint), network, about.classes, tuple(known or ()))
    network = first_channels(network, model, len(outputs.channels))
    return SharedModel(
        network=network.eval().requires_grad_(False),
        checkpoint=checkpoint,
        run_id=sidecar.get("run_id", choice.run_id),
        run_name=sidecar.get("name"),
        iteration=sidecar.get("iteration"),
        voxel_size=_voxel_size(data),
        outputs=outputs,
        fixed_input=_fixed_input(network, choice.output_size_voxels),
        scores=sidecar.get("scores") or {},
        about=about,
        settings=model,
    )


def _of_run(choice: ModelChoice, run_id: int, settings: Mapping[str, Any]) -> Path:
    """Return the best validated checkpoint of a run, or the published one."""
    folder = checkpoint_folder(choice.runs, settings, run_id)
    found = best_checkpoint(folder) or published_checkpoint(run_id, choice.cards)
    if found is None:
        raise CheckpointError(
            explain(
                "--checkpoint", "not given", f"a file, or a run with checkpoints in {folder}", "Add a file"
            )
        )
    return found


def _section(described: Mapping[str, Any], name: str, checkpoint: Path) -> Mapping[str, Any]:
    section = described.get(name) or {}
    if not isinstance(section, Mapping):
        raise CheckpointError(
            explain(
                f"{name!r} in {checkpoint.name}.json", section, "settings: value pairs", "Restore the file"
            )
        )
    return section


def _voxel_size(data: Mapping[str, Any]) -> tuple[float, float, float]:
    z, y, x = data.get("voxel_size") or _PUBLISHED_VOXEL_SIZE
    return float(z), float(y), float(x)


def _fixed_input(network: ValidNetwork, asked: tuple[int, int, int] | None) -> Coordinate | None:
    """Return the input of the tiles that `incasem predict` takes for a network that depends on them.

    Raises:
        ConfigError: ``asked`` is given for another network.
    """
    if network.depends_on_tile:
        return network.input_shape_for(asked or PUBLISHED_OUTPUT)
    if asked is not None:
        raise ConfigError(
            explain(
                "--output_size_voxels", " ".join(map(str, asked)), "only for networks with model.norm=group",
                "Leave it out: the result of this network does not depend on the tile",
            )
        )  # fmt: skip
    return None


def _numbered(what: str, number: int | None) -> str:
    return "" if number is None else f"{what} {number}"
