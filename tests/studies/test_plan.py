"""A study is refused before any run where its results could not be read."""

import pytest

from scaling_jax.errors import InputError
from scaling_jax.evaluation.evaluations import Evaluation
from scaling_jax.studies.plan import Study


@pytest.mark.parametrize(
    ("hold_out", "said"),
    [
        ("finetune_examples = 4096", "Study.hold_out: 'finetune_examples = 4096' is not an expression"),
        ("finetune_example == 4096", "no column 'finetune_example'; did you mean 'finetune_examples'?"),
    ],
)
def test_a_hold_out_that_could_not_be_read(hold_out, said):
    with pytest.raises(InputError, match="Study.hold_out") as refused:
        Study("s", [], hold_out)
    assert said in str(refused.value)


def test_a_hold_out_over_lines_and_over_what_an_evaluation_measures():
    Study("s", [], "\nfinetune_examples == 4096 or\nreverse_loss > 9\n", evaluations=[Evaluation("reverse")])
