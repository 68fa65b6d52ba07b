"""The rectified law of Lin et al. (ICML 2024): a power law with a pre-power phase."""

from scaling_jax.laws.law import Law, Parameter, register


def _log_terms(parameters, logs, array):
    return -array.logaddexp(array.log(parameters["D_l"]), parameters["beta"] * logs["d"]), 0.0


rectified = register(
    Law(
        name="rectified",
        equation="L = B / (D_l + D^beta) + E",
        source="Lin et al., Selecting LLMs to Fine-tune via Rectified Scaling Law (ICML 2024)",
        roles=(("d", "finetuning examples"),),
        parameters=(
            Parameter("B", "reducible loss at D = 1 without the pre-learned data"),
            Parameter(
                "D_l",
                "pre-learned data size, in units of D^beta",
                lower=1e-6,
                upper=1e15,
                starts=(1e-3, 1e6),
                transform="log",
            ),
            Parameter("beta", "data exponent after the pre-power phase", upper=4.0, starts=(0.01, 2.0)),
            Parameter("E", "loss that no amount of data removes"),
        ),
        linear=("B", "E"),
        log_terms=_log_terms,
    )
)
