"""The single-variable law of Zhang et al. (ICLR 2024), section 3."""

from scaling_jax.laws.law import Law, Parameter, register


def _log_terms(parameters, logs, array):
    return -parameters["beta"] * logs["d"], 0.0


power = register(
    Law(
        name="power",
        equation="L = A / D^beta + E",
        source="Zhang et al., When Scaling Meets LLM Finetuning (ICLR 2024), section 3",
        roles=(("d", "finetuning examples, or any one size"),),
        parameters=(
            Parameter("A", "reducible loss at D = 1"),
            Parameter("beta", "data exponent", upper=4.0, starts=(0.005, 2.0)),
            Parameter("E", "loss that no amount of data removes"),
        ),
        linear=("A", "E"),
        log_terms=_log_terms,
    )
)
