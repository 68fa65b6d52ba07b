"""Methods put on the tiny decoder by hand: what they add, and the losses with it."""

import jax
import numpy as np

from scaling_jax.training.mesh import Layout
from scaling_jax.training.optimizers import Optimizer
from scaling_jax.training.program import Program
from tests.models import tiny

CONFIG = tiny.CONFIG


def program(method, config=CONFIG):
    return Program(config, method, Optimizer(), Layout())


def added(method, base, seed=0, config=CONFIG):
    """What is trained, at step 0."""
    return program(method, config).start(base, seed)[0].tuned


def losses(method, tuned, base, config=CONFIG):
    """[rows, length] of the tiny tokens."""
    apply = jax.jit(program(method, config).module.apply)
    return np.asarray(apply(method.variables(tuned, base), *tiny.tokens()))


def leaves(tree):
    """Arrays by path."""
    return {
        "/".join(str(key.key) for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def moved(tree):
    """The tree after something like training."""
    generator = np.random.default_rng(3)
    return jax.tree.map(lambda leaf: leaf + 0.1 * generator.normal(size=leaf.shape).astype(np.float32), tree)
