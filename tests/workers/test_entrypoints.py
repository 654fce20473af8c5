"""The images of real engines turn what the operator gives into the engine's command line, or say what is wrong with it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prfaas_core.compatibility import kv_fingerprint
from prfaas_core.errors import CoreError
from prfaas_workers.entrypoints import container, sglang, vllm
from prfaas_workers.entrypoints.container import Command

SPEC: dict[str, Any] = {
    "model": {"name": "org/model", "revision": "abc", "maxModelLenTokens": 32768},
    "engine": {"name": "VLLM", "version": "0.33.0"},
    "kv": {
        "attention": "GQA", "layout": "LBHNC", "pageSizeTokens": 16, "dtype": "fp8_e4m3", "tensorParallel": 8,
        "pipelineParallel": 1, "connector": {"name": "NixlConnector", "version": "15"},
    },
}  # fmt: skip
ENGINES = {"VLLM": ("0.33.0", vllm), "SGLang": ("0.5.23", sglang)}


@pytest.fixture
def environment(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Build what the operator gives a worker container, for a profile with changes by section."""

    def build(image: str = "VLLM", /, **changes: dict[str, Any]) -> dict[str, str]:
        spec = SPEC | {"engine": {"name": image, "version": ENGINES[image][0]}}
        for section, fields in changes.items():
            spec[section] = spec[section] | fields
        try:
            fingerprint = kv_fingerprint(spec)
        except CoreError:
            fingerprint = "of nothing"
        path = tmp_path / "profile.json"
        path.write_text(json.dumps(spec))
        return {
            "POD_NAME": "pool-7", "POD_NAMESPACE": "ns", "POD_IP": "10.1.2.3", "PRFAAS_PROFILE_PATH": str(path),
            "PRFAAS_KV_FINGERPRINT": fingerprint, "VLLM_NIXL_SIDE_CHANNEL_HOST": "10.1.2.3",
            "VLLM_NIXL_SIDE_CHANNEL_PORT": "5600", "PYTHONHASHSEED": "0", "PATH": "/bin",
        }  # fmt: skip

    return build


def command(given: dict[str, str], *arguments: str, engine: str = "VLLM", extra: tuple[str, ...] = ()) -> Command:
    version, module = ENGINES[engine]
    worker = container.read(given, engine, lambda: version)
    built: Command = module.build(module.parser().parse_args(arguments), worker, given, extra)
    return built


def flags(built: Command, head: int) -> dict[str, str]:
    rest = [argument for argument in built.arguments[head:] if argument != "--enable-metrics"]
    return dict(zip(rest[::2], rest[1::2], strict=True))


@pytest.mark.parametrize(
    ("role", "kv_role"), [("prefill", "kv_producer"), ("decode", "kv_consumer"), ("both", "kv_both")]
)
def test_vllm_gets_the_profile_and_the_side_channel(
    environment: Callable[..., dict[str, str]], role: str, kv_role: str
) -> None:
    """Every field of the fingerprint that vLLM has an argument for is an argument; the connector knows its role."""
    built = command(environment(), f"--role={role}")
    assert built.arguments[:3] == ("vllm", "serve", "org/model")
    given = flags(built, 3)
    assert json.loads(given.pop("--kv-transfer-config")) == {
        "kv_connector": "NixlConnector", "kv_role": kv_role, "engine_id": "pool-7", "kv_load_failure_policy": "fail",
        "kv_connector_extra_config": {"kv_lease_duration": 30},
    }  # fmt: skip
    assert given == {
        "--served-model-name": "org/model", "--revision": "abc", "--host": "10.1.2.3", "--port": "8000",
        "--max-model-len": "32768", "--block-size": "16", "--kv-cache-dtype": "fp8_e4m3",
        "--tensor-parallel-size": "8", "--pipeline-parallel-size": "1",
    }  # fmt: skip
    assert built.environment["VLLM_KV_CACHE_LAYOUT"] == "LBHNC"
    assert built.environment["VLLM_NIXL_SIDE_CHANNEL_HOST"] == "10.1.2.3"
    assert built.environment["PATH"] == "/bin"


