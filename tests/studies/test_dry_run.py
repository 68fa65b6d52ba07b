"""Plans of studies printed without data: those of the papers, assumptions, bindings that nothing reads."""

import re

import gin
import jax
import pytest

from scaling_jax import configuration
from scaling_jax.errors import InputError
from scaling_jax.models.config import ModelConfig
from scaling_jax.studies import memory
from scaling_jax.studies.dry_run import describe
from scaling_jax.studies.plan import Study
from scaling_jax.studies.worker import CONFIGURABLES
from scaling_jax.training.mesh import Layout
from scaling_jax.training.optimizers import Optimizer
from scaling_jax.training.program import Program
from scaling_jax.tuning.full import Full
from scaling_jax.tuning.lora import LoRA
from tests.studies.small_study import write_gin, write_stores

STUDIES = "gin_configs/studies"


@pytest.fixture(autouse=True)
def no_bindings_left():
    yield
    gin.clear_config()


def plan(tmp_path, name: str, *bindings: str) -> str:
    configuration.parse([f"{STUDIES}/{name}.gin"], bindings, imports=[CONFIGURABLES])
    return describe(configuration.call(Study), tmp_path / "nowhere")


def test_sun2023_needs_neither_data_nor_models(tmp_path):
    text = plan(tmp_path, "sun2023")
    assert "8 finetuning runs" in text and "belle: not prepared; 1024 tokens an example, the most" in text
    assert "its model is taken to be 'llama_7b' of the gin files" in text and "6,738,415,616" in text
    assert "full_math of llama_7b after belle-full-d2000000 on math: 1 run, 1 seed" in text
    assert "evaluation belle: 8 tuned models, judge" in text


def test_pu2023_needs_neither_data_nor_models(tmp_path):
    text = plan(tmp_path, "pu2023")
    assert "120 finetuning runs" in text and "samsum: not prepared; 640 tokens an example, the most" in text
    assert "its model is taken to be 'flan_t5_xl' of the gin files" in text and "2,849,757,184" in text
    assert "ia3_feed_forward of flan_t5_xl on cola" in text


def test_isik2024_has_the_mixtures_and_sizes_of_the_paper(tmp_path):
    text = plan(tmp_path, "isik2024")
    assert "pretrain-t5_3b-en50_de50: 131,072,000,000 tokens (50% mono_en, 50% mono_de)" in text
    assert "pretrain-t5_3b-ro: 66,846,720,000 tokens" in text
    assert "full of t5_3b on en_de" in text and "300 steps of 128" in text
    assert "evaluation task" in text and "bleu, chrf on all examples of test" in text
    assert "days of one accelerator" in text


def test_the_small_study_of_mixtures(tmp_path):
    text = plan(tmp_path, "isik_small")
    assert "46 finetuning runs" in text and "en30_de70" in text
    assert "vocabulary: 2,064 pieces, as bound" in text
    assert "core-minutes" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zhang2024_en_de", "zhang2024_en_zh", "zhang2024_mlsum"])
def test_zhang2024(tmp_path, name):
    text = plan(tmp_path, name)
    assert "decoder_16b" in text and "lora of 128" in text and "prompt of 600" in text
    kept = re.search(r"checkpoints: roughly (\S+) GiB of pretrained models, roughly (\S+) GiB of tuned", text)
    # Models of 1 to 16B in float32, and of tuned ones only what LoRA and prompts train.
    assert float(kept[1]) > 4 * 31e9 / 2**30 and float(kept[2]) < 50
    assert "models before they are tuned" in text


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("lorra/FinetuneSettings.learning_rate = 0.1", "nothing of this study is called 'lorra'"),
        ("ladder_52k/decoder_config.remat = 'full'", None),
        ("lora/lora_lst/FinetuneSettings.batch_size = 2", None),
        ("pretrian/Schedule.shape = 'cosine'", "did you mean 'pretrain'"),
    ],
)
def test_bindings_that_nothing_reads_are_named(tmp_path, binding, message):
    stores = write_stores(tmp_path / "stores")
    gin_file = write_gin(tmp_path / "study.gin", stores)
    own = "PretrainSettings.schedule = @pretrain/Schedule()"
    configuration.parse([str(gin_file)], [own, binding], imports=[CONFIGURABLES])
    study = configuration.call(Study)
    if message is None:  # a model or a variant that is defined and not used is no mistake
        assert "36 finetuning runs" in describe(study, tmp_path / "out")
        return
    with pytest.raises(InputError, match=message):
        describe(study, tmp_path / "out")


@pytest.mark.parametrize("method", [Full(), LoRA(rank=2)])
@pytest.mark.parametrize("name", ["adafactor", "adamw"])
def test_memory_between_steps_is_that_of_the_arrays(method, name):
    model = ModelConfig("m", 2, 2, 8, 16, 32, 48)
    optimizer = Optimizer(name)
    program = Program(model, method, optimizer, Layout())
    state, frozen = program.start(program.initial_parameters(0), 0)
    tuned, state, frozen = (
        sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) for tree in (state.tuned, state.optimizer, frozen)
    )
    rough = memory.job_bytes(model, method, optimizer, 0.0)
    assert rough == 2 * tuned + state + frozen
