"""`rectified_multiplicative` with a pre-learned size that moves with the model.

Larger models might know more beforehand: D_l = D_1 (X / 1e9)^gamma. With gamma = 0 this is the law of the
package. docs/laws/rectified_multiplicative.md compares the two.
"""

import math

from scaling_jax.laws.law import Law, Parameter

_USUAL_SIZE = math.log(1e9)


def _log_terms(parameters, logs, array):
    learned = array.log(parameters["D_1"]) + parameters["gamma"] * (logs["x"] - _USUAL_SIZE)
    known = array.logaddexp(learned, parameters["beta"] * logs["d"])
    return -parameters["alpha"] * logs["x"] - known, 0.0


moving_pre_learned = Law(
    name="moving_pre_learned",
    equation="L = A X^-alpha / (D_1 (X / 1e9)^gamma + D^beta) + E",
    source="docs/laws/rectified_multiplicative.md",
    roles=(("x", "parameters of the model"), ("d", "finetuning examples")),
    parameters=(
        Parameter("A", "reducible loss at X = D = 1 without the pre-learned data"),
        Parameter("alpha", "exponent of X", lower=-1.0, upper=4.0, starts=(-0.2, 1.8)),
        Parameter(
            "D_1",
            "pre-learned data size at X = 1e9",
            lower=1e-6,
            upper=1e15,
            starts=(1e-3, 1e6),
            transform="log",
        ),
        Parameter("gamma", "exponent of the pre-learned size", lower=-3.0, upper=3.0, starts=(-1.0, 1.0)),
        Parameter("beta", "data exponent", upper=4.0, starts=(0.01, 1.8)),
        Parameter("E", "loss that neither removes"),
    ),
    linear=("A", "E"),
    log_terms=_log_terms,
)
