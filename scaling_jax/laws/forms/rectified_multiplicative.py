"""Our joint law with a pre-power phase: the multiplicative law whose data begin with what is known.

Derivation. Zhang et al. (ICLR 2024) find the reducible loss to be a product of a power of X and one of
D. Lin et al. (ICML 2024) explain the flat start of a finetuning curve by data that the model has
learned beforehand, worth D_l in the units of D^beta. Putting D_l + D^beta for D^beta in the product
keeps both findings as limits: D_l -> 0 is `multiplicative`, one X is `rectified` with B = A X^-alpha.

D_l does not depend on X here. With D_l growing as a power of X the law has one more parameter; on three
clean families of measured curves its sign differed from family to family, and it predicted no better
beyond the interval of the difference (docs/laws/rectified_multiplicative.md).
"""

from scaling_jax.laws.law import Law, Parameter, register


def _log_terms(parameters, logs, array):
    known = array.logaddexp(array.log(parameters["D_l"]), parameters["beta"] * logs["d"])
    return -parameters["alpha"] * logs["x"] - known, 0.0


rectified_multiplicative = register(
    Law(
        name="rectified_multiplicative",
        equation="L = A * X^-alpha / (D_l + D^beta) + E",
        source="this project, from Zhang et al. (ICLR 2024), Equation 1, and Lin et al. (ICML 2024)",
        roles=(
            ("x", "model size, pretraining tokens or tuning size"),
            ("d", "finetuning examples"),
        ),
        parameters=(
            Parameter("A", "reducible loss at X = D = 1 without the pre-learned data"),
            Parameter("alpha", "exponent of X", lower=-1.0, upper=4.0, starts=(-0.2, 1.8)),
            Parameter(
                "D_l",
                "pre-learned data size, in units of D^beta",
                lower=1e-6,
                upper=1e15,
                starts=(1e-3, 1e6),
                transform="log",
            ),
            Parameter("beta", "data exponent after the pre-power phase", upper=4.0, starts=(0.01, 1.8)),
            Parameter("E", "loss that neither X nor data removes"),
        ),
        linear=("A", "E"),
        log_terms=_log_terms,
    )
)
