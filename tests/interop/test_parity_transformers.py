"""Our models beside Hugging Face transformers in one process (`make parity`; needs torch)."""

import json

import jax
import numpy as np
import pytest

from scaling_jax.errors import InputError
from scaling_jax.interop import hugging_face, reading, tensor_files
from scaling_jax.models.positions import distance_buckets
from scaling_jax.training.mesh import Layout
from scaling_jax.training.optimizers import Optimizer
from scaling_jax.training.program import Program
from scaling_jax.tuning.bitfit import BitFit
from scaling_jax.tuning.full import Full
from tests.interop import cases
from tests.interop.damage import damaged, rewrite
from tests.interop.test_adapters import tuned_tree

torch = pytest.importorskip("torch", reason="the extra `parity` is not installed")
transformers = pytest.importorskip("transformers", reason="the extra `parity` is not installed")
pytestmark = pytest.mark.parity


def load(folder):
    """The transformers model of a folder, in float32, without dropout."""
    kind = json.loads((folder / "config.json").read_text())["architectures"][0]
    return getattr(transformers, kind).from_pretrained(folder, dtype=torch.float32).eval()


def written(name, folder):
    hugging_face.write_model(folder / name, cases.CASES[name], cases.parameters(name))
    return folder / name


def their_arguments(given):
    tensors = {name: torch.tensor(array) for name, array in given.items()}
    if "encoder_inputs" not in tensors:
        return {"input_ids": tensors["inputs"].long()}
    return {
        "input_ids": tensors["encoder_inputs"].long(),
        "attention_mask": tensors["encoder_mask"].long(),
        "decoder_input_ids": tensors["inputs"].long(),
    }


def their_logits(model, given):
    with torch.no_grad():
        return model(**their_arguments(given)).logits.numpy()


@pytest.mark.parametrize("name", cases.CASES)
def test_logits_of_what_we_write(tmp_path, name):
    given = cases.batch(cases.CASES[name])
    theirs = their_logits(load(written(name, tmp_path)), given)
    ours = cases.logits(cases.CASES[name], cases.parameters(name), given)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    np.testing.assert_allclose(cases.golden()[name], cases.seen(theirs), atol=1e-5)


@pytest.mark.parametrize("name", cases.CASES)
def test_logits_of_what_they_write(tmp_path, name):
    """The same through transformers' own config.json and safetensors files."""
    model = load(written(name, tmp_path))
    model.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    folder = hugging_face.open_model(tmp_path / "theirs")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    given = cases.batch(folder.model)
    ours = cases.logits(folder.model, reading.read_parameters(folder), given)
    np.testing.assert_allclose(ours, their_logits(model, given), atol=1e-4)


@pytest.mark.parametrize("name", cases.CASES)
def test_logits_after_a_step_of_full_tuning(tmp_path, name):
    # A larger rate or a smaller epsilon amplifies rounding: transformers in float32 and in float64 then
    # differ by more than the tolerance too.
    rate, epsilon = 1e-3, 1e-3
    folder = hugging_face.open_model(written(name, tmp_path))
    config, model = folder.model, load(folder.path)
    given = cases.batch(config)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=rate, betas=(0.9, 0.95), eps=epsilon, weight_decay=0.1
    )
    found = model(**their_arguments(given)).logits
    nats = torch.nn.functional.cross_entropy(
        found.transpose(1, 2), torch.tensor(given["targets"]).long(), reduction="none"
    )
    weights = torch.tensor(given["weights"])
    loss = (nats * weights).sum() / weights.sum()
    loss.backward()
    optimizer.step()

    ours = Optimizer("adamw", beta1=0.9, beta2=0.95, epsilon=epsilon, weight_decay=0.1)
    program = Program(config, Full(), ours, Layout())
    state, base = program.start(reading.read_parameters(folder, program.shardings["params"]), 0)
    steps = {key: array[None] for key, array in given.items()}
    state, metrics = program.train(state, base, steps, np.full(1, rate, np.float32))
    np.testing.assert_allclose(metrics["loss"][0], loss.item(), rtol=1e-5)
    after = cases.logits(config, state.tuned, given)
    np.testing.assert_allclose(after, their_logits(model, given), atol=1e-4)
    assert np.abs(after - found.detach().numpy()).max() > 0.1, "nothing was trained"


