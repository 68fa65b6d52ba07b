"""Adafactor layer by layer, AdamW, clipping and schedules."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from scaling_jax.errors import InputError
from scaling_jax.training.optimizers import Optimizer
from scaling_jax.training.schedules import Schedule

LAYERS, RATE = 3, 0.03


def trees(seed):
    """Arrays of very different size per layer, one that is factored at 4 and one that is not."""
    generator = np.random.default_rng(seed)
    scale = np.array([0.1, 1.0, 30.0], np.float32)

    def stacked(*shape):
        return generator.normal(size=(LAYERS, *shape)).astype(np.float32) * scale.reshape(
            -1, *[1] * len(shape)
        )

    single = generator.normal(size=(8, 5)).astype(np.float32)
    return {"layers": {"kernel": stacked(6, 4), "scale": stacked(6)}, "embedding": {"table": single}}


def run(transformation, params, gradients):
    """Parameters after one step per gradient at RATE."""
    state = transformation.init(params)
    update = jax.jit(transformation.update)
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = jax.tree.map(lambda leaf, change: leaf - RATE * change, params, updates)
    return params


def per_layer_by_hand(reference, params, gradients):
    """The same through `reference`, one layer after another."""

    def steps(params, gradients):
        state = reference.init(params)
        for gradient in gradients:
            updates, state = reference.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        return params

    layers = [
        steps(
            *(
                jax.tree.map(lambda leaf, i=i: leaf[i], tree)
                for tree in (params["layers"], [g["layers"] for g in gradients])
            )
        )
        for i in range(LAYERS)
    ]
    rest = steps({"embedding": params["embedding"]}, [{"embedding": g["embedding"]} for g in gradients])
    return {"layers": jax.tree.map(lambda *parts: np.stack(parts), *layers), **rest}


def assert_equal(found, wanted, tolerance=2e-6):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({}, {}),
        ({"factored_size": 4}, {"min_dim_size_to_factor": 4}),
        (
            {"factored_size": 4, "relative_step": False},
            {"min_dim_size_to_factor": 4, "multiply_by_parameter_scale": False},
        ),
        ({"decay_rate": 0.6, "weight_decay": 0.1}, {"decay_rate": 0.6, "weight_decay_rate": 0.1 * RATE}),
    ],
)
def test_stacked_adafactor_equals_optax_on_each_layer(settings, options):
    params, gradients = trees(0), [trees(seed) for seed in (1, 2, 3)]
    found = run(Optimizer(**settings).transformation(), params, gradients)
    reference = optax.adafactor(learning_rate=RATE, **options)
    assert_equal(found, per_layer_by_hand(reference, params, gradients))
    if not settings:  # and it is not what optax makes of the stacked arrays
        whole = optax.adafactor(learning_rate=RATE)
        updates, _ = whole.update(gradients[0], whole.init(params), params)
        one = run(Optimizer().transformation(), params, gradients[:1])
        assert (
            np.abs(one["layers"]["kernel"] - (params["layers"]["kernel"] + updates["layers"]["kernel"])).max()
            > 1e-3
        )


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adamw_equals_optax(decay):
    params, gradients = trees(0), [trees(seed) for seed in (1, 2, 3)]
    settings = Optimizer("adamw", beta1=0.8, beta2=0.97, epsilon=1e-6, weight_decay=decay)
    found = run(settings.transformation(), params, gradients)
    reference = optax.adamw(RATE, 0.8, 0.97, 1e-6, weight_decay=decay)
    assert_equal(found, per_layer_by_hand(reference, params, gradients))
    state = reference.init(params)  # AdamW is elementwise: the stack changes nothing either
    whole = params
    for gradient in gradients:
        updates, state = reference.update(gradient, state, whole)
        whole = optax.apply_updates(whole, updates)
    assert_equal(found, whole)


def test_a_tree_of_layers_alone_or_of_none():
    layers = {"layers": trees(0)["layers"]}
    table = {"embedding": trees(0)["embedding"]}
    for tree in (layers, table):
        moved = run(Optimizer().transformation(), tree, [tree, tree])
        assert jax.tree.structure(moved) == jax.tree.structure(tree)
        assert all(
            np.abs(a - b).max() > 0
            for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(tree), strict=True)
        )


def test_clipping_is_by_the_norm_of_the_whole_tree():
    params, gradient = trees(0), trees(1)
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradient)))
    clipped = dataclasses.replace(Optimizer("adamw"), clip_norm=0.5).transformation()
    scaled = jax.tree.map(lambda leaf: leaf * 0.5 / norm, gradient)
    plain = Optimizer("adamw").transformation()
    _, state = jax.jit(clipped.update)(gradient, clipped.init(params), params)
    _, wanted = jax.jit(plain.update)(scaled, plain.init(params), params)
    moments = [[leaf for leaf in jax.tree.leaves(tree) if jnp.ndim(leaf) > 1] for tree in (state, wanted)]
    assert len(moments[0]) == 6
    assert_equal(*moments)
    small = jax.tree.map(lambda leaf: leaf * 0.1 / norm, gradient)
    assert_equal(run(clipped, params, [small]), run(plain, params, [small]))


def test_unknown_names():
    with pytest.raises(InputError, match="Optimizer.name = 'adam': 'adafactor' or 'adamw'"):
        Optimizer("adam")
    with pytest.raises(
        InputError, match="Schedule.shape = 'step': one of constant, cosine, linear, inverse_square_root"
    ):
        Schedule("step")


def test_schedules_at_their_corners():
    def rates(shape, warmup=0, final=0.1, steps=101, peak=2.0):
        found = Schedule(shape, warmup, final).rates(peak, steps)
        assert found.dtype == np.float32 and found.shape == (steps,)
        return found

    np.testing.assert_array_equal(rates("constant"), np.full(101, 2.0, np.float32))
    np.testing.assert_allclose(rates("constant", 4)[:6], [0.5, 1.0, 1.5, 2.0, 2.0, 2.0])
    for shape in ("cosine", "linear"):
        found = rates(shape, 1, steps=201)
        np.testing.assert_allclose(found[[0, 1, 101]], [2.0, 2.0, 1.1], rtol=1e-6)
        assert 0.2 < found[-1] < 0.22
        assert (np.diff(found[1:]) < 0).all()
        assert rates(shape, 10)[9] == 2.0 and rates(shape, 10)[0] == np.float32(0.2)
        assert rates(shape, 50, steps=20)[-1] == np.float32(2.0 * 20 / 20), (
            "a warmup longer than the run ends at the peak"
        )
    np.testing.assert_allclose(rates("cosine", final=0.0)[50], 1 + np.cos(np.pi * 50 / 101), rtol=1e-5)
    inverse = rates("inverse_square_root", 25)
    assert (inverse[:25] == 2.0).all()
    np.testing.assert_allclose(inverse[[99]], [1.0], rtol=1e-6)
    assert rates("cosine", 10, steps=1) == [2.0]


def test_warm_up_as_a_share_of_the_run():
    sun = Schedule("cosine", final_fraction=0.0, warmup_fraction=0.03)
    same = Schedule("cosine", warmup_steps=30, final_fraction=0.0)
    np.testing.assert_array_equal(sun.rates(5e-6, 1000), same.rates(5e-6, 1000))
    found = Schedule("linear", final_fraction=0.0, warmup_fraction=0.06).rates(1.0, 1000)
    assert (found[58] < 1, found[59], found[60], found[61] < 1) == (True, 1.0, 1.0, True)
    assert [Schedule(warmup_fraction=0.06).warmup(steps) for steps in (1000, 100, 50, 10, 1)] == [
        60,
        6,
        3,
        1,
        1,
    ]
    assert Schedule(warmup_fraction=0.1).warmup(30) == 3, "0.1 x 30 is 3.0000000000000004 in floating point"
    with pytest.raises(InputError, match="warmup_steps = 5 and Schedule.warmup_fraction = 0.1: bind one"):
        Schedule(warmup_steps=5, warmup_fraction=0.1)
    with pytest.raises(InputError, match="Schedule.warmup_fraction = 1.5"):
        Schedule(warmup_fraction=1.5)


def test_the_inverse_square_root_is_that_of_the_papers():
    # Raffel et al. 2020 and Isik et al. 2024: rate b / sqrt(max(n, k)) at step n, k = 10,000; b = 1 here.
    steps = np.arange(1, 50_001)
    wanted = 1 / np.sqrt(np.maximum(steps, 10_000))
    found = Schedule("inverse_square_root", warmup_steps=10_000).rates(1 / np.sqrt(10_000), 50_000)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert found[0] == found[9_999] == np.float32(0.01) and found[39_999] == np.float32(0.005)
    part = Schedule("inverse_square_root", warmup_steps=10_000).rates(0.01, 20_000)
    np.testing.assert_array_equal(part, found[:20_000], err_msg="a shorter run is a prefix of a longer one")
