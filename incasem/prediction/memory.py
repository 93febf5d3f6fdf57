"""Telling a lack of memory, and a lost device, from other errors of the network."""

import torch

_OF_ONEDNN = ("could not create a memory", "could not create a primitive")
"""It does not say why; what it cannot compute at all, the check of `InferenceNetwork` has found before."""
_NO_MEMORY = ("DefaultCPUAllocator", "out of memory", *_OF_ONEDNN)
_LOST = ("CUDA error", "CUDNN_STATUS_EXECUTION_FAILED", "CUBLAS_STATUS_EXECUTION_FAILED", "no CUDA-capable")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether ``error`` says that an allocation failed, on the processor or on a GPU.

    torch has a type for GPUs only; on the processor its allocator and oneDNN raise plain RuntimeErrors.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)


def is_lost_device(error: BaseException) -> bool:
    """Return whether ``error`` left this process without its device: each further call of CUDA would fail."""
    if not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return False
    return any(text in str(error) for text in _LOST)


def free_cached_memory(device: torch.device) -> None:
    """Give back what torch keeps of a GPU's memory, in pieces that may not fit what is asked for next."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
