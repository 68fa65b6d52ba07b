"""Full, LoRA and prompt tuning: what each adds, trains, starts from and becomes."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling_jax import configuration
from scaling_jax.errors import InputError
from scaling_jax.models import counts
from scaling_jax.models.decoder import Decoder
from scaling_jax.tuning.full import Full
from scaling_jax.tuning.lora import ATTENTION_AND_FEED_FORWARD, LoRA
from scaling_jax.tuning.method import method_names, named_method
from scaling_jax.tuning.prompt import Prompt
from tests.models import tiny

CONFIG = tiny.CONFIG


@pytest.fixture(scope="module")
def base():
    return tiny.parameters()


def created(method, base, seed=0):
    def create(params, key):
        one = jnp.zeros((1, 1), jnp.int32)
        made = Decoder(CONFIG, method).apply(
            {"params": params}, one, one, mutable=["tuned"], rngs={"params": key}
        )
        return nn.unbox(made[1]["tuned"])

    return method.start(base, lambda params: jax.jit(create)(params, jax.random.key(seed)))


def losses(method, tuned, base):
    return np.asarray(jax.jit(Decoder(CONFIG, method).apply)(method.variables(tuned, base), *tiny.tokens()))


def leaves(tree):
    return {
        "/".join(str(key.key) for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def moved(tree):
    """The tree after something like training."""
    generator = np.random.default_rng(3)
    return jax.tree.map(lambda leaf: leaf + 0.1 * generator.normal(size=leaf.shape).astype(np.float32), tree)


@pytest.fixture(scope="module")
def lora(base):
    method = LoRA(rank=2)
    return method, created(method, base)[0]


def test_lora_begins_as_the_base_to_the_last_bit(base, lora):
    method, tuned = lora
    np.testing.assert_array_equal(losses(method, tuned, base), tiny.losses(CONFIG, base, tiny.tokens()))


def test_lora_leaves_shapes_and_initial_values(base, lora):
    _, tuned = lora
    found = leaves(tuned)
    assert {name.split("/")[-1] for name in found} == {"lora_a", "lora_b"}
    assert {name.split("/")[-2] for name in found} == set(ATTENTION_AND_FEED_FORWARD)
    assert all(leaf.dtype == jnp.float32 for leaf in found.values())
    kernels = leaves(base)
    downs = []
    for name, leaf in found.items():
        layers, features_in, features_out = kernels[name.rsplit("/", 1)[0] + "/kernel"].shape
        if name.endswith("lora_b"):
            assert leaf.shape == (layers, 2, features_out) and not np.any(leaf)
        else:
            assert leaf.shape == (layers, features_in, 2)
            bound = features_in**-0.5
            assert 0.6 * bound < np.abs(leaf).max() <= bound
            downs += [tuple(np.ravel(layer)[:8]) for layer in np.asarray(leaf)]
    assert len(set(downs)) == len(downs) == 14, "every layer and projection draws its own"


def test_seed_of_what_is_added(base, lora):
    method, tuned = lora
    again, other = created(method, base)[0], created(method, base, seed=1)[0]
    name = "layers/layer/attention/query/lora_a"
    np.testing.assert_array_equal(leaves(again)[name], leaves(tuned)[name])
    assert not np.array_equal(leaves(other)[name], leaves(tuned)[name])


@pytest.mark.parametrize("alpha", [None, 6.0])
def test_lora_merged_equals_lora_beside(base, lora, alpha):
    method, tuned = dataclasses.replace(lora[0], alpha=alpha), moved(lora[1])
    assert method.scale == (1.0 if alpha is None else 3.0)
    merged = method.merge(tuned, base)
    beside = losses(method, tuned, base)
    np.testing.assert_allclose(tiny.losses(CONFIG, merged, tiny.tokens()), beside, atol=2e-5)
    assert np.abs(beside - tiny.losses(CONFIG, base, tiny.tokens())).max() > 1e-2
    assert jax.tree.structure(merged) == jax.tree.structure(base)
    np.testing.assert_array_equal(merged["embedding"]["table"], base["embedding"]["table"])
    for layer in range(CONFIG.layers):  # by hand, one layer of one projection
        out = tuned["layers"]["layer"]["attention"]["out"]
        product = np.asarray(out["lora_a"])[layer] @ np.asarray(out["lora_b"])[layer]
        before = base["layers"]["layer"]["attention"]["out"]["kernel"][layer]
        after = np.asarray(merged["layers"]["layer"]["attention"]["out"]["kernel"])[layer]
        np.testing.assert_allclose(after, before + method.scale * product, atol=1e-6)


def test_lora_on_chosen_projections_only(base):
    tuned, _ = created(LoRA(rank=3, targets=("query", "down")), base)
    assert {name.split("/")[-2] for name in leaves(tuned)} == {"query", "down"}


def test_prompt_begins_from_rows_of_the_table(base):
    tuned, frozen = created(Prompt(length=5), base)
    assert frozen is base
    assert {name.split("/")[-1] for name in leaves(tuned)} == {"prompt"}
    (prompt,) = leaves(tuned).values()
    assert prompt.shape == (5, CONFIG.model_dim) and prompt.dtype == jnp.float32
    rows = base["embedding"]["table"] * np.float32(CONFIG.model_dim**0.5)
    distance = np.abs(np.asarray(prompt)[:, None] - rows[None]).max(-1)
    assert (distance.min(1) < 1e-6).all()
    assert len(set(distance.argmin(1))) > 1


def test_prompt_equals_the_same_tokens_in_front(base):
    """A prompt of embeddings is the model reading those tokens first."""
    chosen = np.array([7, 3, 30])
    prompt = base["embedding"]["table"][chosen] * np.float32(CONFIG.model_dim**0.5)
    inputs, targets = tiny.tokens()
    method = Prompt(length=3)
    found = losses(method, {"embedding": {"prompt": prompt}}, base)
    front = np.tile(chosen, (3, 1)).astype(np.int32)
    longer = [np.concatenate([front, part], 1) for part in (inputs, targets)]
    np.testing.assert_allclose(found, tiny.losses(CONFIG, base, longer)[:, 3:], atol=1e-5)
    assert found.shape == targets.shape


def test_what_cannot_be_merged(base):
    with pytest.raises(InputError, match="Prompt cannot be merged"):
        Prompt(4).merge({}, base)
    assert Full().merge(base, {}) is base


def test_trained_parameters_equal_the_formulas():
    def added(method):
        return counts.size(counts.abstract_variables(CONFIG, method)["tuned"])

    width, hidden, attention, shared = CONFIG.model_dim, CONFIG.feed_forward_dim, 2 * 8, 8
    per_rank = 2 * (width + attention) + 2 * (width + shared) + 3 * (width + hidden)
    assert added(LoRA(rank=2)) == CONFIG.layers * 2 * per_rank
    assert added(LoRA(rank=4)) == 2 * added(LoRA(rank=2))
    assert added(LoRA(rank=2, targets=("query",))) == CONFIG.layers * 2 * (width + attention)
    assert added(Prompt(length=9)) == 9 * width
    assert "tuned" not in counts.abstract_variables(CONFIG, Full())


def test_a_prompt_of_100_is_as_large_as_the_paper_says():
    """Zhang et al. 2024: on the 1B model a prompt of 100 adds 0.017%."""
    configuration.parse(["gin_configs/models/decoder_1b.gin"], imports=["scaling_jax.models.families"])
    from scaling_jax.models.families import named_model

    config = named_model("decoder_1b", 1000)
    added = counts.size(counts.abstract_variables(config, Prompt(100))["tuned"])
    assert round(100 * added / counts.model_parameters(config), 3) == 0.017


def test_names_and_sizes():
    imports = ["scaling_jax.studies.configurables"]
    configuration.parse([], ["lora.rank=7", "prompt.length=11"], imports=imports)
    assert {"full", "lora", "prompt"} <= set(method_names())
    assert (named_method("lora").tuning_size, named_method("prompt").tuning_size) == (7, 11)
    assert named_method("full").tuning_size is None
    assert (named_method("lora", 3).rank, named_method("prompt", 3).length) == (3, 3)
    with pytest.raises(InputError, match="no tuning method 'lorra'; did you mean 'lora'"):
        named_method("lorra")
    with pytest.raises(InputError, match="Full has no tuning size, 3"):
        named_method("full", 3)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"rank": 0}, "lora.rank = 0: at least 1"),
        ({"targets": ("query", "keys")}, r"\['keys'\] matches no projection; those that exist: query, key"),
        ({"targets": ()}, "nothing matches no projection|matches no projection"),
        ({"targets": "query"}, "matches no projection"),
    ],
)
def test_bad_lora(settings, says):
    with pytest.raises(InputError, match=says):
        LoRA(**settings)


def test_a_rank_above_the_matrix():
    with pytest.raises(InputError, match=r"lora.rank = 9 is above the smaller side of key \[16, 8\]"):
        counts.abstract_variables(CONFIG, LoRA(rank=9))
    with pytest.raises(InputError, match="prompt.length = 0"):
        Prompt(0)


def test_a_method_in_a_file_of_ones_own(tmp_path):
    mine = tmp_path / "my_method.py"
    mine.write_text(
        "import dataclasses\n"
        "from scaling_jax.tuning.full import Full\n"
        "from scaling_jax.tuning.method import register\n"
        "@register('mine_for_a_test')\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Mine(Full):\n"
        "    strength: float = 1.0\n"
    )
    configuration.parse([], ["mine_for_a_test.strength=2.5"], imports=[str(mine)])
    assert named_method("mine_for_a_test").strength == 2.5
