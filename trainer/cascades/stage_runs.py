"""The runs of a cascade's stages: their settings. Nothing here needs TensorFlow or SciPy."""

from __future__ import annotations

import os
from collections.abc import Sequence

from cxr_tfrecords.dataset_dir import DatasetDir
from cxr_tfrecords.errors import UserError
from cxr_tfrecords.settings import flag_values
from trainer.cascades.description import Cascade
from trainer.comparison.study_cells import parse_main_flags
from trainer.runs.finished_run import FinishedRun
from trainer.settings.chosen_classes import choose_classes
from trainer.settings.config import TrainConfig

# The cascade sets these, or all stages must share them: a process keeps to one strategy, and
# the split must be the same.
_OF_ALL = ("data_dir", "fold", "strategy", "tpu", "virtual_devices", "image_size")
_SET = ("run_dir", "classes", "map_classes")


def stage_configs(
    cascade: Cascade, cascade_dir: str, common: Sequence[str]
) -> dict[str, TrainConfig]:
    """Stage -> settings of its run in `cascade_dir`/STAGE.

    Args:
      common: flags of trainer.main for all stages.

    Raises:
      UserError: trainer.main would refuse a flag, or the cascade sets it.
    """
    configs = {}
    for stage in cascade.stages:
        for given, refused in ((common, _SET), (stage.flags, (*_SET, *_OF_ALL))):
            values = parse_main_flags(given)
            wrong = [f"--{name}" for name in refused if values[name].present]
            if wrong:
                place = "all stages have the same: give it outside of --stage"
                if wrong[0][2:] in _SET:
                    place = "the cascade sets it: leave it out"
                raise UserError(f"{wrong[0]}: {place}")
        values = parse_main_flags([*common, *stage.flags])
        classes, class_map = cascade.class_flags(stage.answers)
        settings = flag_values(TrainConfig, values=values)
        settings |= {
            "run_dir": os.path.join(cascade_dir, stage.folder),
            "classes": classes,
            "map_classes": class_map,
        }
        configs[stage.name] = TrainConfig(**settings)
    if configs[cascade.stages[0].name].strategy == "multi_worker":
        raise UserError(
            "--strategy=multi_worker trains one run in many processes: train each stage with "
            "trainer.main into its folder first; then this command only evaluates"
        )
    return configs


def leaf_data(cascade: Cascade, data: DatasetDir) -> DatasetDir:
    """The data set with the leaves as its classes, those of a flat model."""
    return choose_classes(data, *cascade.class_flags(cascade.leaves))


def check_flat(flat: FinishedRun, cascade: Cascade, data: DatasetDir) -> None:
    """Refuses a run that does not decide among the leaves on the same split.

    Raises:
      UserError: with the flags that train such a run.
    """
    if flat.dataset["fingerprint"] != data.fingerprint or flat.config.fold != data.fold:
        fold = "" if data.fold is None else f" --fold={data.fold}"
        raise UserError(
            f"--flat_run={flat.path} does not decide among {', '.join(data.class_names)} on this "
            f"data set and split: train it with --data_dir={data.path}{fold} {cascade.flat_flags}"
        )
