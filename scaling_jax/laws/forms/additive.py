"""The additive joint law, Hoffmann et al. (2022) approach 3, as compared by Zhang et al. (ICLR 2024)."""

from scaling_jax.laws.law import Law, Parameter, register


def _log_terms(parameters, logs, array):
    return -parameters["alpha"] * logs["x"], -parameters["beta"] * logs["d"], 0.0


additive = register(
    Law(
        name="additive",
        equation="L = A / X^alpha + B / D^beta + E",
        source="Hoffmann et al. (2022), approach 3; Zhang et al. (ICLR 2024), section 3",
        roles=(
            ("x", "model size, pretraining tokens or tuning size"),
            ("d", "finetuning examples"),
        ),
        parameters=(
            Parameter("A", "loss due to X at X = 1"),
            Parameter("B", "loss due to data at D = 1"),
            Parameter("alpha", "exponent of X", upper=4.0, starts=(0.005, 2.0)),
            Parameter("beta", "data exponent", upper=4.0, starts=(0.005, 2.0)),
            Parameter("E", "loss that neither X nor data removes"),
        ),
        linear=("A", "B", "E"),
        log_terms=_log_terms,
    )
)
