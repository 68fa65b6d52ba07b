"""Looks through a gin configuration for bindings that nothing of a study reads."""

from collections.abc import Iterable

import gin

from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.models.families import FAMILIES
from scaling_jax.studies.plan import Study
from scaling_jax.tuning.method import method_names


def check_scopes(study: Study) -> None:
    """Refuses bindings under a scope that nothing enters, such as a misspelt method.

    A scope is the name of a method, a model, a pretraining recipe or an evaluation, or that of a reference
    such as @sizes/Grid(). Names and parameters themselves are checked when gin is parsed.

    Raises:
        InputError: the binding, with the nearest name that there is.
    """
    known = _known(study)
    for scope, selector in gin.config._CONFIG:
        name = selector.split(".")[-1]
        if name == "macro":
            continue
        for part in filter(None, scope.split("/")):
            if part not in known:
                raise InputError(
                    f"{scope}/{name}: nothing of this study is called {part!r}, so that the binding is never "
                    f"read{did_you_mean(part, known)}"
                )


def _known(study: Study) -> set[str]:
    config = gin.config._CONFIG
    models = {scope for scope, selector in config if selector.split(".")[-1] in FAMILIES}
    references = {
        part for reference in gin.config.iterate_references(config) for part in _scopes(reference.scopes)
    }
    evaluations = {one.name for one in (*study.evaluations, *study.base_evaluations)}
    return {*method_names(), *models, *study.recipes(), *references, *evaluations} - {""}


def _scopes(scopes: Iterable[str]) -> Iterable[str]:
    return [part for scope in scopes for part in scope.split("/")]
