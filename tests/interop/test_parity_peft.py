"""Our adapters in Hugging Face's peft and peft's in ours, in one process (`make parity`; needs torch)."""

import functools

import jax
import numpy as np
import pytest

from scaling_jax.interop import adapters, hugging_face
from scaling_jax.interop.adapter_settings import scales_input, targeted
from scaling_jax.interop.adapters_reading import _places, read_adapter
from scaling_jax.models.model import arguments, model_of
from scaling_jax.training.mesh import Layout
from scaling_jax.training.optimizers import Optimizer
from scaling_jax.training.program import Program
from scaling_jax.tuning.lora import LoRA
from scaling_jax.tuning.selection import PROJECTIONS
from tests.interop import cases
from tests.interop.test_adapters import LLAMA, METHODS, T5, tuned_tree

torch = pytest.importorskip("torch", reason="the extra `parity` is not installed")
transformers = pytest.importorskip("transformers", reason="the extra `parity` is not installed")
peft = pytest.importorskip("peft", reason="the extra `parity` is not installed")
pytestmark = pytest.mark.parity

KINDS = {
    "llama": transformers.LlamaForCausalLM,
    "own_decoder": transformers.LlamaForCausalLM,
    "t5": transformers.T5ForConditionalGeneration,
}


def their_base(case, folder):
    if not folder.exists():
        hugging_face.write_model(folder, cases.CASES[case], cases.parameters(case))
    kind = KINDS["own_decoder" if case == "own_decoder" else case.split("_")[0]]
    return kind.from_pretrained(folder, dtype=torch.float32).eval()


def their_arguments(given):
    tensors = {name: torch.tensor(array) for name, array in given.items()}
    if "encoder_inputs" not in tensors:
        return {"input_ids": tensors["inputs"].long(), "attention_mask": torch.ones_like(tensors["inputs"])}
    return {
        "input_ids": tensors["encoder_inputs"].long(),
        "attention_mask": tensors["encoder_mask"].long(),
        "decoder_input_ids": tensors["inputs"].long(),
    }


def their_logits(model, given):
    """Without the positions of a prompt."""
    found = model(**their_arguments(given)).logits
    return found[:, found.shape[1] - given["inputs"].shape[1] :]


def our_logits(model, method, tuned, params, given):
    apply = jax.jit(functools.partial(model_of(model, method).apply, method="logits"))
    held = {name: array for name, array in arguments(given).items() if name != "targets"}
    return np.asarray(apply(method.variables(tuned, params), **held))


@pytest.mark.parametrize("name", METHODS)
def test_peft_computes_what_we_export(tmp_path, name):
    case, method = METHODS[name]
    model, params = cases.CASES[case], cases.parameters(case)
    given, tuned = cases.batch(model), tuned_tree(model, method)
    adapters.write_adapter(tmp_path / "a", model, method, tuned, str(tmp_path / "base"))
    base = their_base(case, tmp_path / "base")
    before = their_logits(base, given).detach().numpy()
    with torch.no_grad():
        theirs = their_logits(peft.PeftModel.from_pretrained(base, tmp_path / "a").eval(), given).numpy()
    np.testing.assert_allclose(our_logits(model, method, tuned, params, given), theirs, atol=1e-4)
    assert np.abs(theirs - before).max() > 0.1, "the adapter does something"


THEIRS = {
    "lora": (LLAMA, lambda: peft.LoraConfig(r=3, lora_alpha=7, target_modules=["q_proj", "up_proj"])),
    "lora_rank_stabilised": (
        LLAMA,
        lambda: peft.LoraConfig(
            r=4,
            lora_alpha=6,
            use_rslora=True,
            target_modules=["k_proj", "down_proj"],
            layers_to_transform=[1],
        ),
    ),
    "lora_t5": (T5, lambda: peft.LoraConfig(r=2, target_modules=["q", "v"], task_type="SEQ_2_SEQ_LM")),
    "ia3": (LLAMA, lambda: peft.IA3Config(task_type="CAUSAL_LM")),
    "prompt": (LLAMA, lambda: peft.PromptTuningConfig(num_virtual_tokens=6, task_type="CAUSAL_LM")),
    "prompt_t5": (T5, lambda: peft.PromptTuningConfig(num_virtual_tokens=3, task_type="SEQ_2_SEQ_LM")),
}


