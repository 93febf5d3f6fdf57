"""Run the demo, command after command; what is done is not done again."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

from incasem.demo import settings as demo
from incasem.demo.page import Found, find_results, write_page
from incasem.demo.settings import Places
from incasem.errors import ConfigError, DataError, IncasemError, explain
from incasem.networks import latest_checkpoint

Tell = Callable[[str], None]

DONE = "done.json"


class DemoError(IncasemError):
    """A command of the demo failed; it has said why."""


@dataclass
class Demo:
    """One demo in its folder.

    Attributes:
        places: the folders.
        size: voxels of the cell, z, y, x.
        iterations: of the training.
        seed: which cell, and of the training.
        tell: prints a line.
        done: titles of finished steps with the command or the values that made them.
    """

    places: Places
    size: tuple[int, int, int]
    iterations: int
    seed: int
    tell: Tell
    done: dict[str, str] = field(default_factory=dict)

    def run(self) -> Found:
        """Do all steps that are not done; return what was found."""
        self._recall()
        self._step("1/9 generate a cell", self._identity(), self._generate)
        for title, words in self._commands():
            self._command(title, words)
        found = find_results(self.places, self.size)
        self.tell(f"\n== 9/9 report\n{write_page(self.places, found, self.size)}")
        return found

    def _commands(self) -> Iterator[tuple[str, list[str]]]:
        places = self.places
        cell = ["-f", str(places.cell)]
        stack = ["convert", *cell, "--resolution", *[str(demo.VOXEL_NM)] * 3, "-i"]
        exclude = [f"--exclude_voxels_{side}={demo.EXCLUSION_VOXELS}" for side in ("inwards", "outwards")]
        labels = ["-d", demo.LABELS]
        yield "2/9 TIFF stack to Zarr", [*stack, str(places.stacks / "raw")]
        yield (
            "3/9 annotations to Zarr",
            [*stack, str(places.stacks / demo.STRUCTURE), *labels, "--dtype=uint32"],
        )
        yield "4/9 equalise the histogram (CLAHE)", ["equalize", *cell]
        yield "5/9 exclusion zone", ["metric-mask", *cell, *labels, "-o", demo.METRIC_MASK, *exclude]
        yield "6/9 train and validate", self._training()
        yield "7/9 predict the part never seen, and score it", self._prediction()
        yield "8/9 segmentation to a TIFF stack", self._export()

    def _training(self) -> list[str]:
        """The training, or its continuation after an interruption."""
        words = ["train", "--name", "demo"]
        run_id = self._training_run()
        if run_id is not None:
            words += ["--continue_run", str(run_id)]
        return [*words, "with", str(self.places.settings("config_training.yaml"))]

    def _prediction(self) -> list[str]:
        run_id = self._training_run()
        if run_id is None:
            raise DataError(
                f"{self.places.runs} holds no checkpoint. Delete {self.places.root}, run the demo again."
            )
        config = self.places.settings("config_prediction.yaml")
        return ["predict", "--name", "demo", "--run_id", str(run_id), "with", str(config)]

    def _export(self) -> list[str]:
        dataset = find_results(self.places, self.size).segmentation
        names = ["-d", dataset, "-o", str(self.places.export), "--out_datasets", demo.STRUCTURE]
        return ["export", "-f", str(self.places.cell), *names]

    def _training_run(self) -> int | None:
        """The latest training with a checkpoint."""
        folders = sorted(self.places.runs.glob("models/[0-9]*"), reverse=True)
        return next((int(folder.name) for folder in folders if latest_checkpoint(folder) is not None), None)

    def _generate(self) -> None:
        """Write the generated cell as a microscope and an annotator would hand it over, and the settings."""
        import tifffile

        from incasem.phantom import make_phantom

        voxel_size = (demo.VOXEL_NM,) * 3
        cell = make_phantom(self.size, self.seed, voxel_size, mito_fraction=demo.MITO_FRACTION)
        for name, stack_ZYX in (("raw", cell.raw_ZYX), (demo.STRUCTURE, cell.semantic(demo.STRUCTURE) * 255)):
            folder = self.places.stacks / name
            folder.mkdir(parents=True, exist_ok=True)
            for z, section_YX in enumerate(stack_ZYX):
                tifffile.imwrite(folder / f"section_{z:04d}.tif", np.ascontiguousarray(section_YX))
        for part in demo.PARTS:
            self._write_settings(f"{part}.json", json.dumps(demo.data_config(part, self.size), indent=2))
        for name, values in (
            ("config_training.yaml", demo.training_settings(self.places, self.iterations, self.seed)),
            ("config_prediction.yaml", demo.prediction_settings(self.places)),
        ):
            self._write_settings(name, yaml.safe_dump(values, sort_keys=False))
        self.tell(f"{' × '.join(map(str, self.size))} voxels of {demo.VOXEL_NM} nm in {self.places.stacks}")

    def _write_settings(self, name: str, text: str) -> None:
        path = self.places.settings(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def _command(self, title: str, words: Sequence[str]) -> None:
        self._step(title, shlex.join(["incasem", *words]), lambda: self._call(words))

    def _call(self, words: Sequence[str]) -> None:
        self.tell(f"$ {shlex.join(['incasem', *words])}")
        # A store that the user has chosen for other runs is not for the demo.
        environment = {key: value for key, value in os.environ.items() if key != "INCASEM_RUNS"}
        program = [sys.executable, "-c", "import sys; from incasem.cli import main; sys.exit(main())"]
        code = subprocess.run([*program, *words], env=environment, check=False).returncode
        if code:
            raise DemoError(f"`incasem {words[0]}` ended with exit code {code}. Its message stands above.")

    def _step(self, title: str, made_by: str, action: Callable[[], None]) -> None:
        if title in self.done:
            return
        self.tell(f"\n== {title}")
        action()
        self.done[title] = made_by
        temporary = self.places.root / f".{DONE}"
        temporary.write_text(json.dumps(self.done, indent=2))
        temporary.replace(self.places.root / DONE)

    def _identity(self) -> str:
        return f"size {list(self.size)}, iterations {self.iterations}, seed {self.seed}"

    def _recall(self) -> None:
        """Read which steps an earlier demo in this folder has done."""
        path = self.places.root / DONE
        if not path.exists():
            self.places.root.mkdir(parents=True, exist_ok=True)
            return
        self.done = json.loads(path.read_text())
        made_by = self.done.get("1/9 generate a cell", self._identity())
        if made_by != self._identity():
            raise ConfigError(
                explain(
                    "the demo", self._identity(), f"what {self.places.root} was begun with: {made_by}",
                    "Choose another folder with -o, or delete this one",
                )
            )  # fmt: skip
        self.tell(f"{self.places.root} holds {len(self.done)} of 9 steps; going on")


def run_demo(root: Path, *, seed: int, iterations: int, size: tuple[int, int, int], tell: Tell) -> Found:
    """Run the whole demo in ``root``, or go on with an interrupted one.

    Args:
        root: folder; made if missing.
        seed: which cell.
        iterations: training steps.
        size: voxels of the cell, z, y, x.
        tell: prints a line to the terminal.

    Raises:
        DemoError: a command failed.
        ConfigError: a value is out of range, or ``root`` holds a demo of other settings.
    """
    _check(seed, iterations, size)
    began = time.monotonic()
    places = Places(root)
    found = Demo(places, size, iterations, seed, tell).run()
    _tell_end(tell, places, found, time.monotonic() - began)
    return found


def _check(seed: int, iterations: int, size: tuple[int, int, int]) -> None:
    """Refuse what a later step would stumble over, before anything is made."""
    least = demo.SMALLEST_SIZE
    if any(given < wanted for given, wanted in zip(size, least, strict=True)):
        shown, allowed = (" ".join(map(str, values)) for values in (size, least))
        raise ConfigError(explain("--size", shown, f"{allowed} voxels (z, y, x) or more", "Enlarge it"))
    for flag, value, smallest in (("--iterations", iterations, 1), ("--seed", seed, 0)):
        if value < smallest:
            raise ConfigError(explain(flag, value, f"a whole number of at least {smallest}", "Correct it"))


def _tell_end(tell: Tell, places: Places, found: Found, seconds: float) -> None:
    tell(
        f"\nDone in {seconds / 60:.1f} min. On the part that the network never saw, exclusion zone left out: "
        f"F1 {found.f1:.3f}, Jaccard {found.jaccard:.3f}."
    )
    for what, where in (
        ("report", places.report / "report.html"),
        ("volumes", places.cell),
        ("segmentation", places.cell / found.segmentation),
        ("as TIFF stack", places.export / demo.STRUCTURE),
        ("checkpoints", places.runs / "models"),
    ):
        tell(f"  {what:<14} {where}")
    shown = [demo.RAW, demo.LABELS, found.segmentation]
    tell("To look at it in neuroglancer:")
    tell(f"  {shlex.join(map(str, ['incasem', 'view', '-f', places.cell, '-d', *shown]))}")
    tell("Next, with your own images:")
    tell(
        "  incasem convert -i MY_IMAGES -f MY_CELL.zarr      (and on as above; README.md has the whole walk)"
    )
