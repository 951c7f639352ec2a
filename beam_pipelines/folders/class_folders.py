"""Which folders below the input folder hold the images of a class.

<Class>/*            <Class>/images/*
<split>/<Class>/*    <split>/<Class>/images/*    as Kaggle's chest_xray/{train,val,test}
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence

from beam_pipelines.folders.listing import (
    NOT_UNPACKED,
    is_archive,
    list_entries,
    unpack_hint,
)
from beam_pipelines.folders.split_words import canonical_name, split_number
from cxr_tfrecords import dataset_dir, files, splits
from cxr_tfrecords.errors import UserError


@dataclasses.dataclass(frozen=True)
class ClassFolder:
    """A class's folder, or one of those that it has in several splits.

    Attributes:
      path: relative to the input folder, with `/`.
      split: index into the splits that are built; -1: not given.
    """

    path: str
    class_name: str
    split: int = -1


@dataclasses.dataclass(frozen=True)
class Layout:
    """The class folders, by class and then path; relative paths passed over; lines for the user."""

    folders: tuple[ClassFolder, ...]
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def find_class_folders(root: str, choice: str, split_names: Sequence[str]) -> Layout:
    """Finds the class folders, right below the input folder or below folders of splits.

    Folders of splits are recognised where all folders of `root` are called as `split_words` says.
    A folder beside them that holds such folders again, as in Kaggle's archive, is passed over.

    Args:
      choice: `given`, `own` or '', see `--splits`.
      split_names: those that the build makes.

    Raises:
      UserError: no such folder, it is a data set, folders of splits and others lie side by side, a
        folder of a split holds no class, or the build makes no such split.
    """
    names, ignored = _subfolders(root)  # first, so that a store's errors name the folder
    if dataset_dir.is_data_set(root):
        raise UserError(
            f"--input_dir={root} is a data set that a build has made: name the folder of its "
            "images. To train on it: python -m trainer.main " + shlex.quote(f"--data_dir={root}")
        )
    by_split = [name for name in names if _is_split(name, split_names)]
    others = [name for name in names if name not in by_split]
    if by_split:
        copies = [name for name in others if _holds_splits(files.join(root, name), split_names)]
        others = [name for name in others if name not in copies]
        ignored += [f"{name} (holds folders of splits again)" for name in copies]
    if others or not by_split:
        _refuse_mixture(root, by_split, others, choice, split_names)
        return Layout(tuple(ClassFolder(name, name) for name in names), tuple(ignored))
    shown = ", ".join(by_split)
    if choice == "own":
        note = f"images of the folders {shown} are taken together and split anew (--splits=own)"
    else:
        note = f"the splits of the folders {shown} are kept; --splits=own ignores them"
        _refuse_other_splits(root, by_split, split_names)
    folders = []
    for name in by_split:
        classes, more = _subfolders(root, name)
        ignored += more
        if not classes:
            raise UserError(
                f"--input_dir={root}: its folder {name}, called as a split, holds no class folder: "
                "put its images into one folder a class, or move it out if they have no class"
                + unpack_hint(more)
            )
        split = -1 if choice == "own" else split_number(name, split_names, root)
        folders += [ClassFolder(f"{name}/{one}", one, split) for one in classes]
    folders.sort(key=lambda folder: (folder.class_name, folder.path))
    return Layout(tuple(folders), tuple(ignored), (note,))


def _is_split(name: str, split_names: Sequence[str]) -> bool:
    return canonical_name(name) in {*splits.SPLITS, *split_names}


def _holds_splits(folder: str, split_names: Sequence[str]) -> bool:
    names, _ = _subfolders(folder)
    return bool(names) and all(_is_split(name, split_names) for name in names)


def _subfolders(root: str, folder: str = "") -> tuple[list[str], list[str]]:
    """Names of folders that can be classes or splits, and paths that are passed over.

    Args:
      folder: relative to `root`, in which paths are relative; '': `root` itself.
    """
    names, ignored = [], []
    prefix = f"{folder}/" if folder else ""
    for entry in list_entries(files.join(root, folder) if folder else root):
        path = prefix + entry.name
        if not entry.is_folder:
            ignored += [path + NOT_UNPACKED] * is_archive(entry.name)
        elif files.is_junk(entry.name) or entry.name.startswith("_"):
            ignored.append(path)
        elif dataset_dir.is_data_set(files.join(root, path)):
            ignored.append(f"{path} (a data set that a build has made)")
        else:
            names.append(entry.name)
    return names, ignored


def _refuse_mixture(
    root: str,
    by_split: Sequence[str],
    others: Sequence[str],
    choice: str,
    split_names: Sequence[str],
) -> None:
    """Raises UserError where folders of `root` that are no classes would be taken for them."""
    if len({canonical_name(name) for name in by_split}) > 1:
        raise UserError(
            f"--input_dir={root} holds the splits {', '.join(by_split)} and beside them "
            f"{', '.join(others)}: move these out, so that only folders of splits are left"
        )
    inner = files.join(root, others[0]) if len(others) == 1 and not by_split else ""
    if inner and _holds_splits(inner, split_names):
        raise UserError(
            f"--input_dir={root} holds {others[0]} alone, which holds folders of splits: give "
            f"--input_dir={inner}"
        )
    if choice == "given":
        raise UserError(
            f"--splits=given: the folders of --input_dir={root} "
            f"({', '.join([*by_split, *others]) or 'none'}) are not called train, val, test or the "
            "like: leave --splits out"
        )


def _refuse_other_splits(root: str, by_split: Sequence[str], split_names: Sequence[str]) -> None:
    """Raises UserError where a folder's split is not one that the build makes."""
    wrong = [name for name in by_split if canonical_name(name) not in split_names]
    if wrong:
        raise UserError(
            f"--input_dir={root}: its folders {', '.join(by_split)} give splits, but --folds makes "
            f"{', '.join(split_names)}: --splits=own ignores the folders' splits, or leave --folds "
            "out"
        )
