"""The list of files lies on disk, in an order and with a digest that depend on nothing else."""

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from beam_pipelines.inputs import sources

FILES = st.builds(
    sources.SourceFile,
    filename=st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable()),
    label=st.integers(0, 3),
    num_bytes=st.integers(0, 2**40),
    mtime_ns=st.integers(0, 2**62),
    split=st.integers(-1, 2),
    tie=st.sampled_from(["", "00" * 16]),
    mask=st.sampled_from(["", "COVID/masks/a b.png"]),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(FILES, max_size=30))
def test_a_list_is_read_back_as_often_as_wanted(files):
    listed = sources.FileList(files)
    assert list(listed) == list(listed) == files
    assert len(listed) == len(files)
    assert listed.newest_ns == max((file.mtime_ns for file in files), default=0)
    assert sources.FileList(iter(files)).digest == listed.digest


def test_the_digest_tells_names_sizes_splits_and_ties_but_no_times():
    files = [sources.SourceFile("a", 0, 10, 5), sources.SourceFile("b", 1, 10, 5)]
    digest = sources.FileList(files).digest
    for change in ({"filename": "c"}, {"num_bytes": 11}, {"split": 1}, {"tie": "00"}, {"label": 1}):
        other = [dataclasses.replace(files[0], **change), files[1]]
        assert sources.FileList(other).digest != digest, change
    touched = [dataclasses.replace(file, mtime_ns=9) for file in files]
    assert sources.FileList(touched).digest == digest
    assert sources.FileList(files[::-1]).digest != digest


def test_more_files_than_a_block(monkeypatch):
    monkeypatch.setattr(sources, "BLOCK", 7)
    files = [sources.SourceFile(f"{n:03d}", n % 2) for n in range(50)]
    listed = sources.FileList(files)
    assert list(listed) == files
    assert listed.label_counts == {0: 25, 1: 25}
    assert [len(block) for block in sources.in_blocks(listed, 20)] == [20, 20, 10]
