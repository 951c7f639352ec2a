"""A cascade as a user describes it: stages, each of which decides among classes.

    first: Normal, Pneumonia --backbone=vgg16
    Pneumonia: COVID, Other=Viral Pneumonia+Lung_Opacity --backbone=densenet121

Images of the answer `Pneumonia` go to the stage of this name. All other answers are the leaves, the
classes of the whole cascade. Nothing here needs TensorFlow.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from cxr_tfrecords.checks.json_schema import EVERY_KEY, Number, find_problem
from cxr_tfrecords.errors import UserError, expand_argument
from cxr_tfrecords.pages.class_lists import check_known
from cxr_tfrecords.sealed_files import read_sealed
from trainer.runs import run_files
from trainer.settings.chosen_classes import ClassMap

_SCHEMA = {
    "class_names": [str],
    "data": {
        "left_out": [str],
        "fingerprint": str,
        "counts": {split: [Number(0)] for split in ("train", *run_files.SPLITS)},
    },
    "stages": [{"name": str, "answers": {EVERY_KEY: [str]}}],
}
_LONGEST_FOLDER = 200  # bytes: file systems take 255, and its own temporary files have longer names


@dataclasses.dataclass(frozen=True)
class Stage:
    """A classifier of the cascade.

    Attributes:
      name: of the answer whose images come here; of the first stage any other name.
      answers: answer -> classes of the data set that belong to it, also those of later stages.
      flags: of trainer.main, of this stage alone.
    """

    name: str
    answers: Mapping[str, tuple[str, ...]]
    flags: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """The name of its run's folder."""
        return re.sub(r"[^\w.-]+", "_", self.name)


@dataclasses.dataclass(frozen=True)
class Cascade:
    """Stages of a data set.

    Attributes:
      stages: the first one first, and each after the one that its images come from.
      data_classes: all classes of the data set, also those that no stage has.
    """

    stages: tuple[Stage, ...]
    data_classes: tuple[str, ...]

    @property
    def leaves(self) -> dict[str, tuple[str, ...]]:
        """Class of the cascade -> classes of the data set, in the order of the stages."""
        later = {stage.name for stage in self.stages[1:]}
        return {
            answer: classes
            for stage in self.stages
            for answer, classes in stage.answers.items()
            if answer not in later
        }

    def path(self, name: str) -> list[tuple[Stage, str]]:
        """The (stage, answer) that lead to a leaf, or to a stage; none to the first stage."""
        steps: list[tuple[Stage, str]] = []
        while name != self.stages[0].name:
            stage = next(stage for stage in self.stages if name in stage.answers)
            steps.insert(0, (stage, name))
            name = stage.name
        return steps

    def leaves_below(self, name: str) -> list[str]:
        """The leaves of a stage or an answer; a leaf itself."""
        below = [
            leaf for leaf in self.leaves if name in [stage.name for stage, _ in self.path(leaf)]
        ]
        return below or [name]

    @property
    def left_out(self) -> list[str]:
        """Classes of the data set that belong to no leaf."""
        used = [name for names in self.leaves.values() for name in names]
        return [name for name in self.data_classes if name not in used]

    def class_flags(
        self, answers: Mapping[str, tuple[str, ...]]
    ) -> tuple[tuple[str, ...], ClassMap]:
        """`classes` and `map_classes` of a run that decides among answers.

        Args:
          answers: answer -> classes of the data set, of a stage or the leaves.
        """
        used = {name: answer for answer, names in answers.items() for name in names}
        mapped = {name: answer for name, answer in used.items() if name != answer}
        # A class of the data set that is not used here, but is called like an answer.
        mapped |= {n: "" for n in self.data_classes if n in answers and n not in used}
        return tuple(answers), tuple(mapped.items())

    @property
    def flat_flags(self) -> str:
        """The flags of trainer.main for one model over the leaves, as a shell reads them."""
        classes, class_map = self.class_flags(self.leaves)
        words = [f"--classes={','.join(classes)}"]
        if class_map:
            pairs = (f"{old}:{new}" for old, new in class_map)
            words.insert(0, f"--map_classes={','.join(pairs)}")
        return shlex.join(words)


def parse(texts: Sequence[str], data_classes: Sequence[str]) -> Cascade:
    """The cascade of `NAME: ANSWER, ANSWER=CLASS+CLASS --flag=value` texts, in any order.

    Args:
      data_classes: those of the data set.

    Raises:
      UserError: a text has another form, the stages do not make one tree, or a class of the data
        set is unknown or in two answers.
    """
    if not texts:
        raise UserError(
            "--stage is missing: give it once for each stage, as --stage='first: Normal, "
            "Pneumonia' --stage='Pneumonia: COVID, Viral Pneumonia'"
        )
    parsed = [_parse_stage(text) for text in texts]
    children = {name: (answers, flags) for name, answers, flags in parsed}
    given = [answer for _, answers, _ in parsed for answer in answers]
    for names, noun in (([name for name, _, _ in parsed], "stage"), (given, "answer")):
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise UserError(f"--stage: the {noun} {', '.join(sorted(twice))} is there twice")
    first = [name for name in children if name not in given]
    if len(first) != 1:
        raise UserError(
            f"--stage: {', '.join(first) or 'no stage'} would be first: the name of every stage "
            "but the first must be an answer of another one"
        )
    stages: list[Stage] = []
    _collect(first[0], children, stages)
    apart = [name for name in children if name not in [stage.name for stage in stages]]
    if apart:
        raise UserError(f"--stage: no image reaches {', '.join(apart)} from {first[0]}")
    cascade = Cascade(tuple(stages), tuple(data_classes))
    _check_classes(cascade, data_classes)
    return cascade


