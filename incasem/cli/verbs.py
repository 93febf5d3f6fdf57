"""The tree of verbs: what each is called, where it lives, and how its errors reach the user."""

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from incasem.errors import ConfigError, DataError, IncasemError, did_you_mean
from incasem.garbage import collect_rarely

_MEND_FILE = "Check that it is where it should be, its permissions, and the free space."
READER_GONE = 141  # that of a command ended by SIGPIPE
_RANK = ("--local-rank=", "--local_rank=")
"""`python -m torch.distributed.launch -m incasem train` puts it before the verb."""
INTERRUPTED = 130  # the exit code of a shell command ended by Ctrl-C


@dataclass(frozen=True)
class Verb:
    """One command. Its module is imported only when it is asked for, which keeps `-h` quick."""

    name: str
    module: str
    line: str
    function: str


VERBS = {
    verb.name: verb
    for verb in (
        Verb("convert", "incasem.cli.formatting", "convert stacks of images to Zarr", "convert"),
        Verb("equalize", "incasem.cli.formatting", "equalise the histogram by CLAHE", "equalize"),
        Verb("mask", "incasem.cli.formatting", "mask the sample by grey value", "mask"),
        Verb(
            "metric-mask", "incasem.cli.formatting", "make the exclusion zone around objects", "metric_mask"
        ),
        Verb("components", "incasem.cli.formatting", "number the connected objects of labels", "components"),
        Verb("pyramid", "incasem.cli.pyramid", "give a dataset coarser levels for viewers", "pyramid"),
        Verb("n5-to-zarr", "incasem.cli.n5", "convert N5 (OpenOrganelle, COSEM) to Zarr", "n5_to_zarr"),
        Verb(
            "cosem-labels",
            "incasem.cli.n5",
            "make labels of organelles of COSEM's annotations",
            "cosem_labels",
        ),
        Verb(
            "import-pytc",
            "incasem.cli.handover",
            "take over the settings of PyTorch Connectomics",
            "import_pytc",
        ),
        Verb("check", "incasem.cli.check", "check a training, a prediction or volumes beforehand", "check"),
        Verb("train", "incasem.cli.train", "train, fine-tune or continue a training", "train"),
        Verb("predict", "incasem.cli.predict", "segment whole volumes with a trained network", "predict"),
        Verb(
            "predict-multiple",
            "incasem.cli.predict",
            "predict with a series of checkpoints and compare them",
            "predict_multiple",
        ),
        Verb("threshold", "incasem.cli.postprocessing", "make a segmentation of probabilities", "threshold"),
        Verb("segment", "incasem.cli.segment", "segment affinities into neurons", "segment"),
        Verb("evaluate", "incasem.cli.postprocessing", "score a prediction against labels", "evaluate"),
        Verb(
            "baseline-affinities",
            "incasem.cli.baseline",
            "make affinities of grey values, to compare with predicted ones",
            "baseline_affinities",
        ),
        Verb(
            "evaluate-segmentation",
            "incasem.cli.segmentation_scores",
            "score segmentations against the truth: adapted Rand, VOI",
            "evaluate_segmentation",
        ),
        Verb("runs", "incasem.cli.runs", "list, show, compare and export recorded runs", "runs"),
        Verb("import-runs", "incasem.cli.runs", "import the runs of a MongoDB dump", "import_runs"),
        Verb("download", "incasem.cli.download", "fetch the published models and volumes", "download"),
        Verb("export", "incasem.cli.formatting", "export datasets as TIFF stacks", "export"),
        Verb(
            "export-precomputed",
            "incasem.cli.handover",
            "export labels for neuroglancer, with meshes",
            "export_precomputed",
        ),
        Verb(
            "export-h5", "incasem.cli.handover", "export datasets into one HDF5 file, as vol0 …", "export_h5"
        ),
        Verb(
            "export-model",
            "incasem.cli.sharing",
            "export a trained network as BioImage.IO, TorchScript or ONNX",
            "export_model",
        ),
        Verb("view", "incasem.cli.viewing", "open volumes in neuroglancer", "view"),
        Verb("view-rois", "incasem.cli.viewing", "show the regions of data configurations", "view_rois"),
        Verb(
            "compare-predictions",
            "incasem.cli.viewing",
            "show predictions side by side",
            "compare_predictions",
        ),
        Verb("phantom", "incasem.cli.formatting", "generate a cell or neurites to try things on", "phantom"),
        Verb("demo", "incasem.cli.demo", "run the main job on a generated cell", "demo"),
    )
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``incasem VERB …`` and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if len(words) > 1 and words[0].startswith(_RANK):
        words[:2] = [words[1], words[0]]
    parser = _top_parser()
    if not words or words[0] in ("-h", "--help"):
        parser.print_help()
        return 0 if words else ConfigError.exit_code
    if words[0] == "--version":
        return _print_version()
    if words[0] not in VERBS:
        message = f"there is no verb {words[0]!r}.{did_you_mean(words[0], VERBS)} See: incasem -h"
        print(f"incasem: error: {message}", file=sys.stderr)
        return ConfigError.exit_code
    return run_verb(words[0], words[1:], program=f"incasem {words[0]}")


def run_script(verb: str) -> None:
    """Run ``verb`` with the arguments of this process, as a published script does, and exit."""
    sys.exit(run_verb(verb, sys.argv[1:], program=sys.argv[0].rsplit("/", 1)[-1]))


def neuroglancer() -> None:
    """Run ``incasem view`` under the user guide's name for it: ``neuroglancer -f FILE -d DATASET …``."""
    run_script("view")


def run_verb(name: str, arguments: Sequence[str], program: str) -> int:
    """Run one verb. Errors that a user can mend end in one line on stderr and their exit code."""
    collect_rarely()
    _set_up_logging()
    verb = VERBS[name]
    function = getattr(importlib.import_module(verb.module), verb.function)
    try:
        code = function(program, list(arguments))
    except IncasemError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output (`| head`) has had enough. Nothing more is said, not even at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    except OSError as error:
        # A file that cannot be used, where nobody foresaw it. Without its name it is a defect of ours.
        if error.filename is None:
            raise
        print(f"{program}: error: {error.filename}: {error.strerror}. {_MEND_FILE}", file=sys.stderr)
        return DataError.exit_code
    except KeyboardInterrupt:
        print(f"{program}: interrupted; run the same command again to go on", file=sys.stderr)
        return INTERRUPTED
    return code or 0  # most verbs either do their work or raise


def _set_up_logging() -> None:
    """Warnings go to the terminal as one line each; what a run logs in detail goes to its own file."""
    logging.captureWarnings(True)
    root = logging.getLogger()
    logging.getLogger("incasem").setLevel(logging.INFO)
    if not root.handlers:
        terminal = logging.StreamHandler()
        terminal.setLevel(logging.WARNING)
        terminal.setFormatter(logging.Formatter("warning: %(message)s"))
        terminal.addFilter(_Once())
        root.addHandler(terminal)


class _Once(logging.Filter):
    """Lets each message pass once: a volume that is opened six times has one thing to say."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        new = message not in self._seen
        self._seen.add(message)
        return new


def _top_parser() -> argparse.ArgumentParser:
    width = max(len(name) for name in VERBS)
    lines = [f"  {verb.name:<{width}}  {verb.line}" for verb in VERBS.values()]
    return argparse.ArgumentParser(
        prog="incasem",
        usage="incasem VERB [options]",
        description="Train on a few annotated boxes, segment the whole electron-microscopy volume.",
        epilog="verbs:\n" + "\n".join(lines) + "\n\n`incasem VERB -h` lists the options of a verb.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _print_version() -> int:
    from importlib.metadata import version

    print(f"incasem {version('incasem')}")
    return 0
