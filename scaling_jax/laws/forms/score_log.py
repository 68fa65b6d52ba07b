"""The log law of Isik et al. (2024): a downstream score against pretraining tokens."""

from scaling_jax.laws.law import Law, Parameter, register


def _formula(parameters, columns, array):
    inside = array.log(parameters["A"]) + parameters["alpha"] * array.log(columns["d"])
    # Below one the logarithm is negative and has no power; the score is then as good as zero.
    return array.maximum(inside, 1e-9) ** parameters["beta"]


score_log = register(
    Law(
        name="score_log",
        equation="S = (log(A * D^alpha))^beta",
        source="Isik et al., Scaling Laws for Downstream Task Performance (2024), Equation 1",
        roles=(("d", "pretraining tokens, or finetuning examples"),),
        parameters=(
            Parameter("A", "scale", lower=1e-100, upper=1e100, starts=(1e-20, 1e10), transform="log"),
            Parameter(
                "alpha",
                "exponent inside the logarithm",
                upper=50.0,
                starts=(0.02, 20.0),
                transform="log",
                lower=1e-6,
            ),
            Parameter(
                "beta", "power of the logarithm", upper=20.0, lower=1e-3, starts=(0.05, 6.0), transform="log"
            ),
        ),
        formula=_formula,
        better="higher",
    )
)
