"""Scoring functions of the agglomeration, by their names in waterz and PyTorch Connectomics.

A score is 1 - affinity: 0 for fragments that surely belong together, 1 for those that surely do not. Two
regions are merged while their score is below the threshold. These are waterz's numbers: ``0.3`` here is
``0.3`` there, and a larger threshold merges more.
"""

import re
from dataclasses import dataclass
from typing import Literal

from incasem.errors import ConfigError, did_you_mean, explain

__all__ = ["Scoring", "parse_scoring"]

Kind = Literal["mean", "max", "quantile"]

_QUANTILE = re.compile(r"aff(?P<published>\d+)_his256|hist_quant_(?P<all>\d+)(?P<initmax>_initmax)?")
_EXAMPLES = (
    "mean",
    "max",
    *(n.format(q) for q in range(5, 100, 5) for n in ("aff{}_his256", "hist_quant_{}")),
)


@dataclass(frozen=True)
class Scoring:
    """How the affinity between two regions follows from the edges between them.

    Attributes:
        name: one for each function, whatever it was called.
        kind: the mean of all edges; the largest of all; or a quantile.
        quantile: percent, of ``quantile``.
        of_maxima: whether a pair of fragments begins with its largest affinity alone, so that the quantile
            is one of contacts between fragments, and not of voxels.
    """

    name: str
    kind: Kind
    quantile: int = 0
    of_maxima: bool = False

    @property
    def needs_histograms(self) -> bool:
        """Whether every affinity of each pair of fragments has to be counted."""
        return self.kind == "quantile" and not self.of_maxima


def parse_scoring(name: str) -> Scoring:
    """Return the scoring function of a name.

    Args:
        name: ``mean``; ``max``; ``affNN_his256``, the NN percent quantile as PyTorch Connectomics calls it,
            also known as ``hist_quant_NN_initmax``; or ``hist_quant_NN``, that of all edges.

    Raises:
        ConfigError: another name; the message names the nearest one.
    """
    if name == "mean":
        return Scoring(name, "mean")
    if name == "max":
        return Scoring(name, "max")
    match = _QUANTILE.fullmatch(name)
    quantile = int(match["published"] or match["all"]) if match else 0
    if match is None or not 1 <= quantile <= 99:
        raise ConfigError(
            explain(
                "scoring",
                name,
                "mean, max, affNN_his256 or hist_quant_NN with NN from 1 to 99",
                f"Choose one of them.{did_you_mean(name, _EXAMPLES)}",
            )
        )
    of_maxima = bool(match["published"] or match["initmax"])
    one_name = f"aff{quantile}_his256" if of_maxima else f"hist_quant_{quantile}"
    return Scoring(one_name, "quantile", quantile, of_maxima)
