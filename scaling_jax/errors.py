"""The one error that means "what you gave cannot be used".

Every room raises `InputError` for bad input; the command line prints its message on one line
and exits with code 2. Anything else that escapes is a fault of ours and keeps its traceback.
"""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Input that cannot be used.

    The message names the file, line, column or binding, says what was wrong and what would be
    right.
    """


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like this one, if any is."""
    return next(iter(difflib.get_close_matches(name, sorted(set(known)), n=1, cutoff=0.6)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns "; did you mean 'X'?" for the nearest known name, or the list of all that exist."""
    known = sorted(set(known))
    if near := nearest(name, known):
        return f"; did you mean {near!r}?"
    return f"; known: {', '.join(known)}" if known else ""
