"""Compression by name, as each format spells it.

Raw electron microscopy barely compresses: Blosc with LZ4 costs least. Label volumes compress well: Blosc with
Zstandard. The plain Zstandard codec of Zarr v2 is not written, since some readers refuse its newer form.
"""

from typing import Any

import numpy as np

from incasem.errors import DataError, did_you_mean, explain

NAMES = ("default", "none", "lz4", "zstd", "zlib", "gzip")


def choose(compression: str, dtype: np.dtype[Any]) -> str:
    """Return the name of the codec that stands for ``compression``: ``default`` depends on the data.

    Raises:
        DataError: unknown name.
    """
    if compression not in NAMES:
        raise DataError(
            explain(
                "compression",
                repr(compression),
                ", ".join(NAMES),
                "Choose one." + did_you_mean(compression, NAMES),
            )
        )
    if compression != "default":
        return compression
    is_labels = dtype.kind in "iu" and dtype.itemsize >= 4
    return "zstd" if is_labels else "lz4"


def _blosc(cname: str, dtype: np.dtype[Any]) -> dict[str, Any]:
    # Byte shuffling helps where an element has several bytes.
    return {"cname": cname, "clevel": 5, "shuffle": 1 if dtype.itemsize > 1 else 0, "blocksize": 0}


def zarr2_compressor(compression: str, dtype: np.dtype[Any]) -> dict[str, Any] | None:
    """Return the ``compressor`` of a `.zarray`."""
    name = choose(compression, dtype)
    if name == "none":
        return None
    return {"id": name, "level": 3} if name in ("zlib", "gzip") else {"id": "blosc", **_blosc(name, dtype)}


def zarr3_codecs(compression: str, dtype: np.dtype[Any]) -> list[dict[str, Any]]:
    """Return the codecs of one Zarr v3 chunk."""
    name = choose(compression, dtype)
    codecs: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": "little"}}]
    if name in ("zlib", "gzip"):  # Zarr v3 has no zlib codec
        codecs.append({"name": "gzip", "configuration": {"level": 3}})
    elif name != "none":
        configuration = _blosc(name, dtype)
        configuration["shuffle"] = "shuffle" if configuration["shuffle"] else "noshuffle"
        codecs.append({"name": "blosc", "configuration": configuration | {"typesize": dtype.itemsize}})
    return codecs


def n5_compression(compression: str, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return the ``compression`` of an N5 dataset."""
    name = choose(compression, dtype)
    if name == "none":
        return {"type": "raw"}
    if name in ("zlib", "gzip"):
        return {"type": "gzip", "level": 3, "useZlib": name == "zlib"}
    return {"type": "blosc", **_blosc(name, dtype)}


def hdf5_filters(compression: str, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return h5py's filter arguments.

    Raises:
        DataError: Blosc codecs, which HDF5 has only through plug-ins that readers would need too.
    """
    if compression in ("lz4", "zstd"):
        raise DataError(
            explain("compression of an HDF5 dataset", compression, "default, none, gzip", "Choose one.")
        )
    if choose(compression, dtype) == "none":
        return {}
    return {"compression": "gzip", "compression_opts": 3, "shuffle": dtype.itemsize > 1}
