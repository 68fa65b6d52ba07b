"""What published studies would advise before anything was measured. A prior, and named as one.

Zhang et al. (ICLR 2024), section 5: translation and summarization with decoders of 1B to 16B. Pu et al.
(2023): FLAN-T5-XL on classification and generation, at about 100, 1,000 and 10,000 examples. Critical sizes
of one task do not transfer to another (Zhang et al.), so that this is where to begin, not an answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from scaling_jax.decisions.limits import Limits
from scaling_jax.errors import InputError, did_you_mean

TASKS = ("classification", "generation")
ZHANG = "Zhang et al. (ICLR 2024), section 5"
PU = "Pu et al. (2023)"
# Bounds in examples. "A few thousand" and "million scale" are Zhang et al.'s words; the numbers are ours.
_FEW, _MILLION, _HIGH = 5_000, 1_000_000, 10_000
# Weights and their gradients in float32 are the least that full tuning must hold.
_FULL_BYTES = 8


@dataclass(frozen=True)
class Prior:
    """Advice from the literature.

    Attributes:
        methods: to try first, best first.
        statements: what the papers found that applies, each with its source.
        excluded: method -> why the limits leave it out.
    """

    methods: tuple[str, ...]
    statements: tuple[str, ...]
    excluded: Mapping[str, str]


def prior_advice(
    examples: float, task: str | None = None, limits: Limits | None = None, model_params: float | None = None
) -> Prior:
    """The advice for so many examples.

    Args:
        examples: to finetune on.
        task: "classification" or "generation"; None where it is neither or not known.
        limits: of the user; memory matters here.
        model_params: of the model, where it is known.

    Raises:
        InputError: an unknown task; examples that are no number above zero.
    """
    if task is not None and task not in TASKS:
        raise InputError(f"--task {task!r}{did_you_mean(task, TASKS)}")
    if not 0 < examples < float("inf"):
        raise InputError(f"--examples {examples:g}: a number of examples is above zero")
    limits = limits or Limits()
    if examples < _FEW:
        methods = ["lora", "prompt"] if task != "classification" else ["lora"]
        told = [f"{ZHANG}: with a few thousand examples tune few parameters (prompt tuning or LoRA)"]
    elif examples < _MILLION:
        methods = ["lora", "full"]
        told = [f"{ZHANG}: with somewhat more than a few thousand examples LoRA, at a million full tuning"]
    else:
        methods = ["full", "lora"]
        told = [f"{ZHANG}: with millions of examples full tuning"]
    if examples < _HIGH:
        methods += ["bitfit", "ia3"]
        told.append(f"{PU}: with little data LoRA and BitFit do well and full tuning falls behind")
    else:
        methods += ["bitfit", "ia3"] if "full" in methods else ["full"]
        told.append(f"{PU}: from about 10,000 examples full tuning was the best")
    if task == "classification":
        told.append(f"{PU}: prompt tuning falls behind the other methods, most clearly on classification")
    if limits.memory_gib is not None:
        told.append(f"{PU}: (IA)3 needs the least memory")
    excluded = {}
    if limits.memory_gib is not None and model_params is not None:
        least = _FULL_BYTES * model_params / 2**30
        if least > limits.memory_gib:
            excluded["full"] = (
                f"weights and gradients of {model_params:.3g} parameters alone are {least:.3g} GiB in "
                f"float32, the limit is {limits.memory_gib:.3g}"
            )
    kept = tuple(method for method in dict.fromkeys(methods) if method not in excluded)
    return Prior(kept, tuple(told), excluded)
