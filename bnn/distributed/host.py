"""`HostMemory`: what ranks of one host tell each other, by memory that all of them see."""

from __future__ import annotations

import mmap
import os
import secrets
import socket
import struct
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from bnn.ops.memory import empty

_HALF_BYTES = 1 << 20
_RANK = struct.Struct("<I")
_CREDENTIALS = struct.Struct("3i")  # of a peer: its process, user and group, as unix(7) has them


class HostMemory:
    """A piece of memory of each rank, which it writes and the others read.

    A piece has two halves, used in turn: when ranks meet over one, all of them have read the other. They meet by a byte
    that each sends each over a socket, which ends with its rank. Nothing of this has a name in a file system, so that
    nothing is left behind.

    Args:
        pieces: uint8 [2, bytes of a half] of each rank.
        peers: sockets to the other ranks.
        rank: of this process.
    """

    def __init__(self, pieces: Sequence[Tensor], peers: dict[int, socket.socket], *, rank: int) -> None:
        self._pieces, self._peers, self._rank = pieces, peers, rank
        self._turn = 0
        weakref.finalize(self, _close, list(peers.values()))

    def send(self, rows: Sequence[Tensor], wholes: Sequence[Tensor]) -> list[Tensor]:
        """What the ranks have in the row of this one of each of `rows`, and what they have of each of `wholes`.

        Args:
            rows: contiguous [ranks, ...], of the same shapes on all ranks.
            wholes: contiguous, of the same shapes on all ranks.

        Returns:
            [ranks, ...] of each.

        Raises:
            OSError: a rank has ended or does not answer.
        """
        rank, size, half = self._rank, len(self._pieces), self._pieces[0].shape[1]
        found = [empty(x.shape, x.dtype) for x in rows]
        found += [empty((size, *x.shape), x.dtype) for x in wholes]
        for own, of_all in zip((*(x[rank] for x in rows), *wholes), found, strict=True):
            of_all[rank] = own
        # Parts one behind the other: what is for the next rank, then for that after it, at last what is for all.
        outgoing = [_bytes(x[(rank + ahead) % size]) for ahead in range(1, size) for x in rows]
        outgoing += [_bytes(x) for x in wholes]
        incoming = {other: self._places(found, len(rows), other) for other in self._peers}
        sizes = [len(part) for part in outgoing]
        for begin in range(0, sum(sizes), half):
            turn, self._turn = self._turn, 1 - self._turn
            overlaps = list(_overlaps(sizes, begin, begin + half))
            for part, of_part, of_half in overlaps:
                self._pieces[rank][turn, of_half] = outgoing[part][of_part]
            self._meet()
            for other, places in incoming.items():
                for part, of_part, of_half in overlaps:
                    if part in places:
                        places[part][of_part] = self._pieces[other][turn, of_half]
        return found

    def _places(self, found: Sequence[Tensor], rows: int, other: int) -> dict[int, Tensor]:
        """Where the parts of another rank go that are for this one, by their number."""
        size, ahead = len(self._pieces), (self._rank - other) % len(self._pieces)
        first = [(ahead - 1) * rows + i for i in range(rows)]
        whole = [(size - 1) * rows + i for i in range(len(found) - rows)]
        return {part: _bytes(of_all[other]) for part, of_all in zip(first + whole, found, strict=True)}

    def _meet(self) -> None:
        """Returns when all ranks have come here."""
        for peer in self._peers.values():
            peer.sendall(b"\0")
        for peer in self._peers.values():
            _receive(peer)


def share_memory(
    texts: Callable[[str], list[str]], all_are: Callable[[bool], bool], *, rank: int, patience_s: float
) -> HostMemory | None:
    """That of the ranks of a group, all of which call this; None where they are not on one host, or not on Linux.

    Args:
        texts: gives the texts of all ranks.
        all_are: whether all ranks say so.
        rank: of this process.
        patience_s: that a rank waits for another.

    Raises:
        OSError: a rank has ended or does not answer.
    """
    name = secrets.token_hex(16)
    with ExitStack() as here:
        try:
            own = os.memfd_create("bnn-rank")
            here.callback(os.close, own)
            os.ftruncate(own, 2 * _HALF_BYTES)
            listener = here.enter_context(socket.socket(socket.AF_UNIX))
            listener.settimeout(patience_s)
            listener.bind(f"\0{name}")
            listener.listen()
            has_memory = hasattr(socket, "SO_PEERCRED")
        except (AttributeError, OSError):  # another system, or one that forbids it
            has_memory = False
        if not all_are(has_memory):
            return None
        names = texts(name)
        lower = {other: _reached(names[other], patience_s) for other in range(rank)}
        peers = {other: peer for other, peer in lower.items() if peer is not None}
        if not all_are(len(peers) == rank):
            _close(list(peers.values()))
            return None
        for peer in peers.values():
            peer.sendall(_RANK.pack(rank))
        while len(peers) < len(names) - 1:
            peer, _ = listener.accept()
            peer.settimeout(patience_s)
            if _is_of_this_user(peer):
                peers[_RANK.unpack(peer.recv(_RANK.size))[0]] = peer
            else:
                peer.close()
        for peer in peers.values():
            socket.send_fds(peer, [b"\0"], [own])
        pieces = [_mapped(own) if other == rank else _received(peers[other]) for other in range(len(names))]
    return HostMemory(pieces, peers, rank=rank)


def _reached(name: str, patience_s: float) -> socket.socket | None:
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(patience_s)
    try:
        peer.connect(f"\0{name}")
        if _is_of_this_user(peer):
            return peer
    except OSError:  # no rank of this host has the name
        pass
    peer.close()
    return None


def _is_of_this_user(peer: socket.socket) -> bool:
    _, user, _ = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return bool(user == os.getuid())


def _close(peers: Sequence[socket.socket]) -> None:
    for peer in peers:
        peer.close()


def _receive(peer: socket.socket) -> None:
    if not peer.recv(1):
        raise ConnectionError("a rank has ended")


def _received(peer: socket.socket) -> Tensor:
    """Another rank's piece."""
    descriptor = socket.recv_fds(peer, 1, 1)[1][0]
    try:
        return _mapped(descriptor)
    finally:
        os.close(descriptor)


def _mapped(descriptor: int) -> Tensor:
    return torch.frombuffer(mmap.mmap(descriptor, 2 * _HALF_BYTES), dtype=torch.uint8).view(2, _HALF_BYTES)


def _overlaps(sizes: Sequence[int], begin: int, end: int) -> Iterator[tuple[int, slice, slice]]:
    """What of parts, one behind the other, lies in [begin, end): the part, where in it, and where behind `begin`."""
    at = 0
    for part, size in enumerate(sizes):
        first, last = max(at, begin), min(at + size, end)
        if first < last:
            yield part, slice(first - at, last - at), slice(first - begin, last - begin)
        at += size


def _bytes(x: Tensor) -> Tensor:
    return x.view(-1).view(torch.uint8)
