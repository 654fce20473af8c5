"""ModelProfile: what its KV bytes mean, in one fingerprint."""

from prfaas_core import compatibility
from prfaas_core.errors import CoreError
from prfaas_core.profiles import Profile
from prfaas_operator import api
from prfaas_operator.api.conditions import Reason
from prfaas_operator.objects import Stored
from prfaas_operator.reconcile.context import Context, now
from prfaas_operator.status import Conditions, previous


async def reconcile(context: Context, stored: Stored) -> float | None:
    """Report the fingerprint of a profile, or what is wrong with it."""
    if not stored.deleting:
        await context.write_status(stored, profile_status(stored))
    return None


def profile_status(stored: Stored) -> api.ModelProfileStatus:
    """Return the status of a profile."""
    conditions, fingerprint, fault = Conditions(stored.generation, now()), None, stored.fault
    if not fault:
        try:
            Profile.from_spec(stored.body["spec"])
            fingerprint = compatibility.kv_fingerprint(stored.body["spec"])
        except CoreError as error:
            fault = str(error)
    if fault:
        conditions.conclude(ready=False, reason=Reason.INVALID_SPEC, message=fault, stalled=True)
    else:
        conditions.conclude(ready=True, reason=Reason.AVAILABLE, message="the profile can be used")
    return api.ModelProfileStatus(
        observed_generation=stored.generation,
        conditions=conditions.merge(previous(stored.model)),
        kv_fingerprint=fingerprint,
    )
