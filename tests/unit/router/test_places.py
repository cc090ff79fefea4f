"""What references in a request mean, and the fingerprint of an input wherever its bytes are."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.support.arenas import PAGE_BYTES, closing, make_memfd
from tests.support.desk import make_request
from trtd.core.arenas import Arena, ArenaBook
from trtd.core.ids import RequestId
from trtd.core.requests import Request
from trtd.errors import ArenaUnknown, Malformed
from trtd.router import places
from trtd.router.access import Peer
from trtd.router.intake import fingerprint, refuse_frames
from trtd.router.places import PIECE_BYTES, resolve
from trtd.wire.arenas import REF_BYTES, ArenaRef, encode_ref
from trtd.wire.codec import encode_client_message
from trtd.wire.messages import Dtype, InferRequest, Place, TensorSpec

ANN = (1000, 4711)
ADDRESS = "localhost:1000:1000:4711"


def make_message(*places: Place, size: int = 8, **fields: Any) -> InferRequest:
    inputs = tuple(TensorSpec(f"x{at}", Dtype.UINT8, (size,), place) for at, place in enumerate(places))
    return InferRequest(RequestId(bytes(16)), "m", None, inputs, **fields)


def make_book(*sizes: int) -> tuple[ArenaBook, list[Arena]]:
    """A book with one arena of ANN's for each size, under the keys 1, 2 and so on."""
    book = ArenaBook(1 << 40)
    arenas = [Arena(key, size, ANN, fd=-1) for key, size in enumerate(sizes, start=1)]
    for arena in arenas:
        book.add(arena)
    return book, arenas


def digest_of(message: InferRequest, frames: list[bytes], memory: tuple[Arena, ...] = ()) -> bytes:
    request: Request = make_request(payload=(encode_client_message(message), *frames), memory=memory)
    return fingerprint(request)


def test_each_arena_is_held_once():
    """Inputs in several arenas and an area hold each arena once; what travels in frames is looked at no further."""
    book, (first, second) = make_book(1000, 1000)
    message = make_message(Place.ARENA, Place.FRAME, Place.ARENA, has_area=True)
    frames = [encode_ref(ArenaRef(1, 64, 8)), bytes(8), encode_ref(ArenaRef(1, 0, 8)), encode_ref(ArenaRef(2, 0, 1000))]
    arenas, beside_bytes = resolve(book, ADDRESS, message, frames)
    assert (arenas, beside_bytes) == ((first, second), 2 * (8 - REF_BYTES))


@pytest.mark.parametrize(
    "address", ["localhost:1000:1000:4712", "localhost:1001:1000:4711", "localhost:1000:1000:0", "127.0.0.1", ""]
)
def test_who_is_not_the_owner_has_no_arena(address):
    """Another process, another user, one without a number and one from another host own nothing, as area too."""
    book, _ = make_book(1000)
    for key in (1, 7):
        with pytest.raises(ArenaUnknown):
            resolve(book, address, make_message(Place.ARENA), [encode_ref(ArenaRef(key, 0, 8))])
        with pytest.raises(ArenaUnknown):
            resolve(book, address, make_message(has_area=True), [encode_ref(ArenaRef(key, 0, 8))])


def test_processes_without_a_number_are_told_apart_by_user_and_key():
    """What came from another pid namespace is found by its key, by such processes of the same user alone."""
    book, _ = make_book(1000)
    book.add(hidden := Arena(8, 1000, Peer(1000, 1000, 0).process, fd=-1))
    message, frames = make_message(Place.ARENA), [encode_ref(ArenaRef(8, 0, 8))]
    assert resolve(book, "localhost:1000:1000:0", message, frames)[0] == (hidden,)
    for address in (ADDRESS, "localhost:1001:1000:0", "localhost:1000:1000:4712"):
        with pytest.raises(ArenaUnknown):
            resolve(book, address, message, frames)


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([bytes(8)], "is one more frame of 24 bytes"),
        ([bytes(8), bytes(23)], "is one more frame of 24 bytes"),
        ([bytes(8), bytes(24), bytes(24)], "is one more frame of 24 bytes"),
        ([], "names 1 tensors, the message has 0"),
        ([bytes(7), bytes(24)], "its frame has 7 bytes"),
    ],
)
def test_an_area_is_one_more_frame(frames, words):
    """A request with an area and other frames than its header says is malformed, and the line says which."""
    with pytest.raises(Malformed, match=words):
        refuse_frames(make_message(Place.FRAME, has_area=True), frames)


def test_the_fingerprint_is_of_the_bytes():
    """The same input has the same fingerprint in frames, in an arena, and with an area; another input has not."""
    size = PIECE_BYTES + 100
    tensor = os.urandom(size)
    with closing(make_memfd(4 * PIECE_BYTES)) as (fd,):
        os.pwrite(fd, tensor, PAGE_BYTES)
        arena = Arena(1, 4 * PIECE_BYTES, ANN, fd)
        in_frames = digest_of(make_message(Place.FRAME, size=size), [tensor])
        ref = encode_ref(ArenaRef(1, PAGE_BYTES, size))
        assert digest_of(make_message(Place.ARENA, size=size), [ref], (arena,)) == in_frames
        area = encode_ref(ArenaRef(1, 0, 64))
        assert digest_of(make_message(Place.ARENA, size=size, has_area=True), [ref, area], (arena,)) == in_frames
        other = encode_ref(ArenaRef(1, PAGE_BYTES + 64, size))
        assert digest_of(make_message(Place.ARENA, size=size), [other], (arena,)) != in_frames
        for changed in (0, PIECE_BYTES, size - 1):
            os.pwrite(fd, bytes([tensor[changed] ^ 1]), PAGE_BYTES + changed)
            assert digest_of(make_message(Place.ARENA, size=size), [ref], (arena,)) != in_frames
            os.pwrite(fd, tensor[changed : changed + 1], PAGE_BYTES + changed)
    # Of a memory that cannot be read nothing is known, and that is no reason to fail.
    assert digest_of(make_message(Place.ARENA, size=size), [ref], (arena,)) != in_frames


def test_a_very_large_input_is_sampled_alike_wherever_it_is(monkeypatch):
    """Of more bytes than may be read every so many pieces are, the same ones in frames and in an arena."""
    monkeypatch.setattr(places, "MAX_READ_BYTES", 2 * PIECE_BYTES)
    size = 8 * PIECE_BYTES
    tensor = bytearray(size)
    with closing(make_memfd(size + PAGE_BYTES)) as (fd,):
        arena = Arena(1, size + PAGE_BYTES, ANN, fd)
        ref = encode_ref(ArenaRef(1, PAGE_BYTES, size))
        before = digest_of(make_message(Place.FRAME, size=size), [bytes(tensor)])
        assert digest_of(make_message(Place.ARENA, size=size), [ref], (arena,)) == before
        tensor[4 * PIECE_BYTES] = 1
        os.pwrite(fd, tensor, PAGE_BYTES)
        after = digest_of(make_message(Place.FRAME, size=size), [bytes(tensor)])
        assert after != before
        assert digest_of(make_message(Place.ARENA, size=size), [ref], (arena,)) == after
