"""Predictions of one region side by side: a grid of panels that move together."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from neuroglancer import LayerGroupViewer, column_layout, row_layout

from incasem.errors import ConfigError, DataError, explain
from incasem.viewing.datasets import Dataset, find_datasets
from incasem.viewing.layers import Layer, make_layers
from incasem.viewing.pyramid import Pyramid, open_pyramid
from incasem.viewing.scene import Scene
from incasem.volumes import exists, list_datasets

# A panel shows one plane; the names are those of the axes on the screen.
LAYOUTS = ("xy", "xz", "yz")


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        input_file: container of the raw data and the labels.
        raw_dataset: in it.
        labels_datasets: in it; shown with the raw data in the first panel or row.
        predictions_file: container of the predictions.
        series: groups below ``prefix``, one a row, such as ``train_1841/predict_0001``; empty: all.
        iterations: for each series which ``iteration_%06d`` to show; empty: all, or the series itself.
        prefix: group of all predictions.
        suffix: dataset in a prediction.
        layout: one of `LAYOUTS`.
        shader: one of `kinds.SHADERS`.
    """

    input_file: str
    raw_dataset: str
    labels_datasets: Sequence[str]
    predictions_file: str
    series: Sequence[str] = ()
    iterations: Sequence[Sequence[int]] = ()
    prefix: str = "volumes/predictions"
    suffix: str = "prob_maps/class_1"
    layout: str = "xy"
    shader: str = "heatmap"

    def grid(self) -> list[list[str]]:
        """Return the datasets to compare, a list for each series.

        Raises:
            ConfigError: numbers of series and lists of iterations that do not go together.
            DataError: there is no prediction.
        """
        series = list(self.series) or self._found_series()
        lists = list(self.iterations)
        if len(lists) == 1:
            lists = lists * len(series)
        if lists and len(lists) != len(series):
            raise ConfigError(
                explain(
                    "--iterations", f"given {len(lists)} times", f"once, or {len(series)} times", "Correct it"
                )
            )
        if lists:
            return [
                [self._dataset(name, f"iteration_{i:06d}") for i in numbers]
                for name, numbers in zip(series, lists, strict=True)
            ]
        return [self._all_of(name) for name in series]

    def _dataset(self, *parts: str) -> str:
        return "/".join(part.strip("/") for part in (self.prefix, *parts, self.suffix) if part.strip("/"))

    def _below(self, group: str) -> list[str]:
        return list_datasets(os.path.join(self.predictions_file, group))

    def _found_series(self) -> list[str]:
        """Return the groups that hold a prediction, without their iterations."""
        ending = f"/{self.suffix}"
        holders = [name.removesuffix(ending) for name in self._below(self.prefix) if name.endswith(ending)]
        found = list(dict.fromkeys(name.partition("/iteration_")[0] for name in holders))
        if not found:
            raise DataError(
                explain(f"{self.prefix} of {self.predictions_file}", f"without any {self.suffix}",
                        "a group with predictions",
                        "Correct --predictions_path_prefix or --predictions_path_suffix")
            )  # fmt: skip
        return found

    def _all_of(self, name: str) -> list[str]:
        whole = self._dataset(name)
        if exists(os.path.join(self.predictions_file, whole)):
            return [whole]
        group = f"{self.prefix}/{name}"
        wanted = [below for below in self._below(group) if below.endswith(self.suffix)]
        iterations = [f"{group}/{below}" for below in wanted if below.startswith("iteration_")]
        return iterations or [whole]  # which is then reported as missing


def comparison_scene(comparison: Comparison) -> Scene:
    """Return the view: raw data with labels, and each prediction over the raw data.

    With several iterations a row is a series and a column an iteration, labels in a row of their own on top;
    otherwise all stand in one row.

    Raises:
        ConfigError, DataError: see `Comparison.grid`; a dataset is missing.
    """
    grid = comparison.grid()
    truth = _opened(comparison.input_file, [comparison.raw_dataset, *comparison.labels_datasets])
    rows = [_opened(comparison.predictions_file, names) for names in grid]
    flat = [*truth, *(item for row in rows for item in row)]
    word = None if comparison.shader == "default" else comparison.shader
    words = [None] * len(truth) + [word] * (len(flat) - len(truth))
    layers = {
        layer.pyramid.path: layer for layer in _named(make_layers(flat, shader_words=words), comparison)
    }
    inputs = [layers[pyramid.path].name for _, pyramid in truth]
    panels = [[_panel([inputs[0], layers[p.path].name], comparison.layout) for _, p in row] for row in rows]
    first = _panel(inputs, comparison.layout)
    if all(len(row) == 1 for row in panels):
        layout: Any = row_layout([first, *(row[0] for row in panels)])
        size = (1, len(panels) + 1)
    else:
        widest = max(len(row) for row in panels)
        top = [_panel(inputs, comparison.layout) for _ in range(widest)]
        layout = column_layout([row_layout(row) for row in [top, *panels]])
        size = (len(panels) + 1, widest)
    predicted = [layers[pyramid.path].roi_nm for row in rows for _, pyramid in row]
    focus = predicted[0]
    for roi in predicted[1:]:
        focus = focus.union(roi)
    return Scene(list(layers.values()), focus, layout=layout, grid=size, title="comparison of predictions")


def _opened(file: str, names: Sequence[str]) -> list[tuple[Dataset, Pyramid]]:
    return [(dataset, open_pyramid(dataset)) for name in names for dataset in find_datasets(file, name)]


def _named(layers: Sequence[Layer], comparison: Comparison) -> list[Layer]:
    """Return the layers under the short names of their predictions."""
    prefix, suffix = f"{comparison.prefix.strip('/')}/", f"/{comparison.suffix.strip('/')}"
    return [replace(layer, name=layer.name.removeprefix(prefix).removesuffix(suffix)) for layer in layers]


def _panel(names: Sequence[str], layout: str) -> LayerGroupViewer:
    return LayerGroupViewer(layers=list(names), layout=layout)
