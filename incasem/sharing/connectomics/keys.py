"""The keys of PyTorch Connectomics v1 with their defaults, as far as anything here depends on them.

Facts of the interface (zudi-lin/pytorch_connectomics, version 1: ``connectomics/config/defaults.py``,
revisions of 2020 to 2025). Nothing was copied but names and numbers.
"""

from typing import Any

DEFAULTS: dict[str, Any] = {
    "SYSTEM.NUM_GPUS": 4,
    "SYSTEM.NUM_CPUS": 4,
    "MODEL.ARCHITECTURE": "unet_3d",
    "MODEL.BLOCK_TYPE": "residual",
    "MODEL.FILTERS": [28, 36, 48, 64, 80],
    "MODEL.ISOTROPY": [False, False, False, True, True],
    "MODEL.TARGET_OPT": ["0"],
    "MODEL.LABEL_EROSION": None,
    "MODEL.WEIGHT_OPT": [["1"]],
    "MODEL.LOSS_OPTION": [["WeightedBCE"]],
    "MODEL.LOSS_WEIGHT": [[1.0]],
    "MODEL.IN_PLANES": 1,
    "MODEL.NORM_MODE": "bn",
    "MODEL.ACT_MODE": "elu",
    "MODEL.MIXED_PRECESION": None,  # false there, which is left to us unless it is said
    "MODEL.INPUT_SIZE": [8, 256, 256],
    "MODEL.OUTPUT_SIZE": [8, 256, 256],
    "DATASET.IMAGE_NAME": None,
    "DATASET.LABEL_NAME": None,
    "DATASET.VALID_MASK_NAME": None,
    "DATASET.VAL_IMAGE_NAME": None,
    "DATASET.VAL_LABEL_NAME": None,
    "DATASET.VAL_VALID_MASK_NAME": None,
    "DATASET.INPUT_PATH": "path/to/input",
    "DATASET.OUTPUT_PATH": "path/to/output",
    "DATASET.IS_ABSOLUTE_PATH": False,
    "DATASET.VALID_RATIO": 0.5,
    "DATASET.REJECT_SAMPLING.SIZE_THRES": -1,
    "DATASET.REJECT_SAMPLING.P": 0.95,
    "AUGMENTOR.ENABLED": True,
    "AUGMENTOR.ROTATE.ENABLED": True,
    "AUGMENTOR.ROTATE.ROT90": True,
    "AUGMENTOR.ROTATE.P": 1.0,
    "AUGMENTOR.RESCALE.ENABLED": True,
    "AUGMENTOR.RESCALE.LOW": 0.8,
    "AUGMENTOR.RESCALE.HIGH": 1.25,
    "AUGMENTOR.RESCALE.P": 0.5,
    "AUGMENTOR.FLIP.ENABLED": True,
    "AUGMENTOR.FLIP.DO_ZTRANS": 0,
    "AUGMENTOR.ELASTIC.ENABLED": True,
    "AUGMENTOR.ELASTIC.ALPHA": 16.0,
    "AUGMENTOR.ELASTIC.SIGMA": 4.0,
    "AUGMENTOR.GRAYSCALE.ENABLED": True,
    "AUGMENTOR.GRAYSCALE.P": 0.75,
    "AUGMENTOR.MISSINGSECTION.ENABLED": True,
    "AUGMENTOR.MISSINGSECTION.P": 0.5,
    "AUGMENTOR.MISSINGSECTION.NUM_SECTION": 2,
    "AUGMENTOR.MISALIGNMENT.ENABLED": True,
    "AUGMENTOR.MISALIGNMENT.P": 0.5,
    "AUGMENTOR.MISALIGNMENT.DISPLACEMENT": 16,
    "AUGMENTOR.MISALIGNMENT.ROTATE_RATIO": 0.5,
    "AUGMENTOR.MOTIONBLUR.ENABLED": True,
    "AUGMENTOR.MOTIONBLUR.P": 0.5,
    "AUGMENTOR.MOTIONBLUR.SECTIONS": 2,
    "AUGMENTOR.MOTIONBLUR.KERNEL_SIZE": 11,
    "SOLVER.NAME": "SGD",
    "SOLVER.LR_SCHEDULER_NAME": "MultiStepLR",
    "SOLVER.ITERATION_STEP": 1,
    "SOLVER.ITERATION_SAVE": 5000,
    "SOLVER.ITERATION_TOTAL": 40000,
    "SOLVER.ITERATION_VAL": 5000,
    "SOLVER.BASE_LR": 0.001,
    "SOLVER.WEIGHT_DECAY": 0.0001,
    "SOLVER.SAMPLES_PER_BATCH": 2,
    "SOLVER.CLIP_GRADIENTS.ENABLED": False,
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "value",
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": 1.0,
    "SOLVER.SWA.ENABLED": False,
    "SOLVER.SWA.START_ITER": 90000,
    "INFERENCE.INPUT_PATH": None,
    "INFERENCE.IMAGE_NAME": None,
    "INFERENCE.OUTPUT_PATH": "",
    "INFERENCE.OUTPUT_NAME": "result.h5",
    "INFERENCE.IS_ABSOLUTE_PATH": None,
    "INFERENCE.AUG_MODE": "mean",
    "INFERENCE.AUG_NUM": None,
}
"""Keys that are mapped."""

