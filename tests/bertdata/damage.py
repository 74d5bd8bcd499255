"""Damage to bytes, drawn at random: what a file can come to."""

import random


def damage(data: bytes, draw: random.Random) -> bytes:
    """Does to a file what disks, networks and careless copying do."""
    place, length = draw.randrange(len(data)), draw.choice([1, 2, 16, 512])
    run = data[place : place + length]
    kind = draw.choice(["bit", "bit", "cut", "cut", "loss", "zeros", "noise", "twice"])
    if kind == "cut":
        return data[:place]
    new = {
        "bit": bytes([run[0] ^ (1 << draw.randrange(8))]) + run[1:],
        "loss": b"",
        "zeros": bytes(len(run)),
        "noise": draw.randbytes(len(run)),
        "twice": run * 2,
    }
    return data[:place] + new[kind] + data[place + len(run) :]
