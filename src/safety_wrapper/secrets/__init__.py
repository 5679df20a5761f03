"""Secrets by reference: what everybody sees is ``SECRET_REF(name)``.

This installation has the grammar only. Until the vault process exists, a call that carries a reference is refused,
and ``status`` names redaction as a layer that is absent.
"""

from safety_wrapper.secrets.reference import contains_reference

__all__ = ["contains_reference"]
