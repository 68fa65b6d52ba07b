"""Our models and methods under T5X's own state, trainer, decoding and `train.py`."""

import dataclasses
import functools
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import traverse_util

from scaling_jax.cli.main import main
from scaling_jax.errors import InputError
from scaling_jax.models.config import ModelConfig
from scaling_jax.models.model import arguments, model_of
from scaling_jax.training import checkpoints
from scaling_jax.training.bases import load_base, load_tuned
from scaling_jax.training.mesh import Layout
from scaling_jax.tuning.bitfit import BitFit
from scaling_jax.tuning.full import Full
from scaling_jax.tuning.ia3 import IA3
from scaling_jax.tuning.lora import LoRA
from scaling_jax.tuning.prompt import Prompt
from tests.interop import cases
from tests.models import tiny

pytest.importorskip("t5x", reason="T5X is not installed (it is on no package registry)")

import gin  # noqa: E402
import seqio  # noqa: E402
from t5x import adafactor, decoding, optimizers, partitioning, trainer, utils  # noqa: E402
from t5x import checkpoints as t5x_checkpoints  # noqa: E402

from scaling_jax.interop import t5x_tuning  # noqa: E402

ARCHITECTURES = ("own_decoder", "llama_biases", "t5_gated")
METHODS = (
    Full(),
    LoRA(rank=2, layers="last 1"),
    IA3(targets=("key", "value", "down")),
    BitFit(),
    Prompt(length=3),
)
VOCABULARY = seqio.PassThroughVocabulary(48, eos_id=1)
EOS = 1
RATE = 0.1
ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "t5x.md"


@functools.cache
def partitioner():
    return partitioning.PjitPartitioner(num_partitions=1)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Our checkpoints of random weights, by architecture."""
    folder = tmp_path_factory.mktemp("bases")
    for name in ARCHITECTURES:
        params = cases.parameters(name)
        about = {"kind": "pretrained", "model": dataclasses.asdict(cases.CASES[name]), "start_id": None}
        checkpoints.save(folder / name, params, about | {"hash": checkpoints.tree_hash(params)})
    return folder


def model(bases, name, method, **settings):
    settings = {"optimizer_def": optimizers.sgd(RATE), "checkpoint": str(bases / name)} | settings
    if cases.CASES[name].encoder_layers:
        return t5x_tuning.EncoderDecoderModel(method, VOCABULARY, VOCABULARY, **settings)
    return t5x_tuning.DecoderModel(method, VOCABULARY, **settings)


def begin(made, initializer=t5x_tuning.FromCheckpoint):
    """T5X's state at step 0."""
    initialized = initializer(
        optimizer_def=made.optimizer_def,
        init_fn=made.get_initial_variables,
        input_shapes={},
        partitioner=partitioner(),
    )
    return initialized.from_scratch(jax.random.PRNGKey(0))


def batches(name):
    """The same batch as we and as T5X call its arrays; T5X's padding is token 0."""
    ours = cases.batch(cases.CASES[name])
    theirs = {
        "decoder_input_tokens": ours["inputs"],
        "decoder_target_tokens": ours["targets"],
        "decoder_loss_weights": ours["weights"],
    }
    if "encoder_inputs" in ours:
        ours["encoder_inputs"] = np.where(ours["encoder_mask"], np.maximum(ours["encoder_inputs"], 1), 0)
        theirs["encoder_input_tokens"] = ours["encoder_inputs"]
    return ours, theirs


def nats(name, method, tuned, base):
    """Our sums of nats of the batch's rows."""
    ours, _ = batches(name)

    @jax.jit
    def sums(tuned, base):
        losses = model_of(cases.CASES[name], method).apply(method.variables(tuned, base), **arguments(ours))
        return (losses * ours["weights"]).sum(axis=-1)

    return sums(tuned, base)


def parts(state):
    """(tuned, base) of a state as plain dicts."""
    frozen = state.flax_mutables.unfreeze()
    return state.params.unfreeze(), frozen.get("base", {})


def moved(state):
    """The state after something like training."""
    generator = np.random.default_rng(3)

    def move(leaf):
        return leaf + 0.1 * generator.normal(size=leaf.shape).astype(np.float32)

    return state.replace_params(jax.tree.map(move, state.params))


