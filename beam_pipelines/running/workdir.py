"""The build's scratch folder: lists of work and their results; removed when the build ends.

Work travels by file name, so that the job graph that Beam submits stays small however many
images there are, and a finished piece is one whole file: what a resumed build skips.
"""

from __future__ import annotations

import dataclasses

from cxr_tfrecords import dataset_dir, files

FOLDER = dataset_dir.SCRATCH


@dataclasses.dataclass(frozen=True)
class Scratch:
    """Where a build keeps what it needs until it is finished."""

    root: str

    @property
    def state(self) -> str:
        """JSON: what is being built, for a later --resume."""
        return files.join(self.root, "build.json")

    @property
    def chunks(self) -> str:
        return files.join(self.root, "chunks")

    @property
    def parts(self) -> str:
        return files.join(self.root, "inspected")

    @property
    def marks(self) -> str:
        """Folder for the marks of files that are being decoded, see `concurrency.marks`."""
        return files.join(self.root, "decoding")

    @property
    def parts_list(self) -> str:
        """JSON: paths of all parts, in order."""
        return files.join(self.root, "parts.json")

    @property
    def plans(self) -> str:
        return files.join(self.root, "plans")

    @property
    def written(self) -> str:
        return files.join(self.root, "written")

    @property
    def appended(self) -> str:
        """Folder for the new shards of --append, until they are committed."""
        return files.join(self.root, "appended")

    @property
    def commit(self) -> str:
        """JSON: what --append has decided to change in the directory, see `commit`."""
        return files.join(self.root, "commit.json")

    def make(self) -> None:
        folders = self.chunks, self.parts, self.marks, self.plans, self.written, self.appended
        for folder in (self.root, *folders):
            files.makedirs(folder)

    def remove(self) -> None:
        files.remove_tree(self.root)
