"""Fixtures: an S3 server in the test process.

It speaks S3's own protocol over HTTP, so everything from s3fs down is real.
"""

import contextlib
import logging

import pytest


@pytest.fixture(scope="module")
def s3_server():
    """Its address."""
    pytest.importorskip("s3fs", reason="needs the extra `aws`")
    moto = pytest.importorskip("moto.server", reason="needs moto[server]")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # one line a request
    started = moto.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    started.start()
    yield "http://{}:{}".format(*started.get_host_and_port())
    started.stop()


@pytest.fixture
def s3(s3_server, monkeypatch):
    """An empty bucket, `s3://bucket`, as whoever has keys in the environment sees it."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()  # an earlier one has another endpoint
    fs = s3fs.S3FileSystem(use_listings_cache=False)
    with contextlib.suppress(FileNotFoundError):
        fs.rm("bucket", recursive=True)
    fs.mkdir("bucket")
    yield fs
    s3fs.S3FileSystem.clear_instance_cache()