@pytest.mark.parametrize(
    ("name", "method"),
    [("own_decoder", method) for method in METHODS]
    + [(name, method) for name in ("llama_biases", "t5_gated") for method in METHODS[:2]],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_step_of_t5x_is_a_step_of_ours(bases, name, method):
    made = model(bases, name, method)
    state = begin(made)
    tuned, base = parts(state)
    start = tuned if method.trains_base else base
    if not method.trains_base:
        jax.tree.map(np.testing.assert_array_equal, start, cases.parameters(name))
    ours = jax.jit(jax.value_and_grad(lambda part: nats(name, method, part, base).sum()))
    total, gradients = ours(tuned)
    step = jax.jit(functools.partial(trainer.train_with_lr, model=made, num_microbatches=2))
    new, metrics = step(state, batches(name)[1], RATE, jax.random.PRNGKey(1))
    # T5X reports the mean over microbatches of their sums.
    np.testing.assert_allclose(metrics["loss"].compute() * 2, total, rtol=2e-5)
    new_tuned, new_base = parts(new)
    jax.tree.map(np.testing.assert_array_equal, new_base, base)
    wanted = jax.tree.map(lambda leaf, gradient: leaf - RATE * gradient, tuned, gradients)
    jax.tree.map(lambda *both: np.testing.assert_allclose(*both, atol=2e-4, rtol=1e-4), new_tuned, wanted)
    assert any(np.ptp(leaf) > 0 for leaf in jax.tree.leaves(gradients))
    # Without a method in it the model computes the same at step 0, but for a prompt.
    if not isinstance(method, Prompt):
        plain = nats(name, Full(), cases.parameters(name), {}).sum()
        np.testing.assert_allclose(total, plain, rtol=2e-5)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_axes_are_those_of_t5x(bases, name, method):
    rules = adafactor.Adafactor(logical_factor_rules=adafactor.standard_logical_factor_rules())
    made = model(bases, name, method, optimizer_def=rules)
    initializer = t5x_tuning.FromCheckpoint(rules, made.get_initial_variables, {}, partitioner())
    shapes, axes = initializer.global_train_state_shape, initializer.train_state_axes
    held = ("params",) if method.trains_base else ("params", "flax_mutables")
    for part in held:
        jax.tree.map(
            lambda leaf, spec: leaf.shape[len(spec) - 1], *(getattr(s, part) for s in (shapes, axes))
        )
    params = axes.params if method.trains_base else axes.flax_mutables["base"]
    assert params["embedding"]["table"] == jax.sharding.PartitionSpec("model", None)
    stack = params["decoder"] if cases.CASES[name].encoder_layers else params
    layer = stack["layers"]["layer"]
    assert layer["attention"]["query"]["kernel"] == jax.sharding.PartitionSpec(None, None, "model")
    assert layer["feed_forward"]["down"]["kernel"] == jax.sharding.PartitionSpec(None, "model", None)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_scores_and_predictions(bases, name):
    made = model(bases, name, LoRA(rank=2), decode_fn=decoding.temperature_sample)
    state = moved(begin(made))
    _, batch = batches(name)
    known = {"params": state.params, "flax_mutables": state.flax_mutables}
    scores = jax.jit(made.score_batch)(batch=batch, **known)
    np.testing.assert_allclose(scores, -nats(name, made.method, *parts(state)), rtol=2e-5)
    batch["decoder_input_tokens"] = np.maximum(batch["decoder_input_tokens"], 2) * (np.arange(22) > 0)
    if "encoder_input_tokens" not in batch:
        batch["decoder_causal_attention"] = np.arange(22) < np.array([[6], [11]])
    predict = jax.jit(functools.partial(made.predict_batch_with_aux, decoder_params={"temperature": 0.0}))
    found, _ = predict(batch=batch, rng=None, **known)
    wanted = greedy(made, made.collections(state.params, state.flax_mutables), batch)
    np.testing.assert_array_equal(found, wanted)


def greedy(made, collections, batch):
    """The most likely tokens one by one, each row until EOS or the length."""
    logits = jax.jit(lambda part: made._compute_logits(collections, part))
    rows, length = batch["decoder_input_tokens"].shape
    causal = batch.get("decoder_causal_attention", np.arange(length) < np.ones((rows, 1)))
    tokens, begins = batch["decoder_input_tokens"] * causal, causal.sum(axis=1) - 1
    wanted = np.zeros((rows, length), np.int32)
    for row in range(rows):
        for position in range(begins[row], length):
            read = batch | {"decoder_input_tokens": np.array(tokens)}
            chosen = int(np.argmax(logits(read)[row, position]))
            wanted[row, position - begins[row]] = chosen
            if chosen == EOS or position + 1 == length:
                break
            tokens[row, position + 1] = chosen
    return wanted


def test_beams_have_the_scores_of_what_they_say(bases):
    made = model(
        bases, "t5_gated", LoRA(rank=2), decode_fn=functools.partial(decoding.beam_search, alpha=0.0)
    )
    state = moved(begin(made))
    _, batch = batches("t5_gated")
    known = {"params": state.params, "flax_mutables": state.flax_mutables}
    options = {"num_decodes": 3, "return_all_decodes": True}
    beams, aux = jax.jit(functools.partial(made.predict_batch_with_aux, **options))(batch=batch, **known)
    score = jax.jit(made.score_batch)
    assert beams.shape == (2, 3, 22) and (np.diff(aux["scores"]) >= 0).all()
    for beam in range(3):
        said = np.asarray(beams[:, beam])
        shifted = np.concatenate([np.zeros((2, 1), np.int32), said[:, :-1]], axis=1)
        ended = np.cumsum(said == EOS, axis=1) - (said == EOS) == 0
        read = batch | {"decoder_input_tokens": shifted, "decoder_target_tokens": said}
        scores = score(batch=read | {"decoder_loss_weights": ended.astype(np.float32)}, **known)
        np.testing.assert_allclose(aux["scores"][:, beam], scores, rtol=1e-4)


def test_first_token_of_a_checkpoint(bases, tmp_path):
    about = checkpoints.about(bases / "llama_biases") | {"start_id": 7}
    checkpoints.save(tmp_path / "llama", cases.parameters("llama_biases"), about)
    made = model(tmp_path, "llama_biases", Full(), checkpoint=str(tmp_path / "llama"))
    _, batch = batches("llama_biases")
    batch["decoder_input_tokens"][:, 0] = 0
    found = made._compute_logits({"params": cases.parameters("llama_biases")}, batch)
    batch["decoder_input_tokens"][:, 0] = 7
    given = {"inputs": batch["decoder_input_tokens"]}
    wanted = cases.logits(cases.CASES["llama_biases"], cases.parameters("llama_biases"), given)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.fixture
def gin_is_free():
    gin.clear_config()
    yield
    gin.clear_config()


def saved_run(made, state, folder, write):
    """The state as a checkpoint of T5X's train.py, or of T5X's own older writer."""
    if write == "t5x":
        checkpointer = t5x_checkpoints.Checkpointer(jax.eval_shape(lambda: state), partitioner(), str(folder))
        checkpointer.save(state)
        return
    manager = utils.create_orbax_checkpoint_manager(
        save_cfg=utils.SaveCheckpointConfig(save_dataset=False),
        train_state=jax.eval_shape(lambda: state),
        partitioner=partitioner(),
        model_dir=str(folder),
    )
    manager.save(state)
    manager.wait_until_finished()


@pytest.mark.parametrize("write", ["orbax", "t5x"])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_what_was_trained_is_a_checkpoint_of_ours(bases, tmp_path, gin_is_free, method, write):
    made = model(bases, "own_decoder", method)
    state = moved(begin(made))
    saved_run(made, state, tmp_path, write)
    name = type(method).__name__.lower()
    asked = ["convert", str(tmp_path / "checkpoint_0"), str(tmp_path / "ours"), "--method", name]
    settings = [f"--gin.{name}.{key}={value!r}" for key, value in dataclasses.asdict(method).items()]
    assert main([*asked, "--base", str(bases / "own_decoder"), *settings]) == 0
    found = load_tuned(tmp_path / "ours", Layout())
    tuned, base = parts(state)
    assert found.program.method == method
    jax.tree.map(np.testing.assert_array_equal, found.tuned, tuned)
    jax.tree.map(np.testing.assert_array_equal, found.base, base)


def test_a_run_that_began_at_random_is_a_checkpoint_of_ours(tmp_path, gin_is_free):
    size = ROOT / "gin_configs/models/cpu_ladder.gin"
    gin.parse_config_file(str(size))
    made = t5x_tuning.DecoderModel(Full(), VOCABULARY, optimizers.sgd(RATE), size="ladder_25k")
    state = begin(made, utils.TrainStateInitializer)
    saved_run(made, state, tmp_path, "orbax")
    asked = ["convert", str(tmp_path / "checkpoint_0"), str(tmp_path / "ours"), "--size", "ladder_25k"]
    assert main([*asked, "--gin_file", str(size)]) == 0
    config, params, _ = load_base(tmp_path / "ours", Layout())
    assert config == made.config
    jax.tree.map(np.testing.assert_array_equal, params, parts(state)[0])


def test_runs_that_do_not_fit_what_is_named(bases, tmp_path, gin_is_free, capsys):
    made = model(bases, "own_decoder", LoRA(rank=2))
    saved_run(made, begin(made), tmp_path, "orbax")
    other = jax.tree.map(np.array, cases.parameters("own_decoder"))
    other["embedding"]["table"][0, 0] += 1
    checkpoints.save(tmp_path / "other", other, checkpoints.about(bases / "own_decoder"))

    def refused(says, *flags, folder="checkpoint_0"):
        assert main(["convert", str(tmp_path / folder), str(tmp_path / "out"), *flags]) == 2
        assert re.search(says, capsys.readouterr().err)
        assert not (tmp_path / "out").exists()

    tuned = ("--method", "lora", "--base", str(bases / "own_decoder"))
    at_rank = "--gin.lora.rank=2"
    refused(r"what method 'lora' on .* has: misshapen: .*lora_a \[3, 24, 2\] for \[3, 24, 4\]", *tuned)
    of_another = (*tuned[:3], str(bases / "t5_gated"), at_rank)
    refused("method 'lora' on .* has: missing: .*decoder.*extra", *of_another)
    refused(
        r"not tuned from .*other: its frozen base has other values \(embedding.table\)",
        *(*tuned[:3], str(tmp_path / "other"), at_rank),
    )
    refused("no tuning method 'lara'; did you mean 'lora'", "--method", "lara", *tuned[2:])
    refused("--method needs --base", *tuned[:2])
    refused("--gin would have no effect for a whole model", at_rank)
    refused("--method would have no effect with --to adapter", *tuned, "--to", "adapter")
    refused("has a frozen base .*--base, and --method", "--size", "ladder_25k")
    refused("no T5X checkpoint: name a checkpoint_STEP", *tuned, folder="checkpoint_1")


@pytest.mark.parametrize("method", [LoRA(rank=2), BitFit()], ids=lambda method: type(method).__name__)
def test_starts_from_a_tuned_checkpoint(bases, tmp_path, method):
    start = moved(begin(model(bases, "own_decoder", method)))
    tuned, base = parts(start)
    about = checkpoints.about(bases / "own_decoder")
    about |= {"hash": checkpoints.tree_hash(base), "vocabulary_sha256": None}
    checkpoints.save(tmp_path / "base", base, about)
    recorded = {"name": type(method).__name__.lower(), **dataclasses.asdict(method)}
    below = {"path": str(tmp_path / "base"), "hash": about["hash"], "pretrain_tokens": None}
    checkpoints.save(tmp_path / "tuned", tuned, about | {"kind": "tuned", "method": recorded, "base": below})
    made = model(bases, "own_decoder", LoRA(rank=1), checkpoint=str(tmp_path / "tuned"))
    config, params, _ = load_base(tmp_path / "tuned", Layout())
    assert made.config == config
    _, found = parts(begin(made))
    jax.tree.map(np.testing.assert_array_equal, found, params)
    wanted = nats("own_decoder", method, tuned, base)
    _, batch = batches("own_decoder")
    scores = jax.jit(made.score_batch)(batch=batch, params=begin(made).params, flax_mutables={"base": found})
    np.testing.assert_allclose(-scores, wanted, rtol=2e-5)


def test_what_is_refused(bases, tmp_path):
    def refused(says, *args, **settings):
        with pytest.raises(InputError, match=says):
            model(bases, *args, **settings)

    refused("by size .* or by checkpoint", "own_decoder", Full(), size="ladder_25k")
    refused("use t5x_tuning.EncoderDecoderModel", "own_decoder", Full(), checkpoint=str(bases / "t5_gated"))
    refused("use t5x_tuning.DecoderModel", "t5_gated", Full(), checkpoint=str(bases / "own_decoder"))
    refused("no checkpoint", "own_decoder", Full(), checkpoint=str(tmp_path))
    refused(r"lora.targets: 'qeury' matches no projection", "own_decoder", LoRA(targets=("qeury",)))
    checkpoints.save(tmp_path / "kept", {"array": np.zeros(2)}, {"kind": "resume"})
    refused("a pretrained or tuned one is needed", "own_decoder", Full(), checkpoint=str(tmp_path / "kept"))
    made = model(bases, "own_decoder", LoRA())
    state = begin(made, utils.TrainStateInitializer)
    _, batch = batches("own_decoder")
    step = functools.partial(trainer.train_with_lr, model=made, num_microbatches=None)
    with pytest.raises(InputError, match="did not start from .*own_decoder: bind train.train_state_init"):
        step(state, batch, RATE, jax.random.PRNGKey(1))
    state = begin(made)
    with pytest.raises(InputError, match=r"packed .*decoder_segment_ids\): bind .*pack = False"):
        step(
            state,
            batch | {"decoder_segment_ids": batch["decoder_target_tokens"]},
            RATE,
            jax.random.PRNGKey(1),
        )


def write_what_the_docs_show(folder):
    """The files of the docs page, by the name in the first line of their block."""
    shown = re.findall(r"^```\w*\n# (\S+\.(?:gin|py))\n(.*?)^```", DOCS.read_text("utf-8"), re.M | re.S)
    for name, content in shown:
        (folder / name).write_text(content)
    return {name for name, _ in shown}


def train_by_t5x(folder, gin_file, steps, *bindings, devices=1):
    """T5X's own `train.py` in a process of its own; the losses that it logs, by step."""
    command = [sys.executable, "-m", "t5x.train", f"--gin_search_paths={ROOT / 'gin_configs'},."]
    command += [f"--gin_file={gin_file}", f"--gin.TRAIN_STEPS={steps}", f"--gin.MODEL_DIR='{folder}/run'"]
    command += [f"--gin.{binding}" for binding in bindings]
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{folder}", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    done = subprocess.run(
        [*command, "--logtostderr"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    logged = re.findall(
        r"\[(\d+)\] collection=train .*loss_per_nonpadding_target_token=([\d.]+)", done.stderr
    )
    return {int(step): float(loss) for step, loss in logged}


def saved_by_t5x(folder, step):
    path = folder / "run" / f"checkpoint_{step}" / "state"
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=True)) as checkpointer:
        tree = checkpointer.metadata(path).item_metadata.tree
        # Onto no device: there are fewer of them here.
        arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return checkpointer.restore(path, restore_args=arguments)