@pytest.mark.parametrize("causal", [True, False])
def test_every_distance_has_their_bucket(causal):
    from transformers.models.t5.modeling_t5 import T5Attention

    distances = torch.arange(-2047, 2048)
    theirs = T5Attention._relative_position_bucket(distances, not causal, 32, 128).numpy()
    np.testing.assert_array_equal(distance_buckets(2048, causal, 32, 128), theirs)


def test_tensor_files_are_those_of_the_library(tmp_path):
    from safetensors.numpy import load_file, save_file

    generator = np.random.default_rng(0)
    arrays = {
        "a": generator.normal(size=(3, 5)).astype(np.float32),
        "b.c": generator.integers(0, 9, (2, 2, 2)),
        "d": np.float64(generator.normal(size=(7,))),
        "e": generator.normal(size=(4,)).astype(np.float16),
    }
    save_file(arrays, tmp_path / "theirs.safetensors")
    for name, tensor in tensor_files.open_file(tmp_path / "theirs.safetensors").items():
        np.testing.assert_array_equal(tensor.read(), arrays[name])
    new = [
        tensor_files.NewTensor(name, array.dtype, array.shape, lambda array=array: array)
        for name, array in arrays.items()
    ]
    tensor_files.write_folder(tmp_path, new, 1 << 20)
    back = load_file(tmp_path / "model.safetensors")
    assert back.keys() == arrays.keys()
    jax.tree.map(np.testing.assert_array_equal, back, arrays)


@pytest.mark.parametrize("damage", [None, "overlap", "same", "hole", "hole_first", "after", "beyond"])
def test_the_library_refuses_what_we_refuse(tmp_path, damage):
    import safetensors
    from safetensors.numpy import load_file

    rewrite(tmp_path, *damaged(damage))
    file = tmp_path / "model.safetensors"
    if damage is None:
        for name, array in load_file(file).items():
            np.testing.assert_array_equal(tensor_files.open_file(file)[name].read(), array)
        return
    with pytest.raises(safetensors.SafetensorError):
        load_file(file)
    with pytest.raises(InputError):
        tensor_files.open_file(file)


@pytest.mark.parametrize("targets", [("query", "value"), ("down",), ("out", "up")])
@pytest.mark.parametrize("name", ["llama_grouped_query", "own_decoder"])
def test_biases_of_some_projections_alone(tmp_path, name, targets):
    """What BitFit merged, where a LLaMA of theirs has biases on all of a block or on none."""
    method, config = BitFit(targets=targets), cases.CASES[name]
    merged = method.merged_model(config)
    assert merged.biases == targets
    params = jax.jit(method.merge)(tuned_tree(config, method), cases.parameters(name))
    hugging_face.write_model(tmp_path / "m", merged, params)
    given = cases.batch(config)
    theirs = their_logits(load(tmp_path / "m"), given)
    np.testing.assert_allclose(cases.logits(merged, params, given), theirs, atol=1e-4)
    assert np.abs(theirs - cases.logits(config, cases.parameters(name), given)).max() > 0.1
    folder = hugging_face.open_model(tmp_path / "m")
    ours = cases.logits(folder.model, reading.read_parameters(folder), given)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def write_golden(folder):
    """Writes the golden file anew from the transformers at hand."""
    kept = {}
    for name, config in cases.CASES.items():
        found = their_logits(load(written(name, folder)), cases.batch(config))
        kept[name] = [[[round(float(x), 5) for x in row] for row in part] for part in cases.seen(found)]
    note = f"transformers {transformers.__version__}, torch {torch.__version__}"
    cases.GOLDEN.write_text(json.dumps({"made_with": note, "logits": kept}) + "\n")


if __name__ == "__main__":
    import tempfile
    from pathlib import Path

    write_golden(Path(tempfile.mkdtemp()))
