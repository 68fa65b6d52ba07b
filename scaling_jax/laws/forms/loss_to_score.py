"""A score as an exponential of the loss, as Gordon et al. (EMNLP 2021) found for BLEU."""

from scaling_jax.laws.law import Law, Parameter, register


def _log_terms(parameters, logs, array):
    return (-parameters["k"] * array.exp(logs["x"]),)


loss_to_score = register(
    Law(
        name="loss_to_score",
        equation="S = C * exp(-k * L)",
        source="Gordon, Duh and Kaplan, Data and Parameter Scaling Laws for NMT (EMNLP 2021), section 5",
        roles=(("x", "the loss, in nats per token"),),
        parameters=(
            Parameter("C", "score at a loss of zero"),
            Parameter("k", "relative fall of the score per nat", lower=-20.0, upper=50.0, starts=(-1.0, 8.0)),
        ),
        linear=("C",),
        log_terms=_log_terms,
        better="higher",
    )
)
