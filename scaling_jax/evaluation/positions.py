"""Which answers took a model beyond the positions that it was made for.

A LLaMA writes on there, but nothing that it was trained for: such answers are kept, counted, and said.
"""

import numpy as np

from scaling_jax.evaluation.decoding import Generated
from scaling_jax.training.program import Program


def are_beyond(program: Program, longest: int | None, prompt: np.ndarray, made: Generated) -> bool:
    """Whether a prompt and what was written after it are longer than a model's positions.

    Args:
        program: the model, whose method may put a prefix before every prompt.
        longest: positions that it was made for; None is no limit.
        prompt: token ids [tokens].
        made: what it wrote; where that was cut, its last token was not read again.
    """
    if longest is None:
        return False
    before = 1 + program.method.prefix(program.model)[1] + len(prompt)
    return before + len(made.tokens) - (not made.finished) > longest


def said(count: int, total: int, longest: int) -> str:
    """The note of so many answers of so many."""
    return (
        f"{count:,} of {total:,} answers took prompt and text beyond the {longest:,} positions that the "
        "model was made for"
    )
