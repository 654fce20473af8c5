"""A link to pods that are given instead of watched: `python link_process.py STATE PODS CONTROL_HOST CONTROL_PORT`."""

import asyncio
import json
import ssl
import sys

import uvloop
from aiohttp import web

from prfaas_local.link.control import application
from prfaas_local.link.link import Link
from prfaas_local.link.listeners import Listeners
from prfaas_local.link.state import LinkState
from prfaas_local.link.translation import Translation
from prfaas_local.node.apiserver import ApiServer
from prfaas_local.node.kubeconfig import Credentials
from prfaas_local.node.reflector import Reflector


async def serve(
    state: LinkState, pods: list[dict[str, object]], translation: Translation, host: str, port: int
) -> None:
    link = Link(state)
    api = ApiServer(Credentials("https://127.0.0.1", ssl.create_default_context(), None, None, None), user_agent="test")
    reflector = Reflector(api, "/api/v1/pods")
    listeners = Listeners(link, reflector, translation)
    for pod in pods:
        reflector.remember(pod)
    reflector.synced.set()
    runner = web.AppRunner(application(link, listeners), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    await listeners.run()


if __name__ == "__main__":
    state, pods, pod_cidr, translated_cidr, host, port = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(
            serve(
                LinkState(1e9).changed(json.loads(state)), json.loads(pods), Translation.parse(pod_cidr, translated_cidr),
                host, int(port),
            )
        )  # fmt: skip
