"""A page with a recommendation begins with it, and shows who was compared, at what cost, and why."""

import pytest

from scaling_jax import files
from scaling_jax.decisions.limits import Limits
from scaling_jax.decisions.recommendation import recommend
from scaling_jax.decisions.recommendation_text import to_json
from scaling_jax.errors import InputError
from scaling_jax.laws.results import read_fits
from scaling_jax.laws.table import read_table
from scaling_jax.reports.build import build_report
from tests.reports import simulated_study
from tests.reports.test_build import Page

AT = {"finetune_examples": 6e4, "non_embedding_params": 1_020_000.0}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = simulated_study.write_study(tmp_path_factory.mktemp("study") / "study")
    simulated_study.write_made_fits(folder)
    return folder


def advise(study, limits=None):
    """Puts a recommendation into decision.json; returns it."""
    fits = [fit for fit in read_fits(study / "fits.json") if _by_model_size(fit)]
    found = to_json(recommend(fits, AT, limits or Limits(), read_table(study / "results.csv")))
    known = files.read_json(study / "decision.json")
    files.write_json(study / "decision.json", known | {"recommendation": found})
    return found


def _by_model_size(fit) -> bool:
    return (fit.law, fit.columns.get("x")) == ("multiplicative", "non_embedding_params")


def test_the_page_begins_with_the_advice_and_the_usual_answer_follows(study):
    before = Page(build_report(study).read_text("utf-8")).headings[0]
    found = advise(study)
    text = build_report(study).read_text("utf-8")
    page = Page(text)
    assert "60k finetuning examples take full tuning: test loss" in page.headings[0] != before
    assert (found["status"], found["choice"]) == ("clear", "full")
    assert f'<p class="lead">{before}' in text
    assert "#recommendation" in page.links and "recommendation" in page.ids
    assert page.headings[1] == "Which method to take"
    assert "Best with probability" in text and "Training, hours" in text
    for gain in found["gains"]:
        assert gain["change"] in text.lower()
    assert "What published studies would advise (not these runs)" in text


def test_methods_that_limits_leave_out_are_named(study):
    found = advise(study, Limits(memory_gib=1e-6))
    text = build_report(study).read_text("utf-8")
    assert found["choice"] is None and found["status"] == "no method fits"
    assert "the limit is 1e-06" in text and "would admit" in Page(text).headings[0]
    assert text.count(">excluded<") == len(found["candidates"])


def test_a_damaged_recommendation_is_refused_by_its_key(study):
    known = files.read_json(study / "decision.json")
    files.write_json(study / "decision.json", known | {"recommendation": {"text": "Take it.", "at": {}}})
    with pytest.raises(InputError, match="decision.json: the recommendation has no 'choice'"):
        build_report(study)
    files.write_json(study / "decision.json", known)
