"""The kinds of single values that fields hold, with the bounds that the API server checks too.

Every text and every list is bounded, because the API server refuses CEL rules whose worst case is unbounded. Numbers are
strict: JSON keeps numbers and texts apart, and so does the API server.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AllowInfNan,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Strict,
    StringConstraints,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from prfaas_operator.api.rules import Rule, extended

MAX_TOKENS: Final = 16_777_216
MAX_REPLICAS: Final = 1000

_LABEL: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
_SUBDOMAIN: Final = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"

Name = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=_LABEL)]
Subdomain = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=_SUBDOMAIN)]
SecretKey = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
LabelValue = Annotated[str, StringConstraints(max_length=63)]

Term = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^\S+$")]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=r"^\S+$")]
Image = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=r"^\S+$")]
Argument = Annotated[str, StringConstraints(max_length=4096)]
PromQL = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Message = Annotated[str, StringConstraints(max_length=32768)]
CamelCase = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Z][A-Za-z0-9]*$")]


@dataclass(frozen=True, slots=True)
class Between:
    """Marks a whole number from `lowest` to `highest`.

    3.0 is none: the API server takes it for one in some places and not in others, and gives it back as 3.
    """

    lowest: int
    highest: int

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.int_schema(strict=True, ge=self.lowest, le=self.highest)


Flag = Annotated[bool, Strict()]
Whole = Annotated[int, Between(0, 2**63 - 1)]
Replicas = Annotated[int, Between(0, MAX_REPLICAS)]
Port = Annotated[int, Between(1, 65535)]
Tokens = Annotated[int, Between(1, MAX_TOKENS)]
Count = Annotated[int, Between(1, 65536)]

Number = Annotated[float, Strict(), AllowInfNan(False)]
Measured = Annotated[float, Strict(), AllowInfNan(False), Field(ge=0)]
Positive = Annotated[float, Strict(), AllowInfNan(False), Field(gt=0, le=1e12)]
NonNegative = Annotated[float, Strict(), AllowInfNan(False), Field(ge=0, le=1e12)]
Seconds = Annotated[float, Strict(), AllowInfNan(False), Field(gt=0, le=86_400)]
Fraction = Annotated[float, Strict(), AllowInfNan(False), Field(gt=0, le=1)]


def _is_network(value: str) -> bool:
    try:
        network = ipaddress.ip_network(value)
    except ValueError:
        return False
    return getattr(network.network_address, "ipv4_mapped", None) is None


def _is_address(value: str) -> bool:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    return getattr(address, "ipv4_mapped", None) is None


# The patterns leave out what Python reads and Kubernetes does not: netmasks, zones, prefixes with leading zeros.
CIDR = Annotated[
    str,
    StringConstraints(min_length=1, max_length=49, pattern=r"^[0-9a-fA-F.:]+/(0|[1-9][0-9]{0,2})$"),
    Rule(
        "isCIDR(self) && cidr(self) == cidr(self).masked()",
        "{self} is not a network; write address/prefix with all bits after the prefix zero, such as 10.30.0.0/16",
        _is_network,
    ),
]
IPAddress = Annotated[
    str,
    StringConstraints(min_length=1, max_length=45, pattern=r"^[0-9a-fA-F.:]+$"),
    Rule("isIP(self)", "{self} is not an address; write one of IPv4 or IPv6, such as 10.96.0.10", _is_address),
]


@dataclass(frozen=True, slots=True)
class WholeOr:
    """Marks a field that holds a whole number from 0 to `highest`, or a text that matches `pattern` in full."""

    highest: int
    pattern: str
    remedy: str

    def check(self, value: Any) -> Any:
        """Return `value`; ValueError if it is neither."""
        if isinstance(value, str) and re.fullmatch(self.pattern, value):
            return value
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= self.highest:
            return value
        raise ValueError(f"{value} is not valid; {self.remedy}")

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        rule = Rule(
            f"type(self) == string ? self.matches('^({self.pattern})$') : self >= 0 && self <= {self.highest}",
            f"{{self}} is not valid; {self.remedy}",
        )
        either = {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}
        return extended({**either, "maxLength": 32}, (rule,))


Threshold = Annotated[
    int | Literal["Auto"],
    WholeOr(MAX_TOKENS, "Auto", f"use Auto, or a whole number of tokens from 0 to {MAX_TOKENS}"),
]
PodsOrPercent = Annotated[
    int | str,
    WholeOr(MAX_REPLICAS, "[1-9][0-9]?%|100%", f"use a whole number of pods from 0 to {MAX_REPLICAS}, or 1% to 100%"),
]
