"""The lock of the recommended profile: a shim that fails to register leaves the agent with no tool at all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from integration.conftest import TOOLS, settings
from integration.gateway import Gateway, Provider, Toolchain, scratch

pytestmark = pytest.mark.gateway


@pytest.fixture(scope="module")
def broken(provider: Provider, chain: Toolchain) -> Iterator[Gateway]:
    root = scratch("sw-broken-")
    gateway = Gateway(root, settings(root), TOOLS, chain, provider)
    index = gateway.layout.plugin / "index.js"
    code = index.read_text()
    index.chmod(0o640)
    index.write_text(
        code.replace("function register(api) {", 'function register(api) {\n  throw new Error("broken on purpose");')
    )
    assert index.read_text() != code
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.close()


def test_a_shim_that_fails_to_register_leaves_no_tool(broken: Gateway) -> None:
    marker = broken.layout.home / "workspace" / "ran"
    turn = broken.turn([{"tools": [{"name": "exec", "args": {"command": f"touch {marker}"}}]}, {"text": "done"}])
    assert turn.offered == []
    assert turn.results == []  # the run was refused before the model was asked
    assert turn.status != "ok"
    assert not marker.exists()
    assert "broken on purpose" in broken.output()
