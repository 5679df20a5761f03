"""The tenant's side of the Hub protocol: empty for now, and usable alone. Imports nothing of safety_wrapper."""
