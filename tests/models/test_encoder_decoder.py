"""The encoder-decoder against plain NumPy, and what masks, execution choices and prefixes may not change."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling_jax.models import counts
from scaling_jax.models.config import ModelConfig
from scaling_jax.models.hooks import Hook
from scaling_jax.models.model import arguments, model_of, smallest_batch
from scaling_jax.models.positions import distance_buckets
from tests.models import tiny

CONFIG = ModelConfig(
    "tiny_t5",
    layers=2,
    encoder_layers=4,
    heads=2,
    head_dim=8,
    model_dim=16,
    feed_forward_dim=24,
    vocabulary_size=48,
    key_value_heads=2,
    positions="relative",
    relative_buckets=8,
    relative_distance=6,
    attention_scale="none",
    embedding_scale="none",
    output="untied",
)


def batch(rows=3, length=9, read=11):
    inputs, targets = tiny.tokens(rows=rows, length=length)
    mask = np.arange(read) < np.array([[read], [4], [7]])[:rows]
    return {
        "inputs": inputs,
        "targets": targets,
        "encoder_inputs": tiny.tokens(rows=rows, length=read, seed=8)[0],
        "encoder_mask": mask,
    }


def losses(config, params, given):
    return np.asarray(jax.jit(model_of(config, Hook()).apply)({"params": params}, **given))


@pytest.fixture(scope="module")
def params():
    return tiny.parameters(CONFIG)


@pytest.fixture(scope="module")
def plain_losses(params):
    return losses(CONFIG, params, batch())


def norm(values, scale):
    return values / np.sqrt((values * values).mean(-1, keepdims=True) + 1e-6) * scale


def attend(weights, normed, read, allowed, table=None, causal=False):
    """One row, float64; `allowed` bool [queries, keys], `table` the distance bias."""
    queries, keys, values = normed @ weights["query"], read @ weights["key"], read @ weights["value"]
    mixed = np.zeros_like(queries)
    for head in range(CONFIG.heads):
        own = slice(head * CONFIG.head_dim, (head + 1) * CONFIG.head_dim)
        scores = queries[:, own] @ keys[:, own].T
        if table is not None:
            scores = scores + [
                [table[bucket_by_hand(key - query, causal), head] for key in range(len(read))]
                for query in range(len(normed))
            ]
        share = np.exp(np.where(allowed, scores, -1e30) - np.where(allowed, scores, -1e30).max(-1)[:, None])
        mixed[:, own] = share / share.sum(-1)[:, None] @ values[:, own]
    return mixed @ weights["out"]


def bucket_by_hand(ahead, causal):
    """With 8 buckets: causal 4 single distances, else 2 each way, then spans up to distance 6."""
    single, spans, farthest = (4, 4, 6) if causal else (2, 2, 6)
    offset = 4 if not causal and ahead > 0 else 0
    distance = max(-ahead, 0) if causal else abs(ahead)
    if distance < single:
        return offset + distance
    grown = np.log(distance / single) / np.log(farthest / single) * spans
    return offset + min(single + int(grown + 1e-9), single + spans - 1)


def run_stack(stack, hidden, mask, memory=None, memory_mask=None):
    causal = memory is not None
    length = len(hidden)
    allowed = np.tril(np.ones((length, length), bool)) if causal else np.tile(mask, (length, 1))
    layers = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), stack["layers"]["layer"])
    for index in range(CONFIG.layers if causal else CONFIG.encoder_layers):
        layer = jax.tree.map(lambda leaf, index=index: leaf[index], layers)
        matrices = {
            part: {name: leaf["kernel"] for name, leaf in layer[part].items()}
            for part in layer
            if not part.endswith("norm")
        }
        normed = norm(hidden, layer["attention_norm"]["scale"])
        table = np.asarray(stack["relative_bias"]["table"], np.float64)
        hidden = hidden + attend(matrices["attention"], normed, normed, allowed, table, causal)
        if causal:
            normed = norm(hidden, layer["cross_attention_norm"]["scale"])
            seen = np.tile(memory_mask, (length, 1))
            hidden = hidden + attend(matrices["cross_attention"], normed, memory, seen)
        normed = norm(hidden, layer["feed_forward_norm"]["scale"])
        gate, up, down = (matrices["feed_forward"][name] for name in ("gate", "up", "down"))
        gate = normed @ gate
        gelu = 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
        hidden = hidden + (gelu * (normed @ up)) @ down
    return norm(hidden, np.asarray(stack["final_norm"]["scale"], np.float64))


def test_losses_equal_numpy_by_hand(params, plain_losses):
    given = batch()
    table = np.asarray(params["embedding"]["table"], np.float64)
    for row in range(3):
        mask = given["encoder_mask"][row]
        memory = run_stack(params["encoder"], table[given["encoder_inputs"][row]], mask)
        hidden = run_stack(params["decoder"], table[given["inputs"][row]], None, memory, mask)
        logits = hidden @ np.asarray(params["output"]["table"], np.float64).T
        nats = np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(logits)), given["targets"][row]]
        np.testing.assert_allclose(plain_losses[row], nats, atol=2e-5)


def test_what_is_masked_is_not_read(params, plain_losses):
    given = batch()
    changed = given["encoder_inputs"].copy()
    changed[~given["encoder_mask"]] = (changed[~given["encoder_mask"]] + 5) % 48
    found = losses(CONFIG, params, given | {"encoder_inputs": changed})
    np.testing.assert_array_equal(found, plain_losses)
    longer = {name: np.pad(given[name], ((0, 0), (0, 3))) for name in ("encoder_inputs", "encoder_mask")}
    np.testing.assert_allclose(losses(CONFIG, params, given | longer), plain_losses, atol=1e-5)
    changed = (given["encoder_inputs"] + given["encoder_mask"]) % 48
    assert (np.abs(losses(CONFIG, params, given | {"encoder_inputs": changed}) - plain_losses) > 0).all()


def test_a_row_of_padding_is_finite(params):
    given = jax.tree.map(np.zeros_like, batch())
    assert np.isfinite(losses(CONFIG, params, given)).all()


def test_a_later_target_changes_no_earlier_loss(params, plain_losses):
    given = batch()
    given["inputs"] = given["inputs"].copy()
    given["inputs"][:, 5] = (given["inputs"][:, 5] + 1) % 48
    found = losses(CONFIG, params, given)
    np.testing.assert_array_equal(found[:, :5], plain_losses[:, :5])
    assert (found[:, 5:] != plain_losses[:, 5:]).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"remat": "full"},
        {"unroll": 2},
        {"remat": "dots", "unroll": 2},
        {"remat": "attention"},
        {"logits_chunk": 3},
    ],
)
def test_execution_choices_change_no_loss_and_no_layout(params, plain_losses, changes):
    config = dataclasses.replace(CONFIG, **changes)
    np.testing.assert_allclose(losses(config, params, batch()), plain_losses, atol=1e-5)
    layouts = [jax.tree.map(jnp.shape, tree) for tree in (counts.abstract_parameters(config), params)]
    assert layouts[0] == layouts[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"positions": "rotary", "attention_scale": "head_dim", "biases": ("query", "down")},
        {"encoder_layers": 0, "key_value_heads": 1, "feed_forward": "plain", "output": "tied_scaled"},
    ],
)
def test_parts_of_one_family_work_in_another(changes):
    """Rotary positions in an encoder-decoder, relative ones in a decoder: scanned and unrolled alike."""
    config = dataclasses.replace(CONFIG, **changes)
    given = {name: batch()[name] for name in smallest_batch(config)}
    found = losses(config, tiny.parameters(config), given)
    assert np.isfinite(found).all() and np.ptp(found) > 0.5
    unrolled = dataclasses.replace(config, unroll=2)
    np.testing.assert_allclose(losses(unrolled, tiny.parameters(config), given), found, atol=1e-5)


def test_bfloat16_is_near_float32(params, plain_losses):
    found = losses(dataclasses.replace(CONFIG, dtype="bfloat16"), params, batch())
    assert found.dtype == np.float32
    assert 0 < np.abs(found - plain_losses).mean() < 0.1


def test_a_prefix_of_the_encoder_is_read_where_the_mask_would_hide_it(params):
    """A hook that puts one vector in front: the same as the token of that embedding in front, unmasked."""

    @dataclasses.dataclass(frozen=True)
    class InFront(Hook):
        def embed(self, module, embeddings, table):
            if module.path[0] != "encoder":
                return embeddings
            one = jnp.broadcast_to(table[7], (embeddings.shape[0], 1, embeddings.shape[2]))
            return jnp.concatenate([one, embeddings], axis=1)

    given = batch()
    apply = jax.jit(model_of(CONFIG, InFront()).apply)
    found = np.asarray(apply({"params": params}, **given))
    front = {
        "encoder_inputs": np.pad(given["encoder_inputs"], ((0, 0), (1, 0)), constant_values=7),
        "encoder_mask": np.pad(given["encoder_mask"], ((0, 0), (1, 0)), constant_values=True),
    }
    np.testing.assert_allclose(found, losses(CONFIG, params, given | front), atol=1e-5)


def test_hooks_see_every_projection_by_its_path(params):
    seen = set()

    @dataclasses.dataclass(frozen=True)
    class Notes(Hook):
        def project(self, module, inputs, project):
            seen.add("/".join(module.path))
            return project(inputs)

    jax.eval_shape(model_of(CONFIG, Notes()).apply, {"params": params}, **smallest_batch(CONFIG))
    parts = {"encoder": ("attention",), "decoder": ("attention", "cross_attention")}
    wanted = {
        f"{stack}/layers/layer/{part}/{name}"
        for stack, attentions in parts.items()
        for part in (*attentions, "feed_forward")
        for name in (("gate", "up", "down") if part == "feed_forward" else ("query", "key", "value", "out"))
    }
    assert seen == wanted


def test_buckets_of_the_defaults():
    """Raffel et al. 2020: 32 buckets, the last for all that is 128 or more away."""
    both = distance_buckets(300, False, 32, 128)
    assert both[299] == 0 and both[298] == 1 and both[300] == 17
    assert (both[:171] == 15).all() and (both[-171:] == 31).all()
    back = distance_buckets(300, True, 32, 128)
    assert (back[299:] == 0).all() and back[:171].min() == 31
    assert back[299 - 15 : 300].tolist() == list(range(15, -1, -1))


def test_the_weights_of_a_batch_are_no_argument():
    assert arguments({"inputs": 1, "weights": 2, "targets": 3}) == {"inputs": 1, "targets": 3}
