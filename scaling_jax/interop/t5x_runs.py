"""What T5X's `train.py` has trained of our models (`t5x_tuning.py`), as checkpoints of ours; without T5X.

In T5X's checkpoints `target` is what a method trained and `flax_mutables.base` the frozen base. Which
method and which model that was stands in gin files that T5X alone can parse: both are given again, and
every array's name and shape is compared with theirs, and the frozen base with the checkpoint that is
named, to the last bit.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from scaling_jax.errors import InputError
from scaling_jax.interop.conversion import (
    ONE_AXIS,
    Converted,
    check_free,
    recorded_vocabulary,
    save_tuned,
)
from scaling_jax.interop.reading import by_path, differences
from scaling_jax.interop.t5x_arrays import Arrays, is_checkpoint, open_arrays
from scaling_jax.models import counts
from scaling_jax.models.families import named_model
from scaling_jax.training import bases, checkpoints
from scaling_jax.training.mesh import Layout
from scaling_jax.training.optimizers import Optimizer
from scaling_jax.training.program import Program
from scaling_jax.tuning.full import Full
from scaling_jax.tuning.method import named_method, registered_name

BASE = "flax_mutables.base"
TABLE = "embedding.table"


def to_tuned(source: Any, out: Any, base: Any, name: str, layout: Layout = ONE_AXIS) -> Converted:
    """Makes a tuned checkpoint, as `finetune` writes them, of a run of T5X's from a checkpoint of ours.

    Args:
        source: `checkpoint_STEP` in T5X's MODEL_DIR, of this machine or of a bucket.
        out: folder that does not exist yet, or is empty.
        base: what the run started from (`checkpoint` of its model).
        name: of the method, whose settings gin has as the run had them.
        layout: where the arrays go.

    Raises:
        InputError: no such checkpoint, method or base; arrays that are missing, extra or misshapen for
            them, all named; a frozen base with other values.
    """
    check_free(out)
    step, trained = _opened(source)
    method = named_method(name)
    model, frozen, base_about = bases.load_base(base, layout)
    program = Program(model, method, Optimizer(), layout)
    what = f"method {name!r} on {base}"
    tuned = _read(source, what, trained, program.abstract_tuned())
    if not method.trains_base:
        _check_same(source, base, open_arrays(source, BASE), by_path(frozen))
    save_tuned(out, tuned, registered_name(name), method, base, base_about, step)
    given = ", ".join(f"{key} = {value!r}" for key, value in dataclasses.asdict(method).items())
    remark = f"{name} with {given}: of what no shape shows (such as a scale), as T5X's config.gin has it?"
    found = program.trained_parameters(), base_about.get("vocabulary_sha256")
    return Converted(out, model.name, *found, remark if given else "")


def to_pretrained(
    source: Any, out: Any, size: str, layout: Layout = ONE_AXIS, vocabulary: Path | None = None
) -> Converted:
    """Makes a pretrained checkpoint of a run of T5X's that trained all of a model from random parameters.

    Args:
        source, out, layout: see `to_tuned`.
        size: name of the model in gin, as the run had it (`size` of its model).
        vocabulary: token store or tokenizer's file that its tokens belong to.

    Raises:
        InputError: no such checkpoint or model; missing, extra or misshapen arrays, all named.
    """
    check_free(out)
    step, trained = _opened(source)
    if open_arrays(source, BASE).names:
        raise InputError(f"{source} has a frozen base ({BASE}): name it with --base, and --method")
    table = trained.tensors.get(TABLE)
    # The vocabulary's size is the data's, where the model's own bindings have none.
    tokens = table.shape[0] if table is not None and table.shape else 1
    model = named_model(size, tokens)
    program = Program(model, Full(), Optimizer(), layout)
    params = _read(source, f"model {size!r}", trained, program.abstract_tuned())
    about = {
        "kind": "pretrained",
        "model": dataclasses.asdict(model),
        "vocabulary_sha256": recorded_vocabulary(source, vocabulary, model.vocabulary_size),
        "store": None,
        "seed": None,
        "step": step,
        "pretrain_tokens": None,
        "start_id": None,
        "hash": checkpoints.tree_hash(params),
    }
    checkpoints.save(out, params, about)
    return Converted(out, model.name, counts.model_parameters(model), about["vocabulary_sha256"])


def _opened(source: Any) -> tuple[int, Arrays]:
    """(step, what was trained) of a checkpoint."""
    if not is_checkpoint(source):
        raise InputError(f"{source} is no T5X checkpoint: name a checkpoint_STEP of its MODEL_DIR")
    step = re.search(r"checkpoint_(\d+)$", source.name)
    return int(step[1]) if step else 0, open_arrays(source)


def _read(source: Any, what: str, arrays: Arrays, abstract: Any) -> Any:
    """The arrays as a tree like that of (sharded) abstract arrays."""
    wanted = by_path(abstract)
    _check_names(source, what, arrays, wanted)
    tree: dict[str, Any] = {}
    for name, leaf in wanted.items():
        values = arrays.tensors[_theirs(name)].read().astype(leaf.dtype)
        *above, last = name.split("/")
        place = functools.reduce(lambda part, key: part.setdefault(key, {}), above, tree)
        place[last] = jax.make_array_from_callback(leaf.shape, leaf.sharding, values.__getitem__)
    return tree


def _check_same(source: Any, base: Any, arrays: Arrays, params: Mapping[str, jax.Array]) -> None:
    """
    Raises:
        InputError: the frozen base is not that of the checkpoint that was named.
    """
    _check_names(source, f"the base {base} ({BASE})", arrays, params)
    other = []
    for name, ours in params.items():
        values = arrays.tensors[_theirs(name)].read()
        # T5X may have written it in a smaller type (`save_dtype`).
        shards = [np.asarray(shard.data).astype(values.dtype) for shard in ours.addressable_shards]
        parts = [values[shard.index] for shard in ours.addressable_shards]
        if not all(map(np.array_equal, shards, parts)):
            other.append(_theirs(name))
    if other:
        raise InputError(
            f"{source} was not tuned from {base}: its frozen base has other values ({', '.join(other)})"
        )


def _check_names(source: Any, what: str, arrays: Arrays, wanted: Mapping[str, Any]) -> None:
    need = {_theirs(name): tuple(leaf.shape) for name, leaf in wanted.items()}
    have = {name: tuple(tensor.shape) for name, tensor in arrays.tensors.items()}
    if named := differences(need, have, arrays.absent, arrays.unreadable):
        raise InputError(f"{source} does not hold what {what} has: {named}")


def _theirs(name: str) -> str:
    return name.replace("/", ".")