@pytest.mark.slow
def test_train_py_tunes_and_goes_on_over_two_devices(tmp_path):
    assert {"reversed_words.py", "words.gin", "full.gin", "lora.gin"} == write_what_the_docs_show(tmp_path)
    config = ModelConfig("base", 2, 2, 16, 32, 96, 260)
    params = tiny.parameters(config)
    about = {"kind": "pretrained", "model": dataclasses.asdict(config), "hash": checkpoints.tree_hash(params)}
    checkpoints.save(tmp_path / "base", params, about)
    bindings = ("BASE='base'", "utils.SaveCheckpointConfig.period=20", "train.eval_period=20")
    losses = train_by_t5x(tmp_path, "lora.gin", 20, *bindings, "train.stats_period=10")
    again = train_by_t5x(tmp_path, "lora.gin", 40, *bindings, "train.stats_period=10", devices=2)
    assert (list(losses), list(again)) == ([10, 20], [30, 40])
    assert losses[10] > losses[20] > again[40]
    states = [saved_by_t5x(tmp_path, step) for step in (0, 20, 40)]
    for state in states:
        jax.tree.map(np.testing.assert_array_equal, state["flax_mutables"]["base"], params)
    for before, after in itertools.pairwise(states):
        changed = jax.tree.map(lambda *both: not np.array_equal(*both), before["target"], after["target"])
        assert all(jax.tree.leaves(changed))
    tuned = {path[:-1] for path in traverse_util.flatten_dict(states[0]["state"]["param_states"])}
    assert tuned == set(traverse_util.flatten_dict(states[0]["target"]))
    assert {path[-1] for path in tuned} == {"lora_a", "lora_b"}
    (results,) = (tmp_path / "run").rglob("reversed_words-metrics.jsonl")
    assert "percent_right" in results.read_text()
    asked = ["convert", str(tmp_path / "run/checkpoint_40"), str(tmp_path / "ours"), "--method", "lora"]
    assert main([*asked, "--base", str(tmp_path / "base"), "--gin.lora.rank=8"]) == 0
    found = load_tuned(tmp_path / "ours", Layout())
    assert found.about["step"] == 40
    jax.tree.map(np.testing.assert_array_equal, found.tuned, states[2]["target"])


@pytest.mark.slow
def test_train_py_trains_a_new_decoder(tmp_path):
    write_what_the_docs_show(tmp_path)
    losses = train_by_t5x(tmp_path, "full.gin", 20)
    assert losses[20] < losses[10] - 1
