"""Which code computes attention: XLA everywhere, cuDNN's flash attention on GPU, Pallas splash on TPU.

All give the same up to rounding; `ModelConfig.attention` names one, or "auto" for that of the devices
that a program is compiled for (`placement`). What a kernel is not made for, XLA computes:

- a bias added to the scores (T5's self-attention, whose distances are learnt): both kernels;
- fewer than `LEAST_LENGTH` keys: a kernel's blocks would be mostly padding;
- a batch or heads that the devices do not divide.

Rows are padded on the right. Causal attention never reads that padding, elsewhere a mask says where a
row ends. (A prefix LM needs nothing of its own: its decoder is causal over inputs and targets alike.)
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec

from scaling_jax.errors import InputError
from scaling_jax.models import placement

# What a kernel gives is called so, that the backward pass may keep it; with it splash's sums of weights.
ATTENDED = "attended"
# Keys below which XLA's own products are taken: two blocks of a TPU's 128 lanes.
LEAST_LENGTH = 256
LANES = 128
# The largest block of a sequence that a kernel works on at a time.
BLOCK = 512


class Inputs(NamedTuple):
    """What is attended.

    Attributes:
        query: [batch, length, heads, head_dim].
        key, value: [batch, memory length, key-value heads, head_dim].
        scale: what scores are multiplied by.
        causal: whether a position reads those up to its own alone.
        mask: which keys are read, bool [batch, memory length], false on the right of a row alone; None is
            all.
        bias: added to the scores, [1, heads, length, memory length], or None.
    """

    query: jax.Array
    key: jax.Array
    value: jax.Array
    scale: float
    causal: bool
    mask: jax.Array | None = None
    bias: jax.Array | None = None


class Kernel(NamedTuple):
    """A way to compute attention.

    Attributes:
        platform: what it runs on; "" is anything.
        attend: [batch, length, heads, head_dim] of `Inputs` without a bias.
        unfit: why it cannot take arrays of these dtypes and head sizes; "" if it can.
    """

    platform: str
    attend: Callable[[Inputs], jax.Array]
    unfit: Callable[[Inputs], str]


def attend(name: str, inputs: Inputs) -> jax.Array:
    """What every query reads, [batch, length, heads, head_dim].

    Args:
        name: one of `NAMES`.
        inputs: what is attended.

    Raises:
        InputError: a kernel is named that these devices or this dtype cannot run.
    """
    kernel = chosen(name, inputs)
    return kernel.attend(inputs) if kernel is KERNELS["xla"] else _on_every_device(kernel, inputs)


def chosen(name: str, inputs: Inputs) -> Kernel:
    """The kernel that `attend` takes.

    Raises:
        InputError: see `attend`.
    """
    platform = placement.platform()
    if name == "auto":
        name = AUTOMATIC.get(platform, "xla")
        unfit = bool(KERNELS[name].unfit(inputs))
    else:
        unfit = False
    if unfit or _left_to_xla(inputs):
        return KERNELS["xla"]
    kernel = KERNELS[name]
    if kernel.platform not in ("", platform):
        raise InputError(f"attention = {name!r} runs on {kernel.platform}, this is {platform}: choose 'auto'")
    if reason := kernel.unfit(inputs):
        raise InputError(f"attention = {name!r}: {reason}; choose 'auto'")
    return kernel


def _left_to_xla(inputs: Inputs) -> bool:
    batch, _, heads, _ = inputs.query.shape
    return (
        inputs.bias is not None
        or inputs.key.shape[1] < LEAST_LENGTH
        or batch % placement.parts("batch") != 0
        or heads % placement.parts("heads") != 0
    )


def xla(inputs: Inputs) -> jax.Array:
    """Plain products over all pairs, softmax in float32."""
    mask = inputs.mask
    attended = jax.nn.dot_product_attention(
        inputs.query,
        inputs.key,
        inputs.value,
        bias=inputs.bias,
        mask=None if mask is None else mask[:, None, None, :],
        scale=inputs.scale,
        is_causal=inputs.causal,
    )
    return checkpoint_name(attended, ATTENDED)


def by_lengths(inputs: Inputs, implementation: str) -> jax.Array:
    """The mask as row lengths, as cuDNN takes it; a row without a key reads its first one, to no effect."""
    lengths = None
    if inputs.mask is not None:
        lengths = jnp.maximum(jnp.sum(inputs.mask, axis=-1, dtype=jnp.int32), 1)
    attended = jax.nn.dot_product_attention(
        inputs.query,
        inputs.key,
        inputs.value,
        scale=inputs.scale,
        is_causal=inputs.causal,
        key_value_seq_lengths=lengths,
        implementation=implementation,
    )
    return checkpoint_name(attended, ATTENDED)


def splash(inputs: Inputs, interpret: bool = False) -> jax.Array:
    """Splash attention (JAX's Pallas TPU kernels): the blocks above the diagonal are skipped.

    Queries and keys are filled up to whole blocks. The mask becomes segment ids: every query is of
    segment 1, and so are the keys that are read.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    length = inputs.query.shape[1]
    query, key, value = (
        _filled(array, 1).swapaxes(1, 2) for array in (inputs.query * inputs.scale, inputs.key, inputs.value)
    )
    heads, rows, columns = query.shape[1], query.shape[2], key.shape[2]
    seen = (masks.CausalMask if inputs.causal else masks.FullMask)((rows, columns))
    q, kv = _block(rows), _block(columns)
    with jax.ensure_compile_time_eval():
        kernel = kernels.make_splash_mha_single_device(
            mask=masks.MultiHeadMask([seen] * heads),
            block_sizes=kernels.BlockSizes(
                block_q=q,
                block_kv=kv,
                block_q_dkv=q,
                block_kv_dkv=kv,
                block_q_dq=q,
                block_kv_dq=kv,
            ),
            residual_checkpoint_name=ATTENDED,
            interpret=interpret,
        )
    segments = None
    if not inputs.causal:
        read = inputs.mask
        if read is None:
            read = jnp.ones(inputs.key.shape[:2], bool)
        read = _filled(read.at[:, 0].set(True), 1).astype(jnp.int32)
        segments = kernels.SegmentIds(q=jnp.ones((read.shape[0], rows), jnp.int32), kv=read)
    attended = jax.vmap(kernel)(query, key, value, segments)
    return attended.swapaxes(1, 2)[:, :length].astype(inputs.query.dtype)


def _filled(array: jax.Array, axis: int) -> jax.Array:
    """With zeros up to whole lanes."""
    missing = -array.shape[axis] % LANES
    return jnp.pad(array, [(0, missing if at == axis else 0) for at in range(array.ndim)])


def _block(length: int) -> int:
    """The largest block of whole lanes that divides a length."""
    return max(size for size in range(LANES, BLOCK + 1, LANES) if length % size == 0)


def _on_every_device(kernel: Kernel, inputs: Inputs) -> jax.Array:
    """Each device attends with its rows and heads: compilers cannot split a kernel themselves."""
    if placement.devices() == 1:
        return kernel.attend(inputs)
    over = placement.parts("heads")
    heads, shared = inputs.query.shape[2], inputs.key.shape[2]
    if shared % over and shared > 1:  # query heads of one group on several devices
        repeats = heads // shared
        key, value = (jnp.repeat(array, repeats, axis=2) for array in (inputs.key, inputs.value))
        inputs = inputs._replace(key=key, value=value)
    by_head = placement.split("batch", None, "heads", None)
    by_row = placement.split("batch", None)
    shared_spec = by_head if inputs.key.shape[2] > 1 else PartitionSpec(*by_row, None, None)
    arrays = [inputs.query, inputs.key, inputs.value]
    specs = [by_head, shared_spec, shared_spec]
    if inputs.mask is not None:
        arrays.append(inputs.mask)
        specs.append(by_row)

    def of_device(query, key, value, mask=None):
        return kernel.attend(inputs._replace(query=query, key=key, value=value, mask=mask))

    # Pallas calls say nothing of which mesh axes their results vary over, which is what the check is of.
    split = jax.shard_map(of_device, in_specs=tuple(specs), out_specs=by_head, check_vma=False)
    return split(*arrays)


def _cudnn_unfit(inputs: Inputs) -> str:
    """https://docs.nvidia.com/deeplearning/cudnn: flash attention is for half precision."""
    head_dim = inputs.query.shape[-1]
    if inputs.query.dtype not in (jnp.bfloat16, jnp.float16):
        return f"cuDNN's flash attention takes bfloat16, not {inputs.query.dtype}"
    if head_dim % 8 or head_dim > 256:
        return f"cuDNN's flash attention takes a head_dim that is a multiple of 8 up to 256, not {head_dim}"
    return ""


def _anything_fits(inputs: Inputs) -> str:
    return ""


KERNELS = {
    "xla": Kernel("", xla, _anything_fits),
    "cudnn": Kernel("gpu", functools.partial(by_lengths, implementation="cudnn"), _cudnn_unfit),
    "splash": Kernel("tpu", splash, _anything_fits),
    # On any device, slowly: to compare the kernel's numbers where there is no TPU.
    "splash_interpreted": Kernel("", functools.partial(splash, interpret=True), _anything_fits),
}
AUTOMATIC = {"gpu": "cudnn", "tpu": "splash"}
NAMES = ("auto", *KERNELS)
