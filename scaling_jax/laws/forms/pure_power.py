"""A power law without a floor: a line in logarithms, as far as a short curve often shows."""

from scaling_jax.laws.law import Law, Parameter, register


def _log_terms(parameters, logs, array):
    return (-parameters["beta"] * logs["d"],)


pure_power = register(
    Law(
        name="pure_power",
        equation="L = A / D^beta",
        source="Hestness et al. (2017), Deep Learning Scaling is Predictable, Empirically",
        roles=(("d", "finetuning examples, or any one size"),),
        parameters=(
            Parameter("A", "loss at D = 1"),
            Parameter("beta", "data exponent", upper=4.0, starts=(0.0, 2.0)),
        ),
        linear=("A",),
        log_terms=_log_terms,
    )
)
