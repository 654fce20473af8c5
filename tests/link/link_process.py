"""Links to pods that are given instead of watched, each in a process of its own.

A line of JSON on standard input describes a link, a line on standard output has its process id. Links are forked off, because
what they import takes longer to load than most tests take.
"""

import asyncio
import ctypes
import json
import os
import signal
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

PR_SET_PDEATHSIG = 1


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


def run(line: str) -> None:
    """Be the link that a line of JSON describes, until killed."""
    # A link ends with whoever started it, also when that is killed.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    given = json.loads(line)
    log = os.open(given["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(
            serve(
                LinkState(1e9).changed(given["state"]), given["pods"], Translation.parse(*given["cidrs"]), *given["control"]
            )
        )  # fmt: skip


if __name__ == "__main__":
    # Ended links are nobody's to wait for.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            run(line)
        print(pid, flush=True)
