"""Importing this registers everything that a study's gin file may bind; TensorFlow is not among it."""

from scaling_jax.evaluation import evaluations, score  # noqa: F401
from scaling_jax.models import families  # noqa: F401
from scaling_jax.studies import grid, listed, plan  # noqa: F401
from scaling_jax.tasks import prepare, registry  # noqa: F401
from scaling_jax.training import finetune, pretrain  # noqa: F401
from scaling_jax.tuning import method

registry.load_all()
method.method_names()
score.known_scores()
