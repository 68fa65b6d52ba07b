"""The joint law of Kaplan et al. (2020) in model and data size, as Gordon et al. (EMNLP 2021) fit it."""

from scaling_jax.laws.law import Law, Parameter, register


def _formula(parameters, columns, array):
    a_n, a_d = parameters["alpha_N"], parameters["alpha_D"]
    by_model = (a_n / a_d) * (array.log(parameters["N_C"]) - array.log(columns["x"]))
    by_data = array.log(parameters["D_C"]) - array.log(columns["d"])
    return array.exp(a_d * array.logaddexp(by_model, by_data))


bottleneck = register(
    Law(
        name="bottleneck",
        equation="L = ((N_C / X)^(alpha_N / alpha_D) + D_C / D)^alpha_D",
        source="Kaplan et al. (2020), Equation 1.5; Gordon, Duh and Kaplan (EMNLP 2021), section 4",
        roles=(("x", "parameters of the model without its embeddings"), ("d", "size of the data")),
        parameters=(
            Parameter(
                "alpha_N", "exponent of the model", lower=1e-3, upper=4.0, starts=(0.02, 1.0), transform="log"
            ),
            Parameter(
                "alpha_D", "exponent of the data", lower=1e-3, upper=4.0, starts=(0.02, 1.5), transform="log"
            ),
            Parameter(
                "N_C",
                "model size at which the loss is 1, data unlimited",
                lower=1e-30,
                upper=1e60,
                starts=(1e3, 1e18),
                transform="log",
            ),
            Parameter(
                "D_C",
                "data size at which the loss is 1, model unlimited",
                lower=1e-30,
                upper=1e60,
                starts=(1e1, 1e18),
                transform="log",
            ),
        ),
        formula=_formula,
    )
)
