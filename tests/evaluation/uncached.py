"""Decoding as one would write it down: the whole sequence through the training forward pass for every
token, one prompt at a time, searches in plain Python."""

import jax
import numpy as np

from scaling_jax.models.model import arguments
from scaling_jax.training.mesh import Layout
from scaling_jax.training.optimizers import Optimizer
from scaling_jax.training.precision import stored_as
from scaling_jax.training.program import Program
from tests.models import tiny
from tests.tuning.made import moved

ONE = Layout()
START = 0
PROMPTS = [np.random.default_rng(5).integers(2, 48, length).astype(np.int32) for length in (3, 11, 5, 1, 7)]


def opened(config, method, dtype="float32", layout=ONE):
    """(program, tuned, base) with random parameters, those of the method too."""
    program = Program(config, method, Optimizer(), layout)
    base = jax.device_put(stored_as(tiny.parameters(config), dtype), program.shardings["params"])
    if method.trains_base:
        return program, base, {}
    state, frozen = program.start(base, 0)
    return program, moved(state.tuned), frozen


class Scores:
    """Scores of the next token from the whole forward pass of one padded sequence, compiled once."""

    def __init__(self, program, tuned, base, longest=40):
        self.model, self.longest = program.model, longest
        variables = program.method.variables(tuned, base)
        module = program.module

        def forward(batch):
            return module.apply(variables, **batch, method="logits")

        self.forward = jax.jit(forward)

    def __call__(self, prompt, written):
        """Float64 [vocabulary], log-probabilities after the prompt and what was written."""
        read = [START, *([] if self.model.encoder_layers else prompt), *written]
        inputs = np.zeros((1, self.longest), np.int32)
        inputs[0, : len(read)] = read
        batch = {"inputs": inputs}
        if self.model.encoder_layers:
            encoder_inputs = np.zeros((1, 16), np.int32)
            encoder_inputs[0, : len(prompt)] = prompt
            batch |= {"encoder_inputs": encoder_inputs, "encoder_mask": np.arange(16)[None] < len(prompt)}
        scores = np.asarray(self.forward(arguments(batch)), np.float64)[0, len(read) - 1]
        return scores - np.log(np.exp(scores - scores.max()).sum()) - scores.max()


def greedy(scores, prompt, length, eos):
    """(tokens without EOS, log-probability, finished)."""
    written, total = [], 0.0
    while len(written) < length:
        found = scores(prompt, written)
        token = int(found.argmax())
        total += found[token]
        if token == eos:
            return written, total, True
        written.append(token)
    return written, total, False


def penalty(tokens, alpha):
    return ((5 + tokens) / 6) ** alpha


def beam(scores, prompt, length, eos, beams, alpha):
    """(tokens without EOS, normed log-probability, finished)."""
    live, done = [(0.0, [])], []
    for count in range(1, length + 1):
        extended = []
        for total, written in live:
            found = scores(prompt, written)
            extended += [(total + found[token], [*written, token]) for token in range(len(found))]
        extended = sorted(extended, key=lambda one: -one[0])[: 2 * beams]
        for total, written in extended[:beams]:
            if written[-1] == eos or count == length:
                done.append((total / penalty(count, alpha), written))
        done = sorted(done, key=lambda one: -one[0])[:beams]
        live = [one for one in extended if one[1][-1] != eos][:beams]
        if len(done) == beams and live[0][0] / penalty(length, alpha) <= done[-1][0]:
            break
    total, written = done[0]
    finished = written[-1] == eos
    return written[:-1] if finished else written, total, finished
