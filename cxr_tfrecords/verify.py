"""Proves a dataset directory from its shards alone.

  python -m cxr_tfrecords.verify DATA

Reads every shard once: checksums, counts, labels, that each image decodes, that nothing is
stored twice under one name, and that no group, and no picture, lies in two splits. Every fault
is named by file and record; the exit code is 1 if there is one, 2 if DATA is no dataset.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import os
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from cxr_tfrecords.errors import UserError, run_main
from cxr_tfrecords.splits import SPLITS


@dataclasses.dataclass
class Report:
    """What was read and what is wrong.

    Attributes:
      faults: one line each, naming the shard and, where there is one, the record.
      images, num_bytes: read.
      groups: split -> distinct groups seen.
    """

    faults: list[str] = dataclasses.field(default_factory=list)
    images: int = 0
    num_bytes: int = 0
    groups: dict[str, int] = dataclasses.field(default_factory=dict)


def verify(path: str, *, progress: bool = False) -> Report:
    """Reads the whole directory once and compares it with its manifest.

    Raises:
      UserError: there is no manifest to compare with.
    """
    import tensorflow as tf

    from cxr_tfrecords import dataset_dir

    manifest = dataset_dir.read_manifest(path)
    report = Report()
    # Where each group, stored picture and file name was seen first: (split, shard, record).
    seen = _Seen()
    on_disk = {name for name in tf.io.gfile.listdir(path) if ".tfrecord-" in name}
    listed = [entry["file"] for entry in manifest["shards"]]
    for name in sorted(on_disk - set(listed)):
        report.faults.append(f"{name}: not in {dataset_dir.MANIFEST}")
    total = sum(entry["num_examples"] for entry in manifest["shards"])
    with tqdm(total=total, desc="Verify", unit=" images", disable=not progress) as bar:
        for entry in manifest["shards"]:
            if entry["file"] not in on_disk:
                report.faults.append(f"{entry['file']}: missing")
                continue
            _verify_shard(path, entry, manifest, report, seen, bar)
    _check_totals(manifest, report, seen)
    return report


class _Seen:
    def __init__(self) -> None:
        self.groups: dict[str, tuple[str, str]] = {}
        self.pictures: dict[bytes, tuple[str, str]] = {}
        self.names: dict[str, str] = {}
        self.by_split: dict[str, set[str]] = collections.defaultdict(set)
        self.counts: collections.Counter[tuple[str, str]] = collections.Counter()


def _verify_shard(
    path: str,
    entry: dict[str, Any],
    manifest: dict[str, Any],
    report: Report,
    seen: _Seen,
    bar: tqdm,
) -> None:
    import tensorflow as tf

    file_name = os.path.join(path, entry["file"])
    digest, count = hashlib.sha256(), 0
    try:
        for serialized in _read(file_name):
            digest.update(serialized)
            where = f"{entry['file']} record {count}"
            _verify_record(serialized, where, entry, manifest, report, seen)
            count += 1
            bar.update(1)
    except tf.errors.OpError as error:
        report.faults.append(f"{entry['file']} record {count}: {_short(error)}")
    else:
        if digest.hexdigest() != entry["digest"]:
            report.faults.append(f"{entry['file']}: its records are not those that were built")
    if count != entry["num_examples"]:
        report.faults.append(
            f"{entry['file']}: {count} records read, {entry['num_examples']} expected"
        )
    seen.counts[entry["split"], entry["class"]] += count
    report.images += count
    report.num_bytes += tf.io.gfile.stat(file_name).length


def _read(file_name: str) -> Iterator[bytes]:
    """Yields a shard's records; TensorFlow checks both CRCs of each and raises DataLossError."""
    import tensorflow as tf

    yield from (record.numpy() for record in tf.data.TFRecordDataset(file_name))


def _verify_record(
    serialized: bytes,
    where: str,
    entry: dict[str, Any],
    manifest: dict[str, Any],
    report: Report,
    seen: _Seen,
) -> None:
    from cxr_tfrecords import images, records

    try:
        record = records.parse_record(serialized)
    except ValueError as error:
        report.faults.append(f"{where}: {error}")
        return
    where = f"{where} ({record.filename})"
    names = manifest["class_names"]
    if record.class_name != entry["class"] or record.label != names.index(entry["class"]):
        report.faults.append(
            f"{where}: labelled {record.label} {record.class_name!r} in a shard of "
            f"{entry['class']!r}"
        )
    if record.filename in seen.names:
        report.faults.append(f"{where}: also stored at {seen.names[record.filename]}")
    seen.names.setdefault(record.filename, where)
    split = entry["split"]
    seen.by_split[split].add(record.group)
    first = seen.groups.setdefault(record.group, (split, where))
    if first[0] != split:
        report.faults.append(f"{where}: its group is in {split} and, at {first[1]}, in {first[0]}")
    image = manifest["image"]
    try:
        pixels = images.decode_stored(
            record.encoded, image["encoding"], image["size"], image["channels"]
        )
    except images.BadImageError as error:
        report.faults.append(f"{where}: {error}")
        return
    picture = seen.pictures.setdefault(
        hashlib.sha256(pixels.tobytes()).digest()[:16], (split, where)
    )
    if picture[0] != split and first[0] == split:
        report.faults.append(f"{where}: the same picture is in {picture[0]}, at {picture[1]}")


def _check_totals(manifest: dict[str, Any], report: Report, seen: _Seen) -> None:
    for split in SPLITS:
        by_class = manifest["counts"][split]
        report.groups[split] = len(seen.by_split[split])
        for name, count in by_class.items():
            if seen.counts[split, name] != count:
                report.faults.append(
                    f"{split} {name}: {seen.counts[split, name]} images in the shards, "
                    f"{count} in the manifest"
                )


def _short(error: Exception) -> str:
    """TensorFlow's message without the operation's address."""
    text = str(getattr(error, "message", error)).split(" [Op:")[0].splitlines()[-1]
    return text.rpartition("}}")[2].strip()


def main(argv: list[str]) -> int:
    if len(argv) != 2:
        raise UserError("name one dataset directory: python -m cxr_tfrecords.verify DATA")
    from cxr_tfrecords.quiet import quiet_tensorflow

    quiet_tensorflow()
    report = verify(argv[1], progress=True)
    groups = ", ".join(f"{split} {count:,}" for split, count in report.groups.items())
    print(f"{argv[1]}: {report.images:,} images, {report.num_bytes / 1e6:,.1f} MB read")
    print(f"groups: {groups}")
    for fault in report.faults[:20]:
        print(f"fault: {fault}")
    if len(report.faults) > 20:
        print(f"fault: … and {len(report.faults) - 20} more")
    if report.faults:
        print(f"FAILED: {len(report.faults)} faults")
        return 1
    print("OK: counts, labels, checksums and pixels agree; no group is in two splits")
    return 0


if __name__ == "__main__":
    run_main(main)
