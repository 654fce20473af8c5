"""Times of the week as cron writes them, and the time zones they are in.

The API server checks the form. Whether a zone is in the operator's time zone database, and whether a day such as 31
February ever comes, only the operator can tell.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import StringConstraints

from prfaas_operator.api.rules import Rule


def _field(value: str, names: str = "") -> str:
    """Return the pattern of one field: values, ranges, steps, and lists of them."""
    one = f"({value}|{names})" if names else f"({value})"
    term = f"([*]|{one}(-{one})?)(/[1-9][0-9]?)?"
    return f"{term}(,{term})*"


_DAYS: Final = "[Mm][Oo][Nn]|[Tt][Uu][Ee]|[Ww][Ee][Dd]|[Tt][Hh][Uu]|[Ff][Rr][Ii]|[Ss][Aa][Tt]|[Ss][Uu][Nn]"
_MONTHS: Final = (
    "[Jj][Aa][Nn]|[Ff][Ee][Bb]|[Mm][Aa][Rr]|[Aa][Pp][Rr]|[Mm][Aa][Yy]|[Jj][Uu][Nn]|[Jj][Uu][Ll]|[Aa][Uu][Gg]|"
    "[Ss][Ee][Pp]|[Oo][Cc][Tt]|[Nn][Oo][Vv]|[Dd][Ee][Cc]"
)
_FIELDS: Final = (
    _field("[0-5]?[0-9]"),
    _field("[01]?[0-9]|2[0-3]"),
    _field("0?[1-9]|[12][0-9]|3[01]"),
    _field("0?[1-9]|1[0-2]", _MONTHS),
    _field("0?[0-7]", _DAYS),
)

_CRON: Final = f"^{' '.join(_FIELDS)}$"
_ZONE: Final = "^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$"

CronExpression = Annotated[
    str,
    StringConstraints(min_length=1, max_length=128),
    Rule(
        f"self.matches('{_CRON}')",
        "{self} is no cron expression; write minute, hour, day of month, month and day of week, such as 0 8 * * 1-5",
        lambda text: re.fullmatch(_CRON, text) is not None,
    ),
]
TimeZone = Annotated[
    str,
    StringConstraints(min_length=1, max_length=64),
    Rule(
        f"self.matches('{_ZONE}')",
        "{self} is no name of a time zone; use one of the IANA database, such as Europe/Berlin",
        lambda text: re.fullmatch(_ZONE, text) is not None,
    ),
]
