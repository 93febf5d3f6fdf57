"""Writes archives as mongodump does, in the documented frame format (mongodb/mongo-tools, "
"common/archive/spec.md)."""

import struct
from collections import defaultdict
from datetime import UTC, datetime

import bson

MAGIC = bytes.fromhex("6de29981")
TERMINATOR = b"\xff\xff\xff\xff"
CHUNK = 255 * 1024


def crc64(content, crc=0):
    """CRC-64/XZ bit by bit: an implementation of its own for the tests."""
    crc ^= 2**64 - 1
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0xC96C5795D7870F42 if crc & 1 else 0)
    return crc ^ (2**64 - 1)


def archive(documents, database="public_fiborganelle", segment=2):
    """An archive of (collection, document) in the order given, collections mixed in short segments."""
    names = list(dict.fromkeys(collection for collection, _ in documents))
    out = MAGIC + bson.encode(
        {"concurrent_collections": 4, "version": "0.1", "server_version": "4.4.6", "tool_version": "100.5.1"}
    )
    for name in names:
        out += bson.encode(
            {"db": database, "collection": name, "metadata": "{}", "size": 0, "type": "collection"}
        )
    out += TERMINATOR
    content = defaultdict(bytes)
    for start in range(0, len(documents), segment):
        for name, document in documents[start : start + segment]:
            encoded = bson.encode(document)
            content[name] += encoded
            out += _header(database, name, False, 0) + encoded + TERMINATOR
    for name in names:
        signed = struct.unpack("<q", struct.pack("<Q", crc64(content[name])))[0]
        out += _header(database, name, True, signed) + TERMINATOR
    return out


def _header(database, name, end, crc):
    return bson.encode({"db": database, "collection": name, "EOF": end, "CRC": bson.Int64(crc)})


def published_run(run_id, name="er", artifact=b'{"cell_1": {}}', values=(0.5, 0.7, 0.6)):
    """The documents of a run as Sacred's MongoObserver leaves them in the published database."""
    started = datetime(2021, 5, 4, 12, 30, 15, 250_000, tzinfo=UTC)
    file_id, source_id = bson.ObjectId(), bson.ObjectId()
    documents = [
        ("fs.files", {"_id": file_id, "filename": "x", "length": len(artifact), "chunkSize": CHUNK}),
        ("fs.files", {"_id": source_id, "filename": "train.py", "length": 9, "chunkSize": CHUNK}),
        *(
            ("fs.chunks", {"files_id": file_id, "n": n, "data": artifact[i : i + CHUNK]})
            for n, i in reversed(list(enumerate(range(0, len(artifact), CHUNK))))
        ),
        ("fs.chunks", {"_id": bson.ObjectId(), "files_id": source_id, "n": 0, "data": b"print(1)\n"}),
        (
            "runs",
            {
                "_id": run_id, "format": "MongoObserver-0.7.0", "command": "train", "status": "COMPLETED",
                "experiment": {"name": name, "base_dir": "/x", "sources": [["train.py", source_id]],
                               "repositories": [{"url": "u", "commit": "c0ffee", "dirty": False}]},
                "host": {"hostname": "gpu1"}, "start_time": started, "stop_time": started.replace(hour=20),
                "heartbeat": started.replace(hour=20), "meta": {"options": {"--name": name}},
                "config": {"training": {"iterations": 90000}, "data": {"voxel_size": [4, 4, 4]}, "seed": 7},
                "info": {"metrics": [{"name": "dice_class_1_validation_ds_0", "id": "5f"}]},
                "resources": [], "artifacts": [{"name": "train.json", "file_id": file_id}],
                "captured_out": "iteration 0\n", "result": "val loss: inf",
            },
        ),
    ]  # fmt: skip
    for metric, numbers in (
        ("dice_class_1_validation_ds_0", values),
        ("loss_val_ds_0_type_0", (1.0, 0.5, 0.6)),
    ):
        times = [started.replace(hour=13 + i) for i in range(len(numbers))]
        steps = [1000 * i for i in range(len(numbers))]
        documents.append(
            ("metrics", {"_id": bson.ObjectId(), "run_id": run_id, "name": metric, "steps": steps,
                         "values": list(numbers), "timestamps": times})
        )  # fmt: skip
    return documents
