"""Seeds for torch's generators."""

import hashlib


def seed_of(*parts: int) -> int:
    """A 63-bit seed whose every bit depends on all of `parts` and on their order.

    torch's CPU generator uses the lower 32 bits alone, so parts must not sit side by side in a seed.
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