@pytest.mark.parametrize("name", THEIRS)
def test_we_compute_what_peft_saves(tmp_path, name):
    case, make = THEIRS[name]
    model, given = cases.CASES[case], cases.batch(cases.CASES[case])
    torch.manual_seed(0)
    theirs = peft.get_peft_model(their_base(case, tmp_path / "base"), make()).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter += 0.2 * torch.randn_like(parameter)
        wanted = their_logits(theirs, given).numpy()
    theirs.save_pretrained(tmp_path / "a")
    found = read_adapter(tmp_path / "a", model)
    ours = our_logits(model, found.method, found.tuned, cases.parameters(case), given)
    np.testing.assert_allclose(ours, wanted, atol=1e-4)


@pytest.mark.parametrize("case", [LLAMA, T5])
@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q_proj", "o", "wo"]},
        {"target_modules": ["proj"]},
        {"target_modules": r".*\.(q|k_proj|wi_0)"},
        {"target_modules": ["q", "up_proj", "v_proj"], "layers_to_transform": [1, 2]},
        {"target_modules": ["q", "up_proj"], "layers_to_transform": 0},
        {
            "target_modules": ["q", "v", "wo", "down_proj"],
            "layers_to_transform": [1],
            "layers_pattern": "layer",
        },
        {
            "target_modules": ["q", "down_proj"],
            "layers_to_transform": [2],
            "layers_pattern": ["layers", "block"],
        },
        {
            "target_modules": ["q", "q_proj"],
            "exclude_modules": ["SelfAttention.q", "layers.0.self_attn.q_proj"],
        },
        {"target_modules": ["q", "q_proj"], "exclude_modules": r".*\.0\..*"},
    ],
)
def test_modules_are_those_that_peft_takes(case, settings):
    from peft.tuners.tuners_utils import check_target_module_exists

    every = list(_places(cases.CASES[case]))
    config = peft.LoraConfig(**settings)
    wanted = {module for module in every if check_target_module_exists(config, module)}
    assert targeted(settings, every) == wanted
    scaling = {"feedforward_modules": settings["target_modules"]}
    for module in every:
        theirs = peft.IA3Model._check_target_module_feedforward(
            peft.IA3Config(**settings_of(scaling)), module
        )
        assert scales_input(module, scaling) == theirs


def settings_of(scaling):
    return scaling | {"target_modules": scaling["feedforward_modules"]}


@pytest.mark.parametrize("case", cases.CASES)
def test_logits_after_a_step_of_lora(tmp_path, case):
    rate, epsilon = 1e-2, 1e-3
    model, given = cases.CASES[case], cases.batch(cases.CASES[case])
    targets = tuple(name for name in PROJECTIONS if name != "gate" or model.feed_forward == "gated")
    method = LoRA(rank=2, alpha=6.0, targets=targets)  # without dropout, which draws differently there
    program = Program(model, method, Optimizer("adamw", beta1=0.9, beta2=0.95, epsilon=epsilon), Layout())
    state, base = program.start(jax.device_put(cases.parameters(case), program.shardings["params"]), 0)
    adapters.write_adapter(tmp_path / "a", model, method, state.tuned, "base")
    theirs = peft.PeftModel.from_pretrained(
        their_base(case, tmp_path / "base"), tmp_path / "a", is_trainable=True
    ).eval()
    trained = [parameter for parameter in theirs.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, betas=(0.9, 0.95), eps=epsilon, weight_decay=0.0)
    for _ in range(2):  # the first moves B alone, the second A too
        nats = torch.nn.functional.cross_entropy(
            their_logits(theirs, given).transpose(1, 2),
            torch.tensor(given["targets"]).long(),
            reduction="none",
        )
        weights = torch.tensor(given["weights"])
        optimizer.zero_grad()
        ((nats * weights).sum() / weights.sum()).backward()
        optimizer.step()
    steps = {name: np.stack([array, array]) for name, array in given.items()}
    before = our_logits(model, method, state.tuned, cases.parameters(case), given)
    state, _ = program.train(state, base, steps, np.full(2, rate, np.float32))
    after = our_logits(model, method, state.tuned, cases.parameters(case), given)
    np.testing.assert_allclose(after, their_logits(theirs, given).detach().numpy(), atol=1e-4)
    assert np.abs(after - before).max() > 0.05
