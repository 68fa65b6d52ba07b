"""The design of a pilot: its information, its search, and what it refuses. No training."""

import dataclasses
import itertools

import numpy as np
import pytest

from scaling_jax.decisions import pilot_rounds
from scaling_jax.decisions.beliefs import Noise, Rows, chances, forecast, prior_of, updated, updated_all
from scaling_jax.decisions.pilot_design import (
    BudgetTooSmall,
    Candidates,
    Problem,
    described,
    design,
    even_ladders,
    is_enough,
    ladder,
)
from scaling_jax.laws.law import find_law

METHODS = ("full", "lora")
SIZES = ladder(4096, 32, 2.0)
CENTRE = {"d": float(np.sqrt(SIZES[0] * SIZES[-1]))}
POWER = find_law("power")


def problem(methods=METHODS, seconds=lambda d: 2.0 + 0.02 * d, made=None, noise=0.01):
    prior = prior_of(POWER, CENTRE, 3.0)
    own = Candidates({"d": SIZES.astype(float)}, seconds(SIZES.astype(float)))
    nothing = np.zeros(len(SIZES), int)
    return Problem(
        dict.fromkeys(methods, own),
        dict.fromkeys(methods, prior),
        {"d": 32768.0},
        Noise(CENTRE["d"], noise),
        dict.fromkeys(methods, 1.0),
        {method: (made or {}).get(method, nothing) for method in methods},
        dict.fromkeys(methods, 1.0),
    )


def test_ladder_goes_down_from_the_largest():
    assert ladder(4096, 32, 2.0).tolist() == [32, 64, 128, 256, 512, 1024, 2048, 4096]
    found = ladder(5000, 32)
    assert found[-1] == 5000 and found[0] >= 32 and np.allclose(found[1:] / found[:-1], 2**0.5, rtol=0.03)
    assert len(ladder(31, 32)) == 0


def test_slopes_are_the_derivatives_of_the_law():
    """Against the law's own prediction, by the chain rule."""
    belief = prior_of(POWER, CENTRE, 3.0)
    point = belief.draws(1, 3)[0]
    parameters = {
        "A": np.exp(point[0]) * CENTRE["d"] ** np.exp(point[1]),
        "beta": np.exp(point[1]),
        "E": np.exp(point[2]),
    }
    loss = POWER.predict(parameters, {"d": SIZES})
    np.testing.assert_allclose(np.exp(belief.log_loss(point, {"d": SIZES})), loss, rtol=1e-12)
    term, distance = loss - parameters["E"], np.log(SIZES / CENTRE["d"])
    wanted = np.stack([term, -term * parameters["beta"] * distance, np.full(len(SIZES), parameters["E"])], 1)
    np.testing.assert_allclose(belief.slopes(point, {"d": SIZES}), wanted / loss[:, None], rtol=1e-6)


def test_the_expected_width_is_what_simulated_pilots_scatter():
    """The posterior's own account of the loss at the target against the scatter of its mode."""
    truth = {"A": 12.0, "beta": 0.3, "E": 1.2}
    sizes = {"d": np.repeat(SIZES[::2], 3).astype(float)}
    target, noise = {"d": np.array([32768.0])}, Noise(CENTRE["d"], 0.02, 0.0)
    clean = POWER.predict(truth, sizes)
    prior = prior_of(POWER, CENTRE, 3.0)
    random = np.random.default_rng(0)
    truly = np.log(POWER.predict(truth, target))[0]
    places, widths = [], []
    for _ in range(60):
        errors = noise.with_misfit(sizes["d"]) * random.standard_normal(len(clean))
        belief = updated(prior, Rows(sizes, clean * np.exp(errors)), noise)
        logs = belief.log_loss(belief.draws(2000, 0), target)[:, 0]
        places.append(np.mean(logs < truly))
        widths.append(np.std(logs))
    # The place of the truth among the draws is uniform where the draws are right.
    places = np.array(places)
    assert 0.4 < places.mean() < 0.6 and 0.8 < np.mean((places > 0.05) & (places < 0.95))
    counts = np.isin(SIZES, SIZES[::2]) * 3
    told = described(
        dataclasses.replace(problem(("full",)), beliefs={"full": belief}, noise=noise), {"full": counts}
    )
    # Beside the law's own uncertainty a forecast has its discrepancy.
    logs = forecast(belief, Rows(sizes, clean), {"d": 32768.0}, 4000, 0)
    assert np.std(logs) > np.mean(widths)
    wide = np.subtract(*np.percentile(logs, [95, 5]))
    assert told.widths["full"] / np.exp(truly) == pytest.approx(wide, rel=0.3)


