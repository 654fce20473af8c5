"""While routers move, the Service leads to those that are there."""

import pytest

from prfaas_operator.api.inference_route import Placement
from prfaas_operator.reconcile.placement import Routers, serving

FRONT, SIDECAR = Placement.FRONT, Placement.SIDECAR


@pytest.mark.parametrize(
    ("wanted", "routers", "found"),
    [
        # Nothing is there yet, so there is nothing to wait for.
        (FRONT, Routers(front=False, front_ready=False, carrying=0, bare=0), FRONT),
        (SIDECAR, Routers(front=False, front_ready=False, carrying=0, bare=3), SIDECAR),
        # From a Deployment to the decode pods.
        (SIDECAR, Routers(front=True, front_ready=True, carrying=0, bare=3), FRONT),
        (SIDECAR, Routers(front=True, front_ready=True, carrying=2, bare=1), FRONT),
        (SIDECAR, Routers(front=True, front_ready=False, carrying=0, bare=0), FRONT),
        (SIDECAR, Routers(front=True, front_ready=True, carrying=3, bare=0), SIDECAR),
        # And back.
        (FRONT, Routers(front=False, front_ready=False, carrying=3, bare=0), SIDECAR),
        (FRONT, Routers(front=True, front_ready=False, carrying=3, bare=0), SIDECAR),
        (FRONT, Routers(front=True, front_ready=True, carrying=3, bare=0), FRONT),
        (FRONT, Routers(front=True, front_ready=True, carrying=0, bare=3), FRONT),
        # A Deployment that restarts is no reason to look for sidecars.
        (FRONT, Routers(front=True, front_ready=False, carrying=0, bare=3), FRONT),
    ],
)
def test_the_old_routers_serve_until_the_new_ones_are_ready(wanted, routers, found):
    """In every state one placement serves, and it is one that has routers if any has."""
    assert serving(wanted, routers) is found
