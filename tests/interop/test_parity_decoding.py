"""What we write beside what transformers.generate writes (`make parity`; needs torch)."""

import json

import jax
import numpy as np
import pytest

from scaling_jax.data.store import VocabularyFile
from scaling_jax.evaluation.decoding import Decoding, generate
from scaling_jax.interop import hugging_face
from scaling_jax.training.mesh import Layout
from scaling_jax.training.optimizers import Optimizer
from scaling_jax.training.program import Program
from scaling_jax.tuning.full import Full
from tests.interop import cases

torch = pytest.importorskip("torch", reason="the extra `parity` is not installed")
transformers = pytest.importorskip("transformers", reason="the extra `parity` is not installed")
pytestmark = pytest.mark.parity

NEW, START = 14, 0
PROMPTS = [np.random.default_rng(2).integers(2, 48, count).astype(np.int32) for count in (4, 9, 6, 2, 13)]
# Without a length penalty both are the same search: sums are compared, and it stops when no sequence that
# lives can become better.
SEARCHES = {
    "greedy": (Decoding("greedy", NEW), {}),
    "beam": (
        Decoding("beam", NEW, beams=4, length_penalty=0.0),
        {"num_beams": 4, "length_penalty": 0.0, "early_stopping": "never"},
    ),
}


def theirs(folder, config, settings, eos):
    """Tokens up to EOS from transformers, prompts padded on the left or read by the encoder."""
    kind = json.loads((folder / "config.json").read_text())["architectures"][0]
    model = getattr(transformers, kind).from_pretrained(folder, dtype=torch.float32).eval()
    read = PROMPTS if config.encoder_layers else [np.array([START, *prompt]) for prompt in PROMPTS]
    longest = max(map(len, read))
    ids, mask = np.zeros((len(read), longest), np.int64), np.zeros((len(read), longest), np.int64)
    for row, prompt in enumerate(read):
        ids[row, longest - len(prompt) :], mask[row, longest - len(prompt) :] = prompt, 1
    if config.encoder_layers:
        settings = settings | {"decoder_start_token_id": START}
        for row, prompt in enumerate(read):  # an encoder counts positions from the left
            ids[row], mask[row] = 0, 0
            ids[row, : len(prompt)], mask[row, : len(prompt)] = prompt, 1
    with torch.no_grad():
        found = model.generate(
            torch.tensor(ids),
            attention_mask=torch.tensor(mask),
            max_new_tokens=NEW,
            do_sample=False,
            eos_token_id=eos,
            pad_token_id=0,
            **settings,
        )
    begin = 1 if config.encoder_layers else longest
    rows = [row[begin:].tolist() for row in found.numpy()]
    return [row[: row.index(eos)] if eos in row else row for row in rows]


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("name", ["llama_grouped_query", "llama_biases", "t5_gated"])
def test_tokens(tmp_path, name, search):
    config, parameters = cases.CASES[name], cases.parameters(name)
    hugging_face.write_model(tmp_path / name, config, parameters)
    decoding, settings = SEARCHES[search]
    program = Program(config, Full(), Optimizer(), Layout())
    tuned = jax.device_put(parameters, program.shardings["params"])

    def ours(eos):
        return generate(program, tuned, {}, PROMPTS, decoding, VocabularyFile("bytes", 48, eos_id=eos), START)

    # A token that about half of the sequences reach serves as EOS.
    free = [set(one.tokens[1:].tolist()) for one in ours(48)]
    eos = min(set.union(*free) - {0}, key=lambda token: abs(sum(token in held for held in free) - 2.5))
    found, wanted = ours(eos), theirs(tmp_path / name, config, settings, eos)
    assert [one.tokens.tolist() for one in found] == [row[:NEW] for row in wanted]
    assert any(one.finished for one in found)
