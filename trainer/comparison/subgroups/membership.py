"""Which subgroup each test image is in, by a table of the user's."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Mapping, Sequence

from cxr_tfrecords import tables
from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError
from trainer.input.split_records import read_split

# Images whose value is empty, or which the table does not list.
NO_VALUE = "(no value)"
MOST_VALUES = 20


@dataclasses.dataclass(frozen=True)
class SubgroupTable:
    """A table that was read.

    Attributes:
      path: its file.
      columns: names of the columns with subgroups, as the user wrote them.
      rows: name of an image file, as the table has it -> its values, in the order of the columns.
    """

    path: str
    columns: tuple[str, ...]
    rows: Mapping[str, Sequence[str]]

    def find(self, ids: Sequence[str]) -> list[str | None]:
        """The name under which the table lists each image; None where it does not.

        Raises:
          UserError: the table lists none of the images, or one name fits two of them.
        """
        names = [tables.match(self.rows, image) for image in ids]
        users: dict[str, str] = {}
        for name, image in zip(names, ids, strict=True):
            if name is not None and users.setdefault(name, image) != image:
                raise UserError(
                    f"--subgroup_csv={self.path}: {name!r} may be {users[name]} or {image}: name "
                    "files by their path"
                )
        if not users:
            raise UserError(
                f"--subgroup_csv={self.path} names none of the {len(ids):,} test images: it has "
                f"{next(iter(self.rows), 'no row')!r}, the test split {ids[0]!r}. Name the column "
                "of file names with --subgroup_key"
            )
        return names

    def values(self, column: str, names: Sequence[str | None]) -> list[str]:
        """The value of each image in a column, or `NO_VALUE`.

        Args:
          names: of the images, as `find` gives them.

        Raises:
          UserError: the images have one value, or more than `MOST_VALUES`.
        """
        at = self.columns.index(column)
        values = [(name is not None and self.rows[name][at]) or NO_VALUE for name in names]
        count = len(set(values) - {NO_VALUE})
        where = f"--subgroup_column={column} of --subgroup_csv={self.path}"
        if count > MOST_VALUES:
            raise UserError(
                f"{where} has {count} values for the test images, more than {MOST_VALUES}: make a "
                "column of ranges, such as 0-39, 40-64 and 65+ for ages"
            )
        if len(set(values)) < 2:
            raise UserError(
                f"{where} has the same value for all test images, {values[0]}: name another column"
            )
        return values


def read_subgroups(path: str, columns: Sequence[str], key: str = "") -> SubgroupTable | None:
    """Reads the table that --subgroup_csv names; None if there is neither path nor column.

    Args:
      columns: those with subgroups; key: the one with file names, see `tables.read_columns`.

    Raises:
      UserError: only one of path and columns is given, the file cannot be read, a column is
        missing, or two rows give an image different values.
    """
    if not path and not columns and not key:
        return None
    if not path or not columns:
        raise UserError("--subgroup_csv names a table and --subgroup_column its columns: give both")
    columns = tuple(dict.fromkeys(columns))
    lines: dict[str, int] = {}
    rows: dict[str, list[str]] = {}
    for line, name, values in tables.read_columns(
        path, columns, flag="subgroup_csv", column_flag="subgroup_column", key=key
    ):
        if rows.setdefault(name, values) != values:
            raise UserError(
                f"--subgroup_csv={path}, line {line}: {name} has other values in line "
                f"{lines[name]}: correct one, or leave it out"
            )
        lines.setdefault(name, line)
    return SubgroupTable(path, columns, rows)


def check_images(
    table: SubgroupTable,
    data: Iterable[DatasetDir],
    splits: Sequence[str] = ("test",),
    left_out: Container[str] = (),
) -> None:
    """Refuses a table that does not fit the images that will be tested, before anything is trained
    or predicted.

    Args:
      data: the data set, or the data set with each of its test folds.
      splits: those that are tested; left_out: ids of images that are not.

    Raises:
      UserError: see `SubgroupTable`; or a shard is damaged.
    """
    # These are the names that `Predictions.ids` will hold.
    records = (record for one in data for split in splits for record in read_split(one, split))
    names = table.find([one.filename for one in records if one.filename not in left_out])
    for column in table.columns:
        table.values(column, names)