SAME_HERE = {
    "SYSTEM.DISTRIBUTED": "the number of processes that torchrun starts decides",
    "SYSTEM.PARALLEL": "the number of processes that torchrun starts decides",
    "MODEL.OUT_PLANES": "follows from task.offsets",
    "MODEL.OUTPUT_ACT": "follows from the loss",
    "MODEL.POOLING_LAYER": "poolings take maxima here",
    "DATASET.MEAN": "raw data become -1 to 1",
    "DATASET.STD": "raw data become -1 to 1",
    "DATASET.DISTRIBUTED": "the number of processes that torchrun starts decides",
    "INFERENCE.OUTPUT_ACT": "affinities are probabilities",
    "INFERENCE.UNPAD": "the result has the size of the volume",
    "INFERENCE.DO_EVAL": "always so",
}
"""Keys without a counterpart because nothing else is done here."""

_VALUES_HERE: dict[str, tuple[Any, ...]] = {
    "DATASET.MEAN": (0.5,),
    "DATASET.STD": (0.5,),
    "INFERENCE.OUTPUT_ACT": (["sigmoid"],),
    "INFERENCE.UNPAD": (True,),
    "INFERENCE.DO_EVAL": (True,),
}

_TILES = "predictions read real context around each tile, so that no tile shows and nothing is blended"
_ONE_TASK = "there is one target here"
WITHOUT = {
    "SYSTEM.DEBUG": "there is no such mode",
    "MODEL.BACKBONE": "the residual U-Net has none",
    "MODEL.DEPLOY_MODE": "the residual U-Net has none",
    "MODEL.BLOCKS": "each level has one residual block",
    "MODEL.KERNEL_SIZES": "of another architecture there; kernels follow from MODEL.ISOTROPY",
    "MODEL.ATTENTION": "the residual U-Net has none",
    "MODEL.LABEL_DILATION": "only borders can be widened: MODEL.LABEL_EROSION",
    "MODEL.LOSS_KWARGS_KEY": "losses have no further settings",
    "MODEL.LOSS_KWARGS_VAL": "losses have no further settings",
    "MODEL.PAD_MODE": "convolutions do not pad: they read real context",
    "MODEL.EMBEDDING": "the residual U-Net has a first convolution anyhow",
    "MODEL.HEAD_DEPTH": "the last convolution is one",
    "MODEL.RETURN_FEATS": _ONE_TASK,
    "MODEL.REGU_OPT": "there are no such losses",
    "MODEL.REGU_TARGET": "there are no such losses",
    "MODEL.REGU_WEIGHT": "there are no such losses",
    "MODEL.FINETUNE": "runs have numbers",
    "MODEL.EXACT": "weights are ours; see `incasem train --start_from`",
    "MODEL.SIZE_MATCH": "weights are ours; see `incasem train --start_from`",
    "MODEL.PRE_MODEL": "weights are ours; see `incasem train --start_from`",
    "MODEL.PRE_MODEL_LAYER": "weights are ours; see `incasem train --start_from`",
    "MODEL.PRE_MODEL_ITER": "weights are ours; see `incasem train --start_from`",
    "MODEL.AUX_OUT": _ONE_TASK,
    "MODEL.UNETR_FEATURE_SIZE": "of another architecture",
    "DATASET.DATA_SCALE": "volumes are not rescaled on reading: rescale them, and give their voxel size",
    "DATASET.SCALE_FACTOR": "there is no super-resolution",
    "DATASET.LABEL_VAST": "labels are whole numbers: convert them",
    "DATASET.IS_ISOTROPIC": "kernels follow from MODEL.ISOTROPY",
    "DATASET.DO_2D": "all is 3D",
    "DATASET.LOAD_2D": "all is 3D; a stack of images is a volume",
    "DATASET.DROP_CHANNEL": "raw data have one channel",
    "DATASET.PAD_SIZE": "beyond the volume there is its reflection, as far as the network reads",
    "DATASET.PAD_MODE": "beyond the volume there is its reflection, as far as the network reads",
    "DATASET.VAL_PAD_SIZE": "beyond the volume there is its reflection, as far as the network reads",
    "DATASET.NORMALIZE_RANGE": "the range of uint8 and uint16 is the type's own: convert other data",
    "DATASET.LABEL_BINARY": "labels are instances",
    "DATASET.LABEL_MAG": "labels are not magnified",
    "DATASET.REDUCE_LABEL": "any integers do",
    "DATASET.DO_CHUNK_TITLE": "volumes of tiles are to be converted: incasem convert",
    "DATASET.DATA_CHUNK_NUM": "volumes are read as they are needed",
    "DATASET.DATA_CHUNK_IND": "volumes are read as they are needed",
    "DATASET.CHUNK_IND_SPLIT": "volumes are read as they are needed",
    "DATASET.DATA_CHUNK_NUM_IND": "volumes are read as they are needed",
    "DATASET.DATA_CHUNK_STRIDE": "volumes are read as they are needed",
    "DATASET.DATA_CHUNK_ITER": "volumes are read as they are needed",
    "DATASET.DATA_CHUNK_ITER_NUM": "volumes are read as they are needed",
    "DATASET.LOAD_CHUNK_ITER": "volumes are read as they are needed",
    "DATASET.REJECT_SAMPLING.DIVERSITY": "samples are not counted by their objects",
    "AUGMENTOR.SMOOTH": "labels are not smoothed",
    "AUGMENTOR.ADDITIONAL_TARGETS_NAME": "labels are the only target",
    "AUGMENTOR.ADDITIONAL_TARGETS_TYPE": "labels are the only target",
    "AUGMENTOR.RESCALE.FIX_ASPECT": "all axes are scaled alike",
    "AUGMENTOR.FLIP.P": "mirror images are all equally likely",
    "AUGMENTOR.ELASTIC.P": "every sample is deformed",
    "AUGMENTOR.MISSINGPARTS.ITER": "there are no missing parts of sections; see training.augmentation.cutout",
    "AUGMENTOR.MISSINGPARTS.P": "there are no missing parts of sections; see training.augmentation.cutout",
    "SOLVER.ITERATION_RESTART": "incasem train --start_from begins anew, --continue_run goes on",
    "SOLVER.BIAS_LR_FACTOR": "one learning rate for all",
    "SOLVER.WEIGHT_DECAY_BIAS": "one decay for all",
    "SOLVER.WEIGHT_DECAY_NORM": "one decay for all",
    "SOLVER.MOMENTUM": "that of Adam is its own",
    "SOLVER.BETAS": "those of Adam are its own",
    "SOLVER.GAMMA": "there is no schedule by steps: training.optimizer.schedule",
    "SOLVER.STEPS": "there is no schedule by steps: training.optimizer.schedule",
    "SOLVER.WARMUP_FACTOR": "there is no warm-up",
    "SOLVER.WARMUP_ITERS": "there is no warm-up",
    "SOLVER.WARMUP_METHOD": "there is no warm-up",
    "SOLVER.CLIP_GRADIENTS.NORM_TYPE": "the norm is the Euclidean one",
    "SOLVER.SWA.LR_FACTOR": "averaged weights are learnt at the same rate",
    "SOLVER.SWA.MERGE_ITER": "every iteration is averaged",
    "SOLVER.SWA.BN_UPDATE_ITER": "there is no batch normalisation",
    "MONITOR.LOG_OPT": "what is logged is fixed",
    "MONITOR.VIS_OPT": "see training.snapshot",
    "MONITOR.ITERATION_NUM": "every iteration is logged",
    "INFERENCE.INPUT_SIZE": _TILES,
    "INFERENCE.OUTPUT_SIZE": _TILES,
    "INFERENCE.PAD_SIZE": _TILES,
    "INFERENCE.STRIDE": _TILES,
    "INFERENCE.BLENDING": _TILES,
    "INFERENCE.SAMPLES_PER_BATCH": _TILES,
    "INFERENCE.DO_CHUNK_TITLE": "volumes of tiles are to be converted: incasem convert",
    "INFERENCE.DO_SINGLY": "volumes are predicted one after the other",
    "INFERENCE.DO_SINGLY_START_INDEX": "finished volumes are passed over",
    "INFERENCE.DATA_SCALE": "volumes are not rescaled on reading: rescale them, and give their voxel size",
    "INFERENCE.OUTPUT_SCALE": "results have the voxels of the raw data",
    "INFERENCE.TEST_NUM": "prediction.num_workers, or a device each: prediction.torch.device",
    "INFERENCE.TEST_ID": "blocks are shared out as workers ask for them",
}
"""Keys that nothing here corresponds to, and why."""

