"""The multiplicative joint law without a floor: a plane in logarithms, as far as small runs often show."""

from scaling_jax.laws.law import Law, Parameter, register


def _log_terms(parameters, logs, array):
    return (-parameters["alpha"] * logs["x"] - parameters["beta"] * logs["d"],)


pure_multiplicative = register(
    Law(
        name="pure_multiplicative",
        equation="L = A * X^-alpha * D^-beta",
        source="Zhang et al. (ICLR 2024), Equation 1, without E",
        roles=(
            ("x", "model size, pretraining tokens or tuning size"),
            ("d", "finetuning examples"),
        ),
        parameters=(
            Parameter("A", "loss at X = D = 1"),
            Parameter("alpha", "exponent of X", lower=-1.0, upper=4.0, starts=(-0.2, 1.8)),
            Parameter("beta", "data exponent", upper=4.0, starts=(0.0, 1.8)),
        ),
        linear=("A",),
        log_terms=_log_terms,
    )
)