@pytest.mark.parametrize("budget", [120.0, 300.0, 800.0])
def test_a_design_beats_every_even_ladder_of_its_cost(budget):
    given = problem()
    found, ladders = design(given, budget), even_ladders(given, budget)
    assert found.seconds <= budget * (1 + 1e-9)
    assert ladders and all(found.criterion <= other.criterion for other in ladders)
    # With much money all that is left is the discrepancy of the forecast, which every ladder has.
    assert found.criterion < (0.93 if budget < 500 else 0.99) * ladders[0].criterion
    again = described(given, found.counts)
    assert again.criterion == pytest.approx(found.criterion) and again.widths == found.widths
    for counts in found.counts.values():
        assert is_enough(POWER, {"d": SIZES[counts > 0]}) and counts.max() <= 5


def test_more_money_narrows():
    criteria = [design(problem(), budget).criterion for budget in (120.0, 400.0, 1500.0)]
    assert criteria[0] > criteria[1] > criteria[2]


def test_money_goes_where_it_matters():
    """A method that is hardly ever the best gets fewer runs than one that may be."""
    given = dataclasses.replace(problem(), weights={"full": 0.97, "lora": 0.03})
    counts = design(given, 600.0).counts
    assert counts["full"].sum() > counts["lora"].sum()


def test_too_small_a_budget_says_the_least_and_that_does():
    given = problem()
    with pytest.raises(BudgetTooSmall) as refused:
        design(given, 10.0)
    assert refused.value.least == pytest.approx(sum(refused.value.each.values()))
    found = design(given, refused.value.least)
    assert found.runs == 2 * (len(POWER.parameters) + 1)
    with pytest.raises(BudgetTooSmall):
        design(given, 0.99 * refused.value.least)


def test_what_is_made_is_kept_and_costs_nothing():
    made = np.zeros(len(SIZES), int)
    made[[0, 1, 2, 3]] = [2, 2, 1, 1]
    given = problem(made=dict.fromkeys(METHODS, made))
    found = design(given, 300.0)
    assert all((counts >= made).all() for counts in found.counts.values())
    assert found.runs > 12
    per_run = given.candidates["full"].seconds
    added = sum(float((counts - made) @ per_run) for counts in found.counts.values())
    assert found.seconds == pytest.approx(added)


def test_a_family_of_models_is_crossed_with_data():
    law = find_law("multiplicative")
    x, d = (part.ravel() for part in np.meshgrid([1e6, 4e6, 16e6], SIZES.astype(float), indexing="ij"))
    own = Candidates({"x": x, "d": d}, 1.0 + 1e-8 * x * d / 10)
    centre = {"x": 4e6, "d": CENTRE["d"]}
    given = Problem(
        {"lora": own},
        {"lora": prior_of(law, centre, 3.0)},
        {"x": 16e6, "d": 32768.0},
        Noise(CENTRE["d"]),
        {"lora": 1.0},
        {"lora": np.zeros(len(own), int)},
        {"lora": 0.0},
    )
    for budget in (60.0, 400.0):
        found = design(given, budget)
        assert is_enough(law, {"x": x[found.counts["lora"] > 0], "d": d[found.counts["lora"] > 0]})
        assert found.criterion < even_ladders(given, budget)[0].criterion


TRUTHS = {"full": {"A": 12.0, "beta": 0.35, "E": 1.0}, "lora": {"A": 6.0, "beta": 0.15, "E": 1.6}}


def simulated(counts, seed, truths=TRUTHS, noise=0.01):
    """A run that was made has the same loss whenever it is asked for."""
    rows = {}
    for number, (method, own) in enumerate(counts.items()):
        d = np.repeat(SIZES, own).astype(float)
        errors = np.random.default_rng([seed, number]).standard_normal((len(SIZES), 5))
        errors = np.concatenate([of_size[:count] for of_size, count in zip(errors, own, strict=True)])
        rows[method] = Rows({"d": d}, POWER.predict(truths[method], {"d": d}) * np.exp(noise * errors))
    return rows


