"""Proof, by measurement on a model, that steering writes where it is meant to."""

from steering.certificate.certificate import Certificate, certify

__all__ = ["Certificate", "certify"]
