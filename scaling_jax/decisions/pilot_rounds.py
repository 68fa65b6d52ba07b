"""A pilot in rounds: what is run next, which methods are out, and when there is nothing left to do.

Every round plans what is left of the budget, the first by what is believed of any law, each later one by
what the runs so far have shown; it makes the cheapest runs of its plan and leaves the others to be planned
again. A method whose chance of being the best at the target has fallen below `UNLIKELY` gets no more runs.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from scaling_jax.decisions.beliefs import Belief, Noise, Rows, chances, forecast, updated_all
from scaling_jax.decisions.pilot_design import (
    BudgetTooSmall,
    Candidates,
    Design,
    Problem,
    design,
    is_enough,
    seconds_of,
)

# Shares of the budget that may be spent at the end of each round; what stops early leaves something for more.
ROUNDS = (0.35, 0.7, 1.0, 1.0, 1.0)
UNLIKELY = 0.02
# A further round is not made for less than this share of the budget.
_WORTH_A_ROUND = 0.05


@dataclass(frozen=True)
class State:
    """What a pilot has come to.

    Attributes:
        candidates: method -> the runs it may make.
        priors: method -> what was believed of its law before any run.
        target: role -> size at which losses are wanted.
        rows: method -> finished runs.
        made: method -> (cells,), how often each cell has been tried.
        dropped: method -> why it gets no more runs.
        noise: guess of a run's.
        fixed_seconds: method -> what its first run costs in addition.
        spent, budget: seconds of device time.
        precision: relative width of an interval that needs no more runs, once one method is left.
        number: of the round to come, from 1.
        unlikely: chance of being the best below which a method gets no more runs.
    """

    candidates: Mapping[str, Candidates]
    priors: Mapping[str, Belief]
    target: Mapping[str, float]
    rows: Mapping[str, Rows]
    made: Mapping[str, np.ndarray]
    noise: Noise
    fixed_seconds: Mapping[str, float]
    budget: float
    spent: float = 0.0
    dropped: Mapping[str, str] = field(default_factory=dict)
    precision: float = 0.05
    number: int = 1
    unlikely: float = UNLIKELY


@dataclass(frozen=True)
class Round:
    """What comes next.

    Attributes:
        number: from 1.
        counts: method -> (cells,), how often each is to have been run after this round; {} at the end.
        seconds: of this round.
        plan: what all of the budget would be spent on by now; None where the pilot has ended.
        chances: method -> probability of being the best at the target, as far as is known.
        dropped: method -> why it gets no more runs, those of earlier rounds among them.
        ended: why there is no further round; "" where there is one.
        noise: relative noise of a run in the middle of the sizes, as far as is known.
    """

    number: int
    counts: Mapping[str, np.ndarray]
    seconds: float
    plan: Design | None
    chances: Mapping[str, float]
    dropped: Mapping[str, str]
    ended: str
    noise: float


def next_round(state: State) -> Round:
    """Plans the next round.

    Raises:
        BudgetTooSmall: the budget does not pay for the least pilot (first round only).
    """
    beliefs, noise = updated_all(state.priors, state.rows, state.noise)
    sure = chances(beliefs, state.rows, state.target)
    dropped = dict(state.dropped)
    if state.number > 1:
        for method, chance in sure.items():
            if method not in dropped and chance < state.unlikely and method != max(sure, key=sure.get):
                dropped[method] = (
                    f"chance of being the best at the target {chance:.1%} after round {state.number - 1}"
                )
    # Later runs may show that one was dropped too soon.
    dropped.pop(max(sure, key=sure.get), None)
    left = [method for method in state.candidates if method not in dropped]

    def ended(why: str) -> Round:
        return Round(state.number, {}, 0.0, None, sure, dropped, why, noise.size)

    if len(left) == 1 and len(state.candidates) > 1:
        width = relative_width(beliefs[left[0]], state.rows[left[0]], state.target)
        if width <= state.precision:
            return ended(f"{left[0]} alone is left, and its loss is known to {width:.1%}")
    if state.number > len(ROUNDS):
        return ended(f"{len(ROUNDS)} rounds were made")
    if state.budget - state.spent < _WORTH_A_ROUND * state.budget:
        return ended("the budget is spent")
    problem = Problem(
        {method: state.candidates[method] for method in left},
        {method: beliefs[method] for method in left},
        state.target,
        noise,
        {method: max(sure[method], UNLIKELY) for method in left},
        {method: state.made[method] for method in left},
        {method: state.fixed_seconds[method] for method in left},
        seed=state.number,
    )
    try:
        plan = design(problem, state.budget - state.spent)
    except BudgetTooSmall:
        if state.number == 1:
            raise
        return ended("what is left of the budget pays for no law")  # runs took longer than was planned
    allowed = ROUNDS[state.number - 1] * state.budget - state.spent
    counts, seconds = _cheapest(problem, plan, allowed)
    if not seconds:
        # What is planned may be one run that takes more than a round should.
        counts, seconds = _cheapest(problem, plan, state.budget - state.spent)
    if not seconds:
        return ended("no further run fits in what is left of the budget")
    return Round(state.number, counts, seconds, plan, sure, dropped, "", noise.size)


def _cheapest(problem: Problem, plan: Design, allowed: float) -> tuple[dict[str, np.ndarray], float]:
    """(counts, seconds): of the runs that a plan adds the cheapest, of each method enough for its law."""
    counts = {method: made.copy() for method, made in problem.made.items()}
    added = []
    for method, wanted in plan.counts.items():
        own = problem.candidates[method]
        for cell in sorted(np.flatnonzero(wanted > counts[method]), key=lambda cell: own.seconds[cell]):
            here = {role: values[counts[method] > 0] for role, values in own.sizes.items()}
            if not counts[method][cell] and not is_enough(problem.beliefs[method].law, here):
                counts[method][cell] = 1
            added += [(own.seconds[cell], method, cell)] * int(wanted[cell] - counts[method][cell])
    spent = seconds_of(problem, counts)
    for seconds, method, cell in sorted(added, key=lambda one: one[0]):
        if spent + seconds <= allowed:
            counts[method][cell] += 1
            spent += seconds
    return counts, spent


def whole(state: State) -> Design:
    """The design of all of the budget at once, as it looks before any run; for a plan.

    Raises:
        BudgetTooSmall: the budget does not pay for the least pilot.
    """
    share = 1 / len(state.candidates)
    weights = dict.fromkeys(state.candidates, share)
    problem = Problem(
        state.candidates,
        state.priors,
        state.target,
        state.noise,
        weights,
        state.made,
        state.fixed_seconds,
        seed=state.number,
    )
    return design(problem, state.budget - state.spent)


def relative_width(belief: Belief, rows: Rows, target: Mapping[str, float]) -> float:
    """Width of the 90% interval at the target over the loss, roughly as a forecast of these runs shows it."""
    low, high = np.percentile(forecast(belief, rows, target, 4000, 0), [5, 95])
    return float(high - low)


def after(state: State, done: Round, **changed) -> State:
    """The state once a round was made."""
    return dataclasses.replace(state, number=done.number + 1, dropped=done.dropped, **changed)
