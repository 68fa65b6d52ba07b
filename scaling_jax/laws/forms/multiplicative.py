"""The multiplicative joint law of Zhang et al. (ICLR 2024), Equation 1."""

from scaling_jax.laws.law import Law, Parameter, register


def _log_terms(parameters, logs, array):
    return -parameters["alpha"] * logs["x"] - parameters["beta"] * logs["d"], 0.0


multiplicative = register(
    Law(
        name="multiplicative",
        equation="L = A * X^-alpha * D^-beta + E",
        source="Zhang et al., When Scaling Meets LLM Finetuning (ICLR 2024), Equation 1",
        roles=(
            ("x", "model size, pretraining tokens or tuning size"),
            ("d", "finetuning examples"),
        ),
        parameters=(
            Parameter("A", "reducible loss at X = D = 1"),
            # Table 4 of the paper holds slightly negative exponents for the tuning size.
            Parameter("alpha", "exponent of X", lower=-1.0, upper=4.0, starts=(-0.2, 1.8)),
            Parameter("beta", "data exponent", upper=4.0, starts=(0.005, 1.8)),
            Parameter("E", "loss that neither X nor data removes"),
        ),
        linear=("A", "E"),
        log_terms=_log_terms,
    )
)
