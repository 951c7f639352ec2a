"""What the server of `processes` imports before its first command: it starts no thread of ours."""

import contextlib
import logging

from cxr_tfrecords.console.quiet import quiet_tensorflow

quiet_tensorflow()
# Beam logs which of its optional parts are absent; the first message of all would set up logging.
_unheard = logging.NullHandler()
logging.getLogger().addHandler(_unheard)

import matplotlib.figure  # noqa: E402, F401
import sklearn.tree  # noqa: E402, F401
import tensorflow_datasets  # noqa: E402, F401

import beam_pipelines.append  # noqa: E402
import beam_pipelines.summary  # noqa: E402, F401
import trainer.comparison.page.page  # noqa: E402
import trainer.training.run  # noqa: E402, F401

with contextlib.suppress(ImportError):  # the extra `aws`
    import s3fs  # noqa: F401

logging.getLogger().removeHandler(_unheard)