def test_vllm_pushes_when_the_profile_says_so(environment: Callable[..., dict[str, str]]) -> None:
    """And lease and policy follow the command line."""
    given = environment(kv={"connector": {"name": "NixlPushConnector", "version": "15"}})
    built = command(given, "--role=decode", "--kv-lease-duration-s=90", "--kv-load-failure-policy=recompute")
    config = json.loads(flags(built, 3)["--kv-transfer-config"])
    assert config["kv_connector"] == "NixlPushConnector"
    assert config["kv_connector_extra_config"] == {"kv_lease_duration": 90}
    assert config["kv_load_failure_policy"] == "recompute"


def test_a_local_folder_has_no_revision(environment: Callable[..., dict[str, str]]) -> None:
    """It is loaded from its path and served under the profile's name; other arguments pass through."""
    built = command(environment(), "--role=both", "--model=/models/m", extra=("--max-num-seqs", "64"))
    assert built.arguments[2] == "/models/m"
    assert "--revision" not in built.arguments
    assert built.arguments[-2:] == ("--max-num-seqs", "64")


def test_vllm_finishes_what_it_has_when_it_is_told_to_go(environment: Callable[..., dict[str, str]]) -> None:
    """It aborts requests otherwise; whoever says something else is heard. SGLang finishes them by itself."""
    given = environment() | {"PRFAAS_DRAIN_SECONDS": "300"}
    assert flags(command(given, "--role=prefill"), 3)["--shutdown-timeout"] == "300"
    own = command(given, "--role=prefill", extra=("--shutdown-timeout=5",)).arguments
    assert [argument for argument in own if argument.startswith("--shutdown-timeout")] == ["--shutdown-timeout=5"]


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_sglang_gets_its_role_and_its_transfer_backend(environment: Callable[..., dict[str, str]], role: str) -> None:
    """With the page size and element type that both sides must have alike."""
    given = environment("SGLang", kv={"connector": {"name": "mooncake_tcp", "version": "1"}})
    built = command(given, f"--role={role}", engine="SGLang")
    assert built.arguments[:3] == ("python3", "-m", "sglang.launch_server")
    assert flags(built, 3) == {
        "--model-path": "org/model", "--served-model-name": "org/model", "--revision": "abc", "--host": "10.1.2.3",
        "--port": "8000", "--context-length": "32768", "--page-size": "16", "--kv-cache-dtype": "fp8_e4m3",
        "--tp-size": "8", "--pp-size": "1", "--disaggregation-mode": role,
        "--disaggregation-transfer-backend": "mooncake_tcp", "--disaggregation-bootstrap-port": "8998",
    }  # fmt: skip
    assert built.environment["SGLANG_HOST_IP"] == "10.1.2.3"


def test_sglang_on_its_own_has_no_disaggregation(environment: Callable[..., dict[str, str]]) -> None:
    """The only way in which the router uses it today."""
    built = command(environment("SGLang"), "--role=both", engine="SGLang")
    assert not [argument for argument in built.arguments if argument.startswith("--disaggregation")]


@pytest.mark.parametrize("name", sorted(["POD_NAME", "POD_IP", "PRFAAS_PROFILE_PATH", "PRFAAS_KV_FINGERPRINT",
                                         "VLLM_NIXL_SIDE_CHANNEL_HOST", "VLLM_NIXL_SIDE_CHANNEL_PORT"]))  # fmt: skip
@pytest.mark.parametrize("empty", [False, True])
def test_a_missing_variable_is_named(environment: Callable[..., dict[str, str]], name: str, empty: bool) -> None:
    """An empty one is missing too; the message says who sets it."""
    given = environment()
    if empty:
        given[name] = ""
    else:
        del given[name]
    with pytest.raises(CoreError, match=f"^{name}: is missing; the operator sets it"):
        command(given, "--role=both")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"POD_IP": "localhost"}, r"POD_IP: 'localhost' is not valid; give the pod's IP address \(status.podIP\)"),
        (
            {"VLLM_NIXL_SIDE_CHANNEL_HOST": "0.0.0.0"},
            "VLLM_NIXL_SIDE_CHANNEL_HOST: '0.0.0.0' is not valid; give the pod's",
        ),
        ({"VLLM_NIXL_SIDE_CHANNEL_PORT": "99999"}, "VLLM_NIXL_SIDE_CHANNEL_PORT: '99999' is not valid; give a port"),
        ({"VLLM_NIXL_SIDE_CHANNEL_PORT": "kv"}, "VLLM_NIXL_SIDE_CHANNEL_PORT: 'kv' is not valid; give a port"),
        (
            {"PRFAAS_PROFILE_PATH": "/nowhere.json"},
            "PRFAAS_PROFILE_PATH: '/nowhere.json' is not valid; give a readable",
        ),
        (
            {"PRFAAS_KV_FINGERPRINT": "00"},
            "PRFAAS_KV_FINGERPRINT: '00' is not valid; the profile's is [0-9a-f]{64}; give",
        ),
        ({"VLLM_KV_CACHE_LAYOUT": "NHD"}, "VLLM_KV_CACHE_LAYOUT: 'NHD' is not valid; the profile says kv.layout LBHNC"),
    ],
)
def test_a_wrong_variable_is_named_with_its_value_and_the_way_out(
    environment: Callable[..., dict[str, str]], change: dict[str, str], message: str
) -> None:
    """Whatever the operator or a template got wrong."""
    with pytest.raises(CoreError, match=f"^{message}"):
        command(environment() | change, "--role=both")


