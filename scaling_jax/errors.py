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


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns "; did you mean 'X'?" for the nearest known name, or the list of all that exist."""
    known = sorted(set(known))
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if nearest:
        return f"; did you mean {nearest[0]!r}?"
    return f"; known: {', '.join(known)}" if known else ""
