"""Rows of models that were not pretrained: kept in the table, left out of laws in the logarithm of tokens."""

import numpy as np
import pytest

from scaling_jax.decisions.study_fits import study_plan
from scaling_jax.errors import InputError
from scaling_jax.laws.factors import NOT_PRETRAINED, told_apart
from scaling_jax.laws.fit import Settings, fit_table
from scaling_jax.laws.joint import fit_joint
from scaling_jax.laws.table import table_of

QUICK = Settings(bootstrap=20)


def rows(mixtures=("a", "b")):
    levels = [("", 0), *((mixture, 1000 * 2**power) for mixture in mixtures for power in range(5))]
    return [
        {
            "task": "t",
            "method": "full",
            "model": "m",
            "non_embedding_params": 1000,
            "pretrain_mixture": mixture,
            "pretrain_tokens": tokens,
            "finetune_examples": examples,
            "loss": 1 + 5 * max(tokens, 500) ** -0.3 * examples**-0.1,
        }
        for mixture, tokens in levels
        for examples in (100, 200, 400, 800)
    ]


def table(found):
    return table_of("results.csv", {name: [row[name] for row in found] for name in found[0]})


def test_a_law_in_tokens_says_what_it_leaves_out():
    found = [row for row in rows(("a",)) if row["finetune_examples"] == 100]
    (fit,) = fit_table(table(found), "power", {"d": "pretrain_tokens"}, settings=QUICK)
    assert fit.rows == {"fitted": 5, "held_out": 0, "dropped": 1}
    assert fit.dropped_reasons == {NOT_PRETRAINED: 1}
    assert fit.parameters["beta"] == pytest.approx(0.3, abs=1e-3)


def test_a_group_of_them_alone_is_named_and_stops_no_other():
    found = [row for row in rows() if row["finetune_examples"] == 100]
    columns, by = {"d": "pretrain_tokens"}, ("pretrain_mixture",)
    fits = fit_table(table(found), "power", columns, by=by, settings=QUICK)
    assert [fit.group["pretrain_mixture"] for fit in fits] == ["a", "b"]
    assert "no row to use where pretrain_mixture is ''" in " ".join(fits[0].notes)


def test_a_law_in_examples_takes_them():
    found = [row for row in rows() if row["pretrain_tokens"] == 0]
    (fit,) = fit_table(table(found), "power", {"d": "finetune_examples"}, settings=QUICK)
    assert fit.rows["fitted"] == 4


def test_a_study_s_laws_keep_mixtures_apart():
    plans = study_plan(table(rows()), None)
    assert {plan.group["task"] for plan in plans} == {"t@not_pretrained", "t@a", "t@b"}
    for plan in plans:
        if plan.factor == "pretraining":
            assert plan.reason is None and np.all(plan.rows.numbers("pretrain_tokens") > 0)


def test_the_joint_recipe_mixes_no_mixtures():
    with pytest.raises(InputError, match="'pretrain_mixture' varies in the group task=t, method=full"):
        fit_joint(table(rows()))
    fits = fit_joint(table(rows(("a",))), settings=QUICK)
    assert [fit.group["factor"] for fit in fits] == ["pretraining"]


def test_names_of_tasks():
    one = told_apart(["t", "t"], ["a", ""], ["", ""], ["5", "0"], {"a", ""})
    assert one == ["t", "t"]
    many = told_apart(["t", "t", "t"], ["a", "", "b"], ["", "", "full-d8"], ["5", "0", "5"], {"a", "b", ""})
    assert many == ["t@a", "t@not_pretrained", "t@b@after-full-d8"]
