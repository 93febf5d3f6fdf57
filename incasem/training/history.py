"""What a training has seen so far: its losses and validations, for the report at its end."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from incasem.networks import ScoredCheckpoint, mean_f1, mean_score, read_sidecar
from incasem.training.validation import Validation


@dataclass
class History:
    """What the report draws, over iterations.

    Only the validations of the best checkpoint and the latest ones keep their pictures: those of all would
    fill the memory.
    """

    losses: list[tuple[int, float]] = field(default_factory=list)
    validations: list[tuple[int, list[Validation]]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by what it went into: see `clock`."""
    _of_checkpoints: dict[int, float] = field(default_factory=dict)

    @contextmanager
    def clock(self, what: str) -> Iterator[None]:
        """Count the time in this context under ``what``."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - began

    def add(self, iteration: int, validations: Sequence[Validation], *, saved: bool) -> None:
        """Add the validations of an iteration, one a dataset; ``saved``: there is a checkpoint of it."""
        self.validations.append((iteration, list(validations)))
        score = mean_f1({"scores": {str(i): one.scalars() for i, one in enumerate(validations)}})
        if saved and score is not None:
            self._of_checkpoints[iteration] = score
        shown = {iteration, self.best_iteration}
        self.validations = [
            (i, of if i in shown else [replace(one, section=None) for one in of])
            for i, of in self.validations
        ]

    @property
    def best_iteration(self) -> int | None:
        """The iteration whose checkpoint has the highest mean F1 (the newest of equals); None before any.

        The rule is that of `networks.best_scored_checkpoint`, for what this process has seen.
        """
        scored = [(score, iteration) for iteration, score in self._of_checkpoints.items()]
        return max(scored)[1] if scored else None

    def at(self, iteration: int) -> list[Validation]:
        """Return the validations of an iteration; empty where there was none."""
        return next((of for i, of in self.validations if i == iteration), [])

    def shown(self) -> tuple[int, list[Validation]] | None:
        """Return the validations of the best checkpoint, else the latest ones; None where there was none."""
        if self.best_iteration is not None:
            return self.best_iteration, self.at(self.best_iteration)
        return self.validations[-1] if self.validations else None


def scores_of(best: ScoredCheckpoint | None) -> dict[str, float]:
    """Return iteration, F1 and average precision of a checkpoint from its sidecar; empty for None.

    Scores are means over datasets and classes but the background, as far as they are defined.
    """
    if best is None:
        return {}
    average = mean_score(read_sidecar(best.path), "average_precision")
    known = {} if average is None else {"average_precision": average}
    return {"iteration": float(best.iteration), "f1": best.f1} | known