@pytest.mark.parametrize(
    ("engine", "changes", "message"),
    [
        ("VLLM", {"engine": {"name": "SGLang"}}, "engine.name: 'SGLang' is not valid; this image runs VLLM"),
        ("VLLM", {"engine": {"version": "0.32.0"}}, "engine.version: '0.32.0' is not valid; this image has 0.33.0"),
        ("VLLM", {"kv": {"connector": {"name": "MooncakeConnector", "version": "1"}}}, "kv.connector.name: 'Mooncake"),
        ("SGLang", {"kv": {"connector": {"name": "NixlConnector", "version": "1"}}}, "kv.connector.name: 'NixlConn"),
        ("VLLM", {"model": {"maxModelLenTokens": 0}}, "model.maxModelLenTokens: 0 is not valid"),
        ("VLLM", {"kv": {"pageSizeTokens": "16"}}, "kv.pageSizeTokens: '16' is not valid"),
    ],
)
def test_a_profile_that_the_image_cannot_serve_is_refused(
    environment: Callable[..., dict[str, str]], engine: str, changes: dict[str, Any], message: str
) -> None:
    """The fingerprint states engine, version and connector: what runs has to be that."""
    given = environment(engine, **changes)
    with pytest.raises(CoreError, match=f"^{message}"):
        command(given, "--role=prefill", engine=engine)


@pytest.mark.parametrize("extra", [("--block-size=32",), ("--kv-cache-dtype", "auto"), ("--revision", "main")])
def test_what_the_profile_decides_cannot_be_overridden(
    environment: Callable[..., dict[str, str]], extra: tuple[str, ...]
) -> None:
    """Otherwise the fingerprint would say of the KV what is not so."""
    with pytest.raises(CoreError, match=f"^{extra[0].split('=')[0]}: .* the profile decides it"):
        command(environment(), "--role=both", extra=extra)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "distribution"), [("VLLM", "vllm"), ("SGLang", "sglang")])
def test_the_module_becomes_the_engine(
    environment: Callable[..., dict[str, str]], tmp_path: Path, engine: str, distribution: str
) -> None:
    """As in the image: core and entry points alone on the path, with a stand-in that prints how it was called."""
    repository = Path(__file__).resolve().parents[2]
    text = (repository / f"worker-images/{distribution}/Dockerfile").read_text()
    root = tmp_path / "root"
    for line in text.splitlines():
        if line.startswith("COPY "):
            source, target = line.split()[1:]
            link = root / target.removeprefix("/")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(repository / source)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("vllm", "python3"):
        (programs / name).write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        (programs / name).chmod(0o755)
    metadata = root / f"opt/prfaas/{distribution}-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {ENGINES[engine][0]}\n")
    given = environment(engine) | {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(root / "opt/prfaas")}
    entry = json.loads(text[text.index("ENTRYPOINT ") + 11 :])[1:]
    result = subprocess.run(
        [sys.executable, "-S", *entry, "--role=both", "--", "--own-flag"],
        env=given, check=True, capture_output=True, text=True,
    )  # fmt: skip
    lines = result.stdout.splitlines()
    assert lines[0] == {"VLLM": "serve", "SGLang": "-m"}[engine]
    assert lines[-1] == "--own-flag"
    given["POD_IP"] = ""
    failed = subprocess.run(
        [sys.executable, "-S", *entry, "--role=both"], env=given, check=False, capture_output=True, text=True
    )
    assert failed.returncode == 1
    assert failed.stderr.startswith(f"prfaas-{distribution}: POD_IP: is missing")