ON_BY_DEFAULT = {
    "AUGMENTOR.MISSINGPARTS": "there are no missing parts of sections; see training.augmentation.cutout",
    "AUGMENTOR.CUTBLUR": "there is no such augmentation",
    "AUGMENTOR.CUTNOISE": "there is no noise in boxes; see training.augmentation.noise",
}
"""Augmentations that are on unless they are switched off, and have no counterpart."""

GROUPS_WITHOUT = {
    **ON_BY_DEFAULT,
    "AUGMENTOR.COPYPASTE": "there is no such augmentation",
}
"""Groups of keys that nothing here corresponds to, and why."""


def known_keys() -> list[str]:
    """Return all keys whose meaning is known, and the names of groups."""
    return [*DEFAULTS, *SAME_HERE, *WITHOUT, *(f"{group}.ENABLED" for group in GROUPS_WITHOUT)]


def reason(key: str, value: Any) -> str | None:
    """Return why a key that was set is not mapped; None: what it says is so here anyhow.

    Raises:
        KeyError: the key is mapped, or not known.
    """
    if key in SAME_HERE:
        accepted = _VALUES_HERE.get(key)
        return None if accepted is None or value in accepted else f"not so here: {SAME_HERE[key]}"
    if key in WITHOUT:
        return WITHOUT[key]
    return GROUPS_WITHOUT[key.rpartition(".")[0]]


def is_known(key: str) -> bool:
    """Tell whether a key is one of version 1."""
    return key in DEFAULTS or key in SAME_HERE or key in WITHOUT or key.rpartition(".")[0] in GROUPS_WITHOUT
