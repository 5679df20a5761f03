"""Built values are those that the core makes."""

import pytest

from safety_wrapper.errors import BundleFormatError, CanonicalError
from safety_wrapper.model import CallId, ToolKind
from safety_wrapper.normalise import Catalogue, Proposal, normalise
from safety_wrapper.policy import parse
from safety_wrapper.testing import make_call, make_context, make_policy
from safety_wrapper.testing.purity import watch


def test_a_built_call_is_the_one_that_the_core_makes(base_bundle):
    bundle = parse(base_bundle)
    proposal = Proposal("call_test", "sw_exec", ToolKind.OWN_TOOL, {"command": "ls"}, make_context())
    made = normalise(proposal, Catalogue.of(bundle), CallId("call_test"), workspace="work")
    definition = bundle.tools["exec"].definition_sha256
    assert make_call("exec", {"command": "ls"}, tool_definition_sha256=definition) == made


def test_a_call_without_canonical_form_is_refused():
    with pytest.raises(CanonicalError):
        make_call("exec", {"command": "\ud800"})


def test_a_built_policy_is_a_policy():
    policy = make_policy(domains=["example.com"], internal_hosts=["db:5432"])
    assert (policy.tenant.domains, policy.tenant.internal_hosts) == (("example.com",), ("db:5432",))
    assert make_policy() == make_policy()
    assert make_policy({"version": 2}).bundle.sha256 != make_policy().bundle.sha256
    with pytest.raises(BundleFormatError):
        make_policy({"no_such_section": {}})


def test_io_is_seen_while_it_is_watched_and_only_then(tmp_path):
    with watch() as seen:
        (tmp_path / "x").write_text("x")
    assert "open" in seen
    count = len(seen)
    (tmp_path / "y").write_text("y")
    assert len(seen) == count
    with watch() as nothing:
        sum(range(10))
    assert nothing == []
