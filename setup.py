"""Packaging of scaling_jax: what it needs, and what each extra adds."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

# Lower bounds are the oldest versions, upper bounds the newest minor versions, that the tests ran
# on. The exact versions behind a study are its own record; `constraints.txt` pins those we ship on.
CORE = [
    "jax>=0.8.2,<0.11",
    "flax>=0.12.0,<0.13",
    "optax>=0.2.5,<0.3",
    "orbax-checkpoint>=0.11.25,<0.13",
    "tensorstore>=0.1.86,<0.2",
    # Paths of buckets; orbax-checkpoint brings it too.
    "etils[epath]>=1.15,<2",
    "jaxopt>=0.8.5,<0.9",
    "gin-config>=0.5.0,<0.6",
    "grain>=0.2.12,<0.3",
    "numpy>=2.1,<2.5",
    "scipy>=1.14.1,<1.18",
    "tensorboardX>=2.6.2.2,<3",
    "jinja2>=3.1.4,<4",
    "markupsafe>=2.1.5,<4",
    "matplotlib>=3.9.2,<4",
    "rich>=13.7,<16",
]

EXTRAS = {
    # Text to token store. tensorflow-text brings tensorflow; naming tensorflow-cpu beside it would
    # install both. sentencepiece 0.2.3 is built for a protobuf that Beam does not allow.
    "tasks": [
        "seqio>=0.0.20,<0.1",
        "sentencepiece>=0.2.1,<0.2.3",
        "tensorflow-text>=2.20,<2.22",
        "tensorflow-datasets>=4.9.10,<5",
        # tensorflow-datasets imports it and asks for it on Python 3.8 alone.
        "importlib_resources>=6.5.2,<7",
    ],
    # Text to tokens and back without TensorFlow: what `infer` and scores need beside the core.
    "text": ["sentencepiece>=0.2.1,<0.2.3", "tokenizers>=0.22,<1"],
    # Scores of generated text, and a judge behind any endpoint that speaks OpenAI's protocol.
    "scores": ["sacrebleu>=2.6,<3", "rouge-score>=0.1.2,<0.2"],
    "judge": ["openai>=3.52,<4"],
    # Preparing data sets too large for one machine.
    "beam": ["apache-beam>=2.70,<3"],
    "gpu": ["jax[cuda12]>=0.8.2,<0.11"],
    "tpu": ["jax[tpu]>=0.8.2,<0.11"],
    # TPU's compiler without a TPU: each version of JAX names the libtpu that it goes with.
    "plan": ["jax[tpu]>=0.8.2,<0.11"],
    # Side-by-side comparison with the PyTorch libraries.
    "parity": ["torch>=2.9,<3", "transformers>=5,<6", "peft>=0.18,<1"],
    # The report in a real browser: widths, colours, keys and paper.
    "browser": ["playwright>=1.50,<2"],
    "test": ["pytest>=8.3,<10", "pytest-xdist>=3.6,<4", "hypothesis>=6.115,<7", "setuptools>=77"],
}


def version() -> str:
    """The version, read from the package without importing it."""
    text = (ROOT / "scaling_jax" / "__init__.py").read_text("utf-8")
    return re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE).group(1)


setup(
    name="scaling-jax",
    version=version(),
    description="Finetuning scaling laws of large language models: from text to runs, law and report",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    # The gin files stay where people look for them, at the top of the checkout, and ship in the
    # wheel as scaling_jax/gin_configs.
    packages=[*find_packages(include=["scaling_jax", "scaling_jax.*"]), "scaling_jax.gin_configs"],
    package_dir={"scaling_jax": "scaling_jax", "scaling_jax.gin_configs": "gin_configs"},
    package_data={
        "scaling_jax": ["**/*.j2", "**/*.json", "**/*.html", "**/*.css", "**/*.js", "**/*.svg"],
        "scaling_jax.gin_configs": ["*.gin", "**/*.gin"],
    },
    entry_points={"console_scripts": ["scaling-jax = scaling_jax.cli.main:main"]},
    install_requires=CORE,
    extras_require=EXTRAS,
)