def _parse_stage(text: str) -> tuple[str, dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Name, answer -> classes of the data set (none: those of a later stage or of the same name),
    and flags."""
    words, *flags = re.split(r"\s+(?=--)", text.strip(), maxsplit=1)
    name, colon, rest = (part.strip() for part in words.partition(":"))
    items = [[part.strip() for part in item.split("=", 1)] for item in rest.split(",")]
    answers = {
        item[0]: tuple(c.strip() for c in item[1].split("+")) if item[1:] else () for item in items
    }
    if not (name and colon) or len(items) < 2 or not all(answers) or len(answers) < len(items):
        raise UserError(
            f"--stage={text!r} must be NAME: and at least two different answers, as 'Pneumonia: "
            "COVID, Other=Viral Pneumonia+Lung_Opacity', and then flags of trainer.main"
        )
    try:
        return name, answers, tuple(map(expand_argument, shlex.split(" ".join(flags))))
    except ValueError as error:
        raise UserError(f"--stage={text!r}: {error}") from error


def _collect(
    name: str, given: Mapping[str, tuple[Mapping[str, tuple[str, ...]], tuple[str, ...]]], to: list
) -> tuple[str, ...]:
    """Adds a stage and those after it to `to`; returns their classes of the data set."""
    answers, flags = given[name]
    place = len(to)
    to.append(None)
    sources = {}
    for answer, classes in answers.items():
        if answer in given:
            if classes:
                raise UserError(
                    f"--stage: {answer}= gives classes to an answer whose images go to the stage "
                    f"{answer}: leave them out, that stage names them"
                )
            sources[answer] = _collect(answer, given, to)
        else:
            sources[answer] = classes or (answer,)
    to[place] = Stage(name, sources, flags)
    return tuple(name for classes in sources.values() for name in classes)


def _check_classes(cascade: Cascade, data_classes: Sequence[str]) -> None:
    used = [name for names in cascade.leaves.values() for name in names]
    remedy = "correct the name, or name the classes of an answer, as ANSWER=CLASS+CLASS"
    check_known(used, data_classes, "stage", remedy)
    twice = {name for name in used if used.count(name) > 1}
    if twice:
        raise UserError(f"--stage: the class {', '.join(sorted(twice))} is in two answers")
    _check_folders(cascade.stages)


def _check_folders(stages: Sequence[Stage]) -> None:
    folders = [stage.folder for stage in stages]
    if len(set(folders)) < len(folders):
        raise UserError(f"--stage: the names of two stages give one folder ({', '.join(folders)})")
    for stage in stages:
        # `..` would be the folder above; files of the cascade are beside those of its stages.
        if stage.folder.startswith(".") or stage.folder in run_files.OF_CASCADE:
            raise UserError(
                f"--stage: the stage {stage.name!r} cannot have a folder of this name: give it "
                "another name"
            )
        if len(os.fsencode(stage.folder)) > _LONGEST_FOLDER:
            raise UserError(
                f"--stage: the name of the stage {stage.name[:40]!r}… is longer than "
                f"{_LONGEST_FOLDER} bytes: shorten it"
            )


def is_cascade(path: str) -> bool:
    """Whether a folder is that of a finished cascade."""
    return os.path.exists(os.path.join(path, run_files.CASCADE))


def read_content(folder: str) -> dict[str, Any]:
    """The content of cascade.json; `data.counts` has one number for each of `class_names`.

    Raises:
      UserError: it is missing, damaged, or was changed since trainer.cascade wrote it.
    """
    path = os.path.join(folder, run_files.CASCADE)
    remedy = f"is {folder} the folder of a finished cascade?"
    content = read_sealed(path, remedy, "trainer.cascade")
    problem = find_problem(content, _SCHEMA)
    if not problem and {len(content["class_names"])} != set(
        map(len, content["data"]["counts"].values())
    ):
        problem = "it has other counts than classes"
    if problem:
        raise _not_one(path, problem)
    return content


def _not_one(path: str, problem: str) -> UserError:
    return UserError(f"{path} is not the file of a cascade ({problem}): run trainer.cascade again")


def read(folder: str) -> tuple[Cascade, tuple[str, ...]]:
    """The cascade of a folder, and its leaves in the order of its predictions.

    Raises:
      UserError: see `read_content`, or its classes are not the answers of its stages.
    """
    return interpret(read_content(folder), folder)


def interpret(content: dict[str, Any], folder: str) -> tuple[Cascade, tuple[str, ...]]:
    """As `read`, of what `read_content` has read from the folder."""
    stages = tuple(
        Stage(one["name"], {answer: tuple(names) for answer, names in one["answers"].items()})
        for one in content["stages"]
    )
    used = [name for stage in stages[:1] for classes in stage.answers.values() for name in classes]
    cascade = Cascade(stages, (*used, *content["data"]["left_out"]))
    names = tuple(content["class_names"])
    if not stages or set(names) != set(cascade.leaves):
        path = os.path.join(folder, run_files.CASCADE)
        raise _not_one(path, "its classes are not the answers of its stages")
    return cascade, names
