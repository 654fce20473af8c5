"""Watches against a server that does what API servers do to them."""

import asyncio
import json

import pytest
from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration

from prfaas_operator.clusters.api import ApiError, ClusterApi, FencedError
from prfaas_operator.clusters.cache import ObjectCache
from prfaas_operator.clusters.resources import POD
from prfaas_operator.clusters.watch import Watch, WatchTimes

TIMES = WatchTimes(lifetime_s=10, silence_s=0.3, backoff_first_s=0.01, backoff_last_s=0.05)


def pod(name, version, uid=None):
    return {"kind": "Pod", "metadata": {"name": name, "uid": uid or name, "resourceVersion": str(version)}}


class Server:
    """One kind of an API server, scripted: a list, and the events of each watch in turn."""

    def __init__(self):
        self.items, self.version = [], 10
        self.scripts = []
        self.lists, self.watched_from = 0, []
        self.broken = False
        self.later = {}  # what the nth list shows

    async def handle(self, request):
        if self.broken:
            return web.Response(status=502, text="<html>bad gateway</html>")
        if request.query.get("watch") != "true":
            self.lists += 1
            self.items, self.version = self.later.get(self.lists, (self.items, self.version))
            return web.json_response({"metadata": {"resourceVersion": str(self.version)}, "items": self.items})
        self.watched_from.append(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        for step in self.scripts.pop(0) if self.scripts else ["hang"]:
            if step == "hang":
                await asyncio.sleep(3600)
            elif step == "cut":
                request.transport.abort()
            else:
                await response.write(json.dumps(step).encode() + b"\n")
        return response


@pytest.fixture
async def server():
    found = Server()
    application = web.Application()
    application.router.add_get("/api/v1/namespaces/t/pods", found.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    yield found
    await runner.cleanup()


@pytest.fixture
async def api(server):
    configuration = Configuration(host=server.url)
    found = ClusterApi(ApiClient(configuration), timeout_s=2)
    yield found
    await found.close()


@pytest.fixture
async def watched(server, api):
    """Run a watch; yields the cache and the failures it reports."""
    changes, failures = [], []
    cache = ObjectCache(lambda _, item: changes.append(item["metadata"]["name"]))
    watch = Watch(api, POD, "t", cache, label_selector="a=b", on_failure=failures.append, times=TIMES)
    task = asyncio.create_task(watch.run())
    yield cache, changes, failures
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  the condition is about others, who set no event
            await asyncio.sleep(0.005)


def names(cache):
    return [item["metadata"]["name"] for item in cache.all(POD)]


async def test_a_cut_stream_resumes(server, watched):
    """After a cut the watch goes on from the last version that it saw, without listing again."""
    cache, _, failures = watched
    server.items = [pod("a", 5)]
    server.scripts = [
        [{"type": "ADDED", "object": pod("b", 11)}, "cut"],
        [{"type": "MODIFIED", "object": pod("b", 12)}, {"type": "DELETED", "object": pod("a", 13)}, "hang"],
    ]
    await until(lambda: names(cache) == ["b"])
    assert server.lists == 1
    assert server.watched_from[:2] == ["10", "11"]
    assert failures


async def test_an_expired_version_lists_again(server, watched):
    """410 leads to a new list, also twice in a row; what vanished meanwhile is noticed."""
    cache, changes, _ = watched
    gone = {"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "too old"}}
    server.items = [pod("a", 5)]
    server.scripts = [[gone], [gone], [{"type": "ADDED", "object": pod("c", 30)}, "hang"]]
    server.later = {3: ([pod("b", 20)], 20)}
    await until(lambda: names(cache) == ["b", "c"])
    assert server.lists == 3
    assert changes == ["a", "a", "b", "c"]


async def test_bookmarks_move_the_version_on(server, watched):
    """A bookmark saves a resumed watch from starting at a version that is no longer kept."""
    server.scripts = [[{"type": "BOOKMARK", "object": pod("", 99)}]]
    await until(lambda: len(server.watched_from) >= 2)
    assert server.watched_from[1] == "99"


async def test_a_silent_stream_is_given_up(server, watched):
    """A connection on which nothing arrives is replaced by another."""
    _, _, failures = watched
    server.scripts = [["hang"], ["hang"]]
    await until(lambda: len(server.watched_from) >= 3)
    assert failures[0].reason == "StreamBroken"


async def test_a_refused_list_is_reported(server, watched):
    """An answer that is not a list, as proxies give, is a failure and not an empty cluster."""
    cache, _, failures = watched
    server.broken = True
    await until(lambda: any(error.status == 502 for error in failures))
    assert not cache.listed((POD,))
    server.broken = False
    await until(lambda: cache.listed((POD,)))


async def test_older_versions_do_not_replace_newer_ones():
    """An event that was overtaken by the answer to a write is dropped; another object of the name is taken."""
    changes = []
    cache = ObjectCache(lambda _, item: changes.append(item["metadata"]["resourceVersion"]))
    cache.observe(POD, pod("a", 7))
    cache.observe(POD, pod("a", 6))
    cache.remove(POD, pod("a", 8, uid="other"))
    assert cache.get(POD, "a")["metadata"]["resourceVersion"] == "7"
    cache.observe(POD, pod("a", 9, uid="other"))
    assert cache.get(POD, "a")["metadata"]["uid"] == "other"
    assert changes == ["7", "9"]


async def test_nobody_answers(api, server, unused_tcp_port):
    """No connection is an error with status 0, which says that the cluster is the problem."""
    configuration = Configuration(host=f"http://127.0.0.1:{unused_tcp_port}")
    away = ClusterApi(ApiClient(configuration), timeout_s=1)
    with pytest.raises(ApiError) as error:
        await away.get(POD, "t", "x")
    assert (error.value.status, error.value.unreachable) == (0, True)
    await away.close()


async def test_a_fenced_client_only_reads(server):
    """Without the Lease nothing is written, and reading goes on."""
    api = ClusterApi(ApiClient(Configuration(host=server.url)), timeout_s=1, fence=lambda: False)
    assert (await api.list(POD, "t"))[0] == []
    with pytest.raises(FencedError):
        await api.delete(POD, "t", "x")
    await api.close()