def pilot(truths, budget, noise=0.01, seed=1, precision=0.02):
    """A simulated pilot: its rounds and its last state."""
    given = problem()
    nothing = np.zeros(len(SIZES), int)
    empty = {method: Rows({"d": np.zeros(0)}, np.zeros(0)) for method in METHODS}
    state = pilot_rounds.State(
        given.candidates,
        given.beliefs,
        given.target,
        empty,
        dict.fromkeys(METHODS, nothing),
        given.noise,
        given.fixed_seconds,
        budget,
        precision=precision,
    )
    rounds = []
    while True:
        found = pilot_rounds.next_round(state)
        rounds.append(found)
        if found.ended:
            return rounds, state
        made = {method: found.counts.get(method, state.made[method]) for method in METHODS}
        state = pilot_rounds.after(
            state,
            found,
            made=made,
            rows=simulated(made, seed, truths, noise),
            spent=state.spent + found.seconds,
        )


def test_a_method_without_a_chance_gets_no_more_runs():
    rounds, state = pilot(TRUTHS, 1500.0)
    assert set(rounds[-1].dropped) == {"lora"} and "chance of being the best" in rounds[-1].dropped["lora"]
    first_out = next(number for number, found in enumerate(rounds) if "lora" in found.dropped)
    assert all("lora" not in found.counts for found in rounds[first_out:-1])
    assert rounds[-1].chances["full"] > 0.98
    # It ends as soon as the loss of the one that is left is known, with money left.
    rounds, quiet = pilot(TRUTHS, 1500.0, noise=0.002, precision=0.2)
    assert "full alone is left" in rounds[-1].ended and quiet.spent < min(state.spent, 0.7 * 1500.0)


def test_a_run_that_takes_more_than_a_round_should_is_made():
    """Sizes whose cost doubles: the last run of the plan takes most of the budget."""
    given = problem(("full",), seconds=lambda d: d)
    own = dataclasses.replace(given.candidates["full"], seeds=1)
    made, budget = (SIZES <= 1024).astype(int), 5000.0
    state = pilot_rounds.State(
        {"full": own},
        given.beliefs,
        given.target,
        simulated({"full": made}, 0),
        {"full": made},
        given.noise,
        given.fixed_seconds,
        budget,
        spent=0.1 * budget,
        number=2,
    )
    found = pilot_rounds.next_round(state)
    assert found.counts["full"][-1] == 1 and found.seconds == 4096.0


def test_methods_that_are_alike_are_both_kept():
    alike = {"full": TRUTHS["full"], "lora": TRUTHS["full"]}
    rounds, state = pilot(alike, 600.0)
    assert not rounds[-1].dropped and state.spent <= 600.0 * (1 + 1e-9)
    assert 0.05 < rounds[-1].chances["full"] < 0.95


def test_what_runs_show_replaces_the_guess():
    counts = dict.fromkeys(METHODS, np.full(len(SIZES), 5))
    priors = problem().beliefs
    beliefs, noise = updated_all(priors, simulated(counts, 0, noise=0.02), Noise(CENTRE["d"], 0.01, 0.0))
    # 74 rows to spare show a standard deviation to 8%.
    assert 0.015 < noise.size < 0.025
    for method, belief in beliefs.items():
        place = {"d": np.array([32768.0])}
        logs = belief.log_loss(belief.draws(2000, 0), place)[:, 0]
        truly = np.log(POWER.predict(TRUTHS[method], place)[0])
        assert abs(np.mean(logs) - truly) < 3 * np.std(logs) and np.std(logs) < 0.06
    rows = simulated(counts, 0, noise=0.02)
    assert chances(beliefs, rows, {"d": 32768.0})["full"] > 0.95


def test_the_money_for_one_large_run_is_not_spent_on_small_ones():
    """A later round: the small runs are made, and what is left pays for a large one or for many of them."""
    made = np.array([5, 5, 5, 2, 1, 0, 0, 0])
    given = problem(made=dict.fromkeys(METHODS, made))
    free = np.flatnonzero(made < 5)
    for budget in (25.0, 90.0, 150.0):
        found = design(given, budget).criterion
        for cells in itertools.product(free, free):
            further = {
                m: made + (np.arange(len(SIZES)) == cell) for m, cell in zip(METHODS, cells, strict=True)
            }
            one = described(given, further)
            assert one.seconds > budget or found <= one.criterion * (1 + 1e-9)
