"""The gunpowder node that turns labels into what a sample teaches."""

from incasem.geometry import grow
from incasem.tasks.task import Task
from incasem.training._gunpowder import gp


class MakeTarget(gp.BatchFilter):
    """Makes target and loss scale of a block from labels and mask, with the context that the task needs.

    Args:
        labels, mask: what is read; the labels' values as the volumes have them.
        target, scale: what is made, see `tasks.task.Target`; asked for at the same place.
        task: makes it.
    """

    def __init__(
        self,
        labels: "gp.ArrayKey",
        mask: "gp.ArrayKey",
        target: "gp.ArrayKey",
        scale: "gp.ArrayKey",
        task: Task,
    ) -> None:
        self._labels, self._mask = labels, mask
        self._target, self._scale = target, scale
        self._task = task

    def setup(self) -> None:
        """Announce target and loss scale."""
        for key in (self._target, self._scale):
            spec = self.spec[self._labels].copy()
            spec.dtype = None
            self.provides(key, spec)

    def prepare(self, request: "gp.BatchRequest") -> "gp.BatchRequest":
        """Ask for labels and mask in the same place, with context."""
        needed = gp.BatchRequest()
        for key in (self._labels, self._mask):
            needed[key] = gp.ArraySpec(roi=grow(request[self._scale].roi, self._task.label_context))
        return needed

    def process(self, batch: "gp.Batch", request: "gp.BatchRequest") -> "gp.Batch":
        """Return target and loss scale."""
        made = gp.Batch()
        arrays = self._task.target(batch.arrays[self._labels].data, batch.arrays[self._mask].data)
        for key, array in zip((self._target, self._scale), arrays, strict=True):
            if key in request:
                spec = self.spec[key].copy()
                spec.roi = request[key].roi
                spec.dtype = array.dtype
                made[key] = gp.Array(array, spec)
        return made
