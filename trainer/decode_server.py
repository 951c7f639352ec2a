"""Decodes training images for trainers on other machines; see `trainer.input.decode_service`.

  python -m trainer.decode_server --port=5050

Runs until it is stopped, for any number of trainings, one after the other or at the same time. It
needs the data set under the same path as the trainer. It has no access control: keep it inside a
private network.
"""

from __future__ import annotations

import socket

from absl import flags

from cxr_tfrecords.errors import run_main

FLAGS = flags.FLAGS
flags.DEFINE_integer("port", 5050, "Port to listen on; the next one is used too.", lower_bound=1)
flags.DEFINE_string(
    "host", "", "Name under which trainers reach this machine. Empty: its host name."
)


def main(argv: list[str]) -> None:
    del argv
    from cxr_tfrecords.console.quiet import quiet_tensorflow

    quiet_tensorflow()
    from trainer.input import decode_service

    server = decode_service.start_server(FLAGS.host or socket.gethostname(), FLAGS.port)
    print(f"decodes for trainers with --data_service={server.address}; Ctrl-C stops it", flush=True)
    try:
        server.dispatcher.join()
    except KeyboardInterrupt:
        print("stopped", flush=True)


if __name__ == "__main__":
    run_main(main)
