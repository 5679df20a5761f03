"""The tenant side of the Hub protocol. Empty until the Hub issue; imports nothing of safety_wrapper."""
