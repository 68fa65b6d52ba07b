"""Our models under T5X's interface; runs where T5X is installed (from source: it is on no registry)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling_jax.errors import InputError
from scaling_jax.interop import conversion, hugging_face
from scaling_jax.models.hooks import Hook
from scaling_jax.models.model import model_of
from tests.interop import cases

pytest.importorskip("t5x", reason="T5X is not installed")
seqio = pytest.importorskip("seqio", reason="the extra `tasks` is not installed")

CASES = ("llama_grouped_query", "t5_gated")


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Checkpoints of both cases."""
    room = tmp_path_factory.mktemp("bases")
    for name in CASES:
        hugging_face.write_model(room / f"{name}-hf", cases.CASES[name], cases.parameters(name))
        conversion.to_checkpoint(room / f"{name}-hf", room / name)
    return room


def make(base, method="full", **settings):
    from t5x import adafactor

    from scaling_jax.interop.t5x_model import T5XModel

    vocabulary = seqio.PassThroughVocabulary(48)
    return T5XModel(vocabulary, adafactor.Adafactor(1e-3), base=str(base), method=method, settings=settings)


def batch(name):
    """The case's batch as T5X's feature converters call it."""
    given = cases.batch(cases.CASES[name])
    found = {
        "decoder_input_tokens": given["inputs"],
        "decoder_target_tokens": given["targets"],
        "decoder_loss_weights": given["weights"],
    }
    if "encoder_inputs" in given:
        masked = np.maximum(given["encoder_inputs"], 1) * given["encoder_mask"]
        found["encoder_input_tokens"] = masked.astype(np.int32)
    return {key: jnp.asarray(value) for key, value in found.items()}


def ours(name, given):
    """Logits of the model itself."""
    found = {"inputs": given["decoder_input_tokens"]}
    start = {"llama_grouped_query": 1, "t5_gated": 0}[name]
    found["inputs"] = found["inputs"].at[:, 0].set(start)
    if "encoder_input_tokens" in given:
        tokens = given["encoder_input_tokens"]
        found |= {"encoder_inputs": tokens, "encoder_mask": tokens > 0}
    return np.asarray(compiled(name)({"params": cases.parameters(name)}, **found))


@functools.cache
def compiled(name):
    return jax.jit(functools.partial(model_of(cases.CASES[name], Hook()).apply, method="logits"))


def start(model):
    """(variables' parameters, their axes) as T5X makes them: inside jit."""
    made = jax.jit(lambda key: model.get_initial_variables(key, {})["params"])(jax.random.key(0))
    return made, jax.eval_shape(lambda key: model.get_initial_variables(key, {}), jax.random.key(0))


@pytest.mark.parametrize("name", CASES)
def test_loss_and_scores_are_the_models(bases, name):
    model, given = make(bases / name), batch(name)
    params, variables = start(model)
    logits = ours(name, given)
    nats = (
        jax.nn.logsumexp(logits, axis=-1)
        - np.take_along_axis(logits, np.asarray(given["decoder_target_tokens"])[..., None], -1)[..., 0]
    )
    wanted = np.asarray(nats * given["decoder_loss_weights"])
    loss, _ = jax.jit(model.eval_fn)(params, given)
    np.testing.assert_allclose(loss, wanted.sum(), rtol=1e-4)
    np.testing.assert_allclose(jax.jit(model.score_batch)(params, given), -wanted.sum(-1), rtol=1e-4)
    assert "params_axes" in variables


@pytest.mark.parametrize("name", CASES)
def test_lora_has_gradients_and_its_base_none(bases, name):
    model, given = make(bases / name, "lora", rank=2, layers="last 1"), batch(name)
    params, _ = start(model)
    gradient = jax.jit(jax.grad(lambda p: model.loss_fn(p, given, jax.random.key(1))[0]))(params)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient["base"]))
    ups = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient["tuned"])
        if path[-1].key == "lora_b"
    ]
    assert ups and all(np.any(leaf) and leaf.shape[0] == 1 for leaf in ups)
    loss = [jax.jit(make(bases / name, *method).eval_fn) for method in ((), ("lora",))]
    full = start(make(bases / name))[0]
    np.testing.assert_allclose(loss[0](full, given)[0], jax.jit(model.eval_fn)(params, given)[0], rtol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_greedy_continuations(bases, name):
    """One token after another by hand, behind inputs of unequal length in a decoder."""
    model, given = make(bases / name), batch(name)
    known = np.array([4, 9]) if name.startswith("llama") else np.zeros(2, int)
    if known.any():
        seen = np.arange(given["decoder_input_tokens"].shape[1]) < known[:, None] + 1
        given["decoder_causal_attention"] = jnp.asarray(seen, jnp.int32)
    found, aux = jax.jit(model.predict_batch_with_aux)(start(model)[0], given)
    tokens = np.array(given["decoder_input_tokens"])
    length = tokens.shape[1]
    step = {key: value for key, value in given.items() if key != "decoder_causal_attention"}
    for row in range(2):
        for place in range(known[row], length - 1):
            logits = ours(name, step | {"decoder_input_tokens": jnp.asarray(tokens)})
            tokens[row, place + 1] = logits[row, place].argmax()
        wanted = tokens[row, known[row] + 1 :]
        np.testing.assert_array_equal(np.asarray(found)[row, : len(wanted)], wanted)
        assert not np.asarray(found)[row, len(wanted) :].any()
    assert (np.asarray(aux["scores"]) < 0).all()


def test_what_is_refused(bases):
    given = batch("t5_gated") | {"decoder_segment_ids": jnp.ones((2, 22), jnp.int32)}
    model = make(bases / "t5_gated")
    with pytest.raises(InputError, match="bind DatasetConfig.pack = False"):
        model.eval_fn(start(model)[0], given)
    with pytest.raises(InputError, match="lora.targets: 'wi_0' matches no projection"):
        make(bases / "t5_gated", "lora", targets=("wi_0",))
    with pytest.raises(InputError, match="either base, a checkpoint, or model"):
        from scaling_jax.interop.t5x_model import T5XModel

        T5XModel(seqio.PassThroughVocabulary(48), None)
