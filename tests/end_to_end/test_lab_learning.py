"""The lab as a yardstick: what trained models reach, beside the entropy that is known exactly."""

import pytest

from scaling_jax import configuration
from scaling_jax.cli.main import main
from scaling_jax.data.store import open_store
from scaling_jax.training.finetune import FinetuneRun, finetune
from scaling_jax.training.pretrain import pretrain

pytestmark = pytest.mark.slow

LEVELS = (65_536, 819_200)
# Nats per target token above the oracle's loss on the same test sentences.
MARGIN = 0.03

BINDINGS = [
    "lab.concepts = 64",
    "lab.adjective_probability = 0.15",
    "lab.adverb_probability = 0.15",
    "lab_text.bilingual_share = 0.5",
    "lab_text.documents = {'train': 30000, 'dev': 300, 'test': 300}",
    "lab_translation.examples = {'train': 30000, 'dev': 500, 'test': 1000}",
    "FinetuneSettings.patience = 0",
    "FinetuneSettings.test_examples = None",
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    gin_flags = [part for binding in BINDINGS for part in ("--gin", binding)]
    quickstart = ["--gin_file", "gin_configs/studies/quickstart.gin"]
    everything = ["--gin_import", "scaling_jax.studies.configurables"]
    assert main(["prepare", *everything, *quickstart, *gin_flags, "--out", str(folder)]) == 0
    configuration.parse(quickstart[1:], BINDINGS, imports=[everything[1]])
    pretrain("ladder_120k", str(folder / "pretrain"), LEVELS, 0, folder / "base")
    return folder


def tuned_loss(lab, tokens: int, examples: int, **bindings) -> float:
    configuration.parse(
        ["gin_configs/studies/quickstart.gin"],
        [*BINDINGS, *(f"FinetuneSettings.{name} = {value}" for name, value in bindings.items())],
        imports=["scaling_jax.studies.configurables"],
    )
    base = str(lab / "base" / "checkpoints" / str(tokens))
    run = FinetuneRun(base, str(lab / "finetune"), "full", examples, learning_rate=1e-2)
    folder = lab / f"tuned-{tokens}-{examples}-{len(bindings)}"
    return finetune(run, folder)["results"]["loss"]


def test_pretraining_lowers_the_loss_reached_with_1000_pairs(lab):
    little, much = (tuned_loss(lab, tokens, 1000) for tokens in LEVELS)
    assert much < little - 0.1


def test_long_training_comes_near_the_entropy_and_never_below(lab):
    facts = open_store(lab / "finetune").manifest["facts"]
    oracle, entropy = facts["oracle_loss"]["test"], facts["entropy_per_target_token"]["test"]
    schedule = {"max_steps": 3000, "batch_size": 32, "eval_interval": 100, "schedule": "@pretrain/Schedule()"}
    loss = tuned_loss(lab, LEVELS[-1], 30_000, **schedule)
    assert abs(oracle - entropy) < 0.02  # the test sentences are typical of the language
    assert oracle < loss < oracle + MARGIN
