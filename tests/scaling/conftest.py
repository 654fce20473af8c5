"""A real Prometheus that scrapes workers of several pools; what they expose is the test's."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from prfaas_core.profiles import Curve, Profile
from prfaas_local.scraping import Pages, scraping
from prfaas_operator.api.model_profile import EngineName
from prfaas_operator.scaling.observation import Question, Subject, observe
from prfaas_operator.scaling.prometheus import Prometheus
from prfaas_operator.scaling.prometheus.access import PrometheusFiles
from prfaas_operator.scaling.queries import Workers

POOLS, PODS = 12, 2
PROFILE = Profile(
    model="m", max_model_len_tokens=100_000, bytes_per_token=4, accelerator="a", accelerators_per_instance=1,
    prefill_s=Curve((1000, 8000, 32000), (0.2, 1.0, 6.0)), kv_bytes=Curve((1000, 32000), (1e6, 32e6)),
    decode_slots=32, step_s=0.02, cache_capacity_tokens=0, block_tokens=64,
)  # fmt: skip


@dataclass
class Pool:
    """A pool of two pods, each with a registry that Prometheus scrapes once it is there."""

    pages: Pages
    server: Prometheus
    workers: Workers
    registries: list[CollectorRegistry] = field(default_factory=list)

    def path(self, pod: int) -> str:
        return f"/{self.workers.pool}/{pod}"

    def expose(self, pod: int = 0) -> CollectorRegistry:
        """Return a registry of the pod, in the place of the one before: as if it had started anew."""
        registry = CollectorRegistry()
        self.pages.texts[self.path(pod)] = lambda: generate_latest(registry)
        return registry

    def subject(self, *questions: Question, **changes: object) -> Subject:
        given = {"workers": self.workers, "engine": EngineName.VLLM, "profile": PROFILE, "ready_replicas": 1}
        return Subject(**{**given, "signals": questions, **changes})

    async def until(self, subject: Subject, check: Callable[..., bool], deadline_s: float = 15):
        """Return what is observed once it is as wanted; Prometheus scrapes at its own pace."""
        found = ()
        try:
            async with asyncio.timeout(deadline_s):
                while True:
                    found = await observe(self.server, subject)
                    if check(*(item.reading for item in found)):
                        return found
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"still {found}") from None


@pytest.fixture(scope="session")
def _scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pages, str]]:
    targets = {
        f"/{workers.pool}/{pod}": {
            "cluster": workers.cluster, "namespace": workers.namespace, "prfaas_pool": workers.pool,
            "prfaas_role": workers.role, "pod": f"{workers.pool}-{pod}",
        }
        for workers in (_workers(number) for number in range(POOLS)) for pod in range(PODS)
    }  # fmt: skip
    with scraping(tmp_path_factory.mktemp("prometheus"), targets) as found:
        yield found


@pytest.fixture(scope="session")
def _numbers() -> Iterator[int]:
    return iter(range(POOLS))


@pytest.fixture
def make_pool(_scraped: tuple[Pages, str], _numbers: Iterator[int]) -> Iterator[Callable[[], Pool]]:
    """Make pools that no other test has."""
    pages, url = _scraped
    server = Prometheus(PrometheusFiles(url=url, timeout_s=5))
    yield lambda: Pool(pages, server, _workers(next(_numbers)))
    server.close()


@pytest.fixture
def pool(make_pool: Callable[[], Pool]) -> Pool:
    return make_pool()


def _workers(number: int) -> Workers:
    # A link leads from one cluster to the other.
    return Workers("west" if number % 2 else "east", "t", f"p{number}", "prefill" if number % 2 else "decode")


@pytest.fixture
def pool_server(_scraped: tuple[Pages, str]) -> Iterator[Prometheus]:
    server = Prometheus(PrometheusFiles(url=_scraped[1], timeout_s=5))
    yield server
    server.close()
