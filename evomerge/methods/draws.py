"""Random numbers as a function: the same element always gets the same draw.

A draw depends on a 64-bit key (of seed, tensor name and source) and the element's flat index: the
key gives an odd stride and an offset, and a 32-bit finalizer scrambles `index * stride + offset`.
All of it is int32 arithmetic that wraps, so CPU and GPU agree in every bit, and any block can be
computed alone.
"""

import hashlib
from dataclasses import dataclass

import torch

__all__ = [
    "LEVELS",
    "LEVEL_SHIFT",
    "ROUNDS",
    "Draws",
    "bound_level",
    "draw_bound",
    "draw_key",
    "draw_level",
    "keep",
    "level_bound",
]

_LOW = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9
# lowbias32, found by C. Wellons 2018 (hash-prospector)
ROUNDS = ((16, 0x7FEB352D), (15, 0x846CA68B - (1 << 32)), (16, None))
"""Shifts and multipliers of the finalizer."""


def draw_key(seed: int, tensor: str, source: str) -> int:
    """Return the 64-bit key of the draws for one merged tensor and one source.

    Args:
        seed: The run's seed.
        tensor: Name of the merged tensor.
        source: What identifies the checkpoint: its fingerprint, so that the draws stay the same
            where a checkpoint is moved, renamed, or listed in another order.
    """
    text = f"{seed}\x00{tensor}\x00{source}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


LEVELS = 1 << 12
"""A drop's density is one of so many; sums of what each keeps are facts about the sources."""


LEVEL_SHIFT = 32 - LEVELS.bit_length() + 1
"""A draw shifted right by so many bits, plus `LEVELS / 2`, is the lowest level that drops it."""


def draw_level(density: float) -> int:
    """Return the level, from 1 to `LEVELS` - 1, that is nearest to a density between 0 and 1."""
    return min(max(round(density * LEVELS), 1), LEVELS - 1)


def level_bound(level: int) -> int:
    """Return the bound below which a draw lies with probability `level / LEVELS`."""
    return level * (2**32 // LEVELS) - 2**31


def bound_level(bound: int) -> int | None:
    """Return the level whose bound this is, or None."""
    level, rest = divmod(bound + 2**31, 2**32 // LEVELS)
    return level if rest == 0 and 0 < level < LEVELS else None


def draw_bound(density: float) -> int:
    """Return the bound that a draw lies below with probability `density`, for 0 < density < 1.

    It grows with the density, so a higher density keeps all that a lower one keeps.
    """
    return int(density * 2.0**32) - 2**31


@dataclass(frozen=True, slots=True)
class Draws:
    """The uniform signed 32-bit numbers of one source of one merged tensor.

    Attributes:
        key: From `draw_key`.
        known: All of them, int32, if they are few enough to be kept; else they are computed.
    """

    key: int
    known: torch.Tensor | None = None

    def start(self) -> tuple[int, int]:
        """Return the stride and the offset of the first 2**32 elements, as int32."""
        return _signed((self.key >> 32) | 1), _signed(self.key)

    def block(
        self, start: int, iota: torch.Tensor, out: torch.Tensor, scratch: torch.Tensor
    ) -> torch.Tensor:
        """Return the numbers of a block of elements, read-only.

        Args:
            start: Flat index of the first element. A block does not cross a multiple of 2**32.
            iota: 0, 1, …, int32 of shape (n,).
            out: int32 of shape (n,), where numbers are computed.
            scratch: The same.
        """
        if self.known is not None:
            return self.known[start : start + iota.numel()]
        stride = (self.key >> 32) | 1
        offset = (self.key ^ ((start >> 32) * _GOLDEN)) & _LOW
        torch.mul(iota, _signed(stride), out=out)
        out.add_(_signed(start * stride + offset))
        for shift, multiplier in ROUNDS:
            # int32 shifts keep the sign: the mask makes them logical.
            torch.bitwise_right_shift(out, shift, out=scratch)
            out.bitwise_xor_(scratch.bitwise_and_((1 << (32 - shift)) - 1))
            if multiplier is not None:
                out.mul_(multiplier)
        return out


def keep(values: torch.Tensor, mask: torch.Tensor) -> None:
    """Set elements to 0 where a mask is 0.

    Args:
        values: float32 of shape (n,).
        mask: int32 of 0 and 1, which is spoilt.
    """
    # 1 and 0 become all bits and none; on a float32's bits that is the element and 0.
    values.view(torch.int32).bitwise_and_(mask.neg_())


def _signed(value: int) -> int:
    value &= _LOW
    return value - (1 << 32) if value >= 1 << 31 else value
