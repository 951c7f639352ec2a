"""The command line's other half: the flags that go to Apache Beam."""

from __future__ import annotations

import argparse
import difflib
import logging
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from cxr_tfrecords.errors import UserError

LOCAL_RUNNERS = (
    "DirectRunner",
    "SwitchingDirectRunner",
    "BundleBasedDirectRunner",
    "FnApiRunner",
)
# Beam has short names for all of its runners but this one.
_SHORT_NAMES = {"DaskRunner": "apache_beam.runners.dask.dask_runner.DaskRunner"}


def runs_locally(options: PipelineOptions) -> bool:
    """Whether the pipeline runs by the direct runner, in processes of this machine."""
    name = options.view_as(StandardOptions).runner
    return name is None or name.rsplit(".", 1)[-1] in LOCAL_RUNNERS


def parse(arguments: Sequence[str], own_flags: Collection[str]) -> PipelineOptions:
    """Makes Beam's options of the arguments that are not ours.

    Raises:
      UserError: Beam does not know one either, and the runner is the local one, which has no
        options of its own: a typing mistake that Beam would drop with a warning.
    """
    options = PipelineOptions(list(arguments))
    standard = options.view_as(StandardOptions)
    standard.runner = _SHORT_NAMES.get(standard.runner, standard.runner)
    parser: Any = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for kind in _subclasses(PipelineOptions):
        kind._add_argparse_args(parser)
    unknown = parser.parse_known_args(list(arguments))[1]
    if unknown and runs_locally(options):
        known = [flag.lstrip("-") for flag in parser._option_string_actions] + list(own_flags)
        name = unknown[0].lstrip("-").split("=")[0]
        near = difflib.get_close_matches(name, known, 1)
        hint = f", did you mean --{near[0]}?" if near else "; --help lists them"
        raise UserError(f"unknown flag or argument {unknown[0]!r}{hint}")
    if runs_locally(options):
        # A failure shows once, as one line, not also as the worker's log of its stack trace.
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    return options


def _subclasses(kind: type[PipelineOptions]) -> Iterator[type[PipelineOptions]]:
    seen = set()
    stack = [kind]
    while stack:
        for child in stack.pop().__subclasses__():
            if child not in seen and "_add_argparse_args" in vars(child):
                seen.add(child)
                yield child
            stack.append(child)
