"""Checks that the shards of a dataset directory are whole and agree with its manifest.

  python -m cxr_tfrecords.verify DATA    (or --data_dir=DATA)

Reads every shard once: checksums, counts, labels, that each image decodes, that nothing is
stored twice under one name, and that no group, no picture and no near-duplicate of one lies in
two splits. Every fault is reported with its file and record. The exit code is 1 if there is a
fault, 2 if DATA is not a dataset directory.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags, logging

from cxr_tfrecords import dataset_dir, files, images, near_duplicates, records, tfrecord
from cxr_tfrecords.console.printable import printable
from cxr_tfrecords.errors import named_data_set, run_main

if TYPE_CHECKING:
    from cxr_tfrecords.console.progress import Progress


@dataclasses.dataclass
class Report:
    """What was read and what is wrong.

    Attributes:
      faults: one line each, naming the shard and, where there is one, the record.
      images, num_bytes: read.
      groups: split -> distinct groups seen.
      near_distance: bits of 256 in which hashes of near-duplicates may differ; -1: not looked for.
      near_pairs: near-duplicates found within a split.
    """

    faults: list[str] = dataclasses.field(default_factory=list)
    images: int = 0
    num_bytes: int = 0
    groups: dict[str, int] = dataclasses.field(default_factory=dict)
    near_distance: int = -1
    near_pairs: int = 0


def verify(path: str, *, near_distance: int | None = None, progress: bool = False) -> Report:
    """Reads the whole directory once and compares it with its manifest.

    Args:
      near_distance: see `Report`; None: the distance of the build.

    Raises:
      UserError: there is no manifest to compare with.
    """
    # Needs tqdm, of the extra `build`: its absence is reported by `run_main`.
    from cxr_tfrecords.console.progress import progress as counted

    manifest = dataset_dir.read_manifest(path)
    settings = manifest["config"]
    if near_distance is None:
        near_distance = -1 if settings["dedup"] == "off" else settings["near_distance"]
    report = Report(near_distance=near_distance)
    seen = _Seen()
    on_disk = {name: size for name, size in files.sizes(path).items() if ".tfrecord-" in name}
    listed = [entry["file"] for entry in manifest["shards"]]
    for name in sorted(on_disk.keys() - set(listed)):
        report.faults.append(f"{name}: not in {dataset_dir.MANIFEST}")
    total = sum(entry["num_examples"] for entry in manifest["shards"])
    with counted(total, "Verify", " images", shown=progress) as bar:
        for entry in manifest["shards"]:
            if entry["file"] not in on_disk:
                report.faults.append(f"{entry['file']}: missing")
                continue
            _verify_shard(path, entry, manifest, report, seen, bar)
            report.num_bytes += on_disk[entry["file"]]
    _check_totals(manifest, report, seen)
    if near_distance >= 0 and seen.hashes:
        _check_near(report, seen)
    return report


class _Seen:
    """Where each group, stored picture and file name was seen first: (split, shard, record)."""

    def __init__(self) -> None:
        self.groups: dict[str, tuple[str, str]] = {}
        self.pictures: dict[bytes, tuple[str, str]] = {}
        self.names: dict[str, str] = {}
        self.by_split: dict[str, set[str]] = collections.defaultdict(set)
        self.counts: collections.Counter[tuple[str, str]] = collections.Counter()
        # Of each image in the order of reading: digest of the pixels, perceptual hash, split, shard
        # and record.
        self.digests: list[bytes] = []
        self.hashes: list[bytes] = []
        self.splits: list[str] = []
        self.places: list[str] = []


def _verify_shard(
    path: str,
    entry: dict[str, Any],
    manifest: dict[str, Any],
    report: Report,
    seen: _Seen,
    bar: Progress,
) -> None:
    digest, count = hashlib.sha256(), 0
    try:
        for serialized in tfrecord.read_records(files.join(path, entry["file"])):
            digest.update(serialized)
            where = f"{entry['file']} record {count}"
            _verify_record(serialized, where, entry, manifest, report, seen)
            count += 1
            bar.update(1)
    except (tfrecord.DamagedRecordError, OSError) as error:
        report.faults.append(f"{entry['file']} record {count}: {error}")
    else:
        if digest.hexdigest() != entry["digest"]:
            report.faults.append(f"{entry['file']}: its records are not those that were built")
    if count != entry["num_examples"]:
        report.faults.append(
            f"{entry['file']}: {count} records read, {entry['num_examples']} expected"
        )
    seen.counts[entry["split"], entry["class"]] += count
    report.images += count


def _verify_record(
    serialized: bytes,
    where: str,
    entry: dict[str, Any],
    manifest: dict[str, Any],
    report: Report,
    seen: _Seen,
) -> None:
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
        if image.get("mask"):
            _check_mask(record.mask, image["size"])
    except images.BadImageError as error:
        report.faults.append(f"{where}: {error}")
        return
    digest = hashlib.sha256(pixels.tobytes()).digest()[:16]
    if report.near_distance >= 0:
        gray = images.to_channels(pixels, 1)[:, :, 0]
        seen.hashes.append(near_duplicates.perceptual_hash(gray))
        seen.digests.append(digest)
        seen.splits.append(split)
        seen.places.append(where)
    picture = seen.pictures.setdefault(digest, (split, where))
    if picture[0] != split and first[0] == split:
        report.faults.append(f"{where}: the same picture is in {picture[0]}, at {picture[1]}")


def _check_mask(mask: bytes | None, size: int) -> None:
    if mask is None:
        raise images.BadImageError("its mask is missing")
    if images.decode_mask(mask).shape != (size, size):
        raise images.BadImageError("its mask is of another size")


def _check_near(report: Report, seen: _Seen) -> None:
    hashes = np.frombuffer(b"".join(seen.hashes), np.uint64).reshape(len(seen.hashes), -1)
    split = np.array(seen.splits)
    pairs = near_duplicates.near_pairs(hashes, report.near_distance)
    across = split[pairs[:, 0]] != split[pairs[:, 1]]
    report.near_pairs = int((~across).sum())
    for low, high in pairs[across].tolist():
        distance = int(np.bitwise_count(hashes[low] ^ hashes[high]).sum())
        if seen.digests[low] != seen.digests[high]:  # else already reported as the same picture
            report.faults.append(
                f"{seen.places[high]}: a near-duplicate ({distance} of 256 bits) is in "
                f"{split[low]}, at {seen.places[low]}"
            )


def _check_totals(manifest: dict[str, Any], report: Report, seen: _Seen) -> None:
    for split in dataset_dir.split_names(manifest):
        by_class = manifest["counts"][split]
        report.groups[split] = len(seen.by_split[split])
        for name, count in by_class.items():
            if seen.counts[split, name] != count:
                report.faults.append(
                    f"{split} {name}: {seen.counts[split, name]} images in the shards, "
                    f"{count} in the manifest"
                )


def main(argv: list[str]) -> int:
    path = named_data_set(argv[1:], flags.FLAGS.data_dir, "cxr_tfrecords.verify")
    logging.set_verbosity(logging.WARNING)  # libraries of object stores log where they found keys
    report = verify(path, near_distance=flags.FLAGS.near_distance, progress=True)
    groups = ", ".join(f"{split} {count:,}" for split, count in report.groups.items())
    print(f"{path}: {report.images:,} images, {report.num_bytes / 1e6:,.1f} MB read")
    print(f"groups: {groups}")
    for fault in report.faults[:20]:
        print(printable(f"fault: {fault}"))
    if len(report.faults) > 20:
        print(f"fault: … and {len(report.faults) - 20} more")
    if report.faults:
        print(f"FAILED: {len(report.faults)} faults")
        return 1
    near = "no group is in two splits"
    if report.near_distance >= 0:
        near += (
            f", nor a near-duplicate within {report.near_distance} of 256 bits "
            f"({report.near_pairs:,} pairs, each in one split)"
        )
    print(f"OK: counts, labels, checksums and pixels agree; {near}")
    return 0


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", "", "The dataset directory, in place of DATA.")
    flags.DEFINE_integer(
        "near_distance",
        None,
        "Bits of 256 in which the hashes of near-duplicates may differ. Default: as built. -1: "
        "look for none.",
    )
    run_main(main, arguments=True, interrupted="nothing was changed, run the same command again")
