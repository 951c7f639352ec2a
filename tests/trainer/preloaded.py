"""What the server of `processes` imports before its first command: it starts no thread of ours."""

from cxr_tfrecords.quiet import quiet_tensorflow

quiet_tensorflow()

import trainer.training.run  # noqa: E402, F401
