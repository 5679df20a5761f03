"""The shipped kit for authors of plugins: builders of values, simulators of plugins, the conformance suite.

``builders`` make a ToolCall or a Policy as the core would · ``simulators`` are small plugins that answer, object or
fail on purpose · ``conformance.check`` says what of the contract a plugin breaks. Needs no test framework.
"""

from safety_wrapper.testing.builders import make_call, make_context, make_policy
from safety_wrapper.testing.conformance import Finding, check

__all__ = ["Finding", "check", "make_call", "make_context", "make_policy"]
