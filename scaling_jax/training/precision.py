"""In what precision a frozen base is kept."""

from typing import Any

import jax
import jax.numpy as jnp

from scaling_jax.errors import InputError


def stored_as(tree: Any, dtype: str) -> Any:
    """The (abstract) parameters with their matrices in `dtype`; norm scales, biases and distance tables stay.

    Raises:
        InputError: a dtype that is neither float32 nor bfloat16.
    """
    if dtype not in ("float32", "bfloat16"):
        raise InputError(f"base_dtype = {dtype!r}: 'float32' or 'bfloat16'")

    def stored(path: Any, leaf: Any) -> Any:
        names = [str(key.key) for key in path]
        if names[-1] != "kernel" and names[-2:] not in (["embedding", "table"], ["output", "table"]):
            return leaf
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(dtype))
        return leaf.astype(dtype)

    return jax.tree_util.tree_map_with_path(stored, tree)
