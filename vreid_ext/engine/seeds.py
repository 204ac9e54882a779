"""Derivation of seeds for torch's generators."""

import hashlib


def seed_of(*parts: int) -> int:
    """Hash `parts` to a 63-bit seed.

    The parts are not packed into separate bits, because torch's CPU generator uses only the lower 32 bits.
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
