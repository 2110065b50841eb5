"""Proof, by measurement on a model, that steering writes where it is meant to."""

from steering.certificate.certificate import Certificate, certify
from steering.certificate.through_vllm import certify_through_vllm

__all__ = ["Certificate", "certify", "certify_through_vllm"]
