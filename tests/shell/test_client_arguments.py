"""All that callers pass to the public functions of the clients: what can be sent arrives, the rest is refused."""

from __future__ import annotations

import array
import asyncio
import copy
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.client_router import WAIT_S, StandInRouter
from trtd import aio
from trtd.client import Answer, BFloat16, Client, CurveKeys
from trtd.errors import InvalidInput, Overloaded, TrtdError, UnsupportedDtype, Usage
from trtd.wire.messages import InferRequest

X = {"x": np.ones((1, 4), np.float32)}
NUMBERS = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/a.sock"


@pytest.fixture
def router(address: str) -> Iterator[StandInRouter]:
    with StandInRouter(address) as router:
        yield router


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address, timeout=WAIT_S) as client:
        yield client


class Tensor:
    """A tensor of another library: reached by DLPack alone."""

    def __init__(self, values: np.ndarray[Any, Any]) -> None:
        self._values = values

    def __dlpack__(self, **options: Any) -> Any:
        return self._values.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._values.__dlpack_device__()


class Series:
    """A column of a table: reached by `__array__` alone."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
        return NUMBERS


class OnAnotherDevice(Series):
    """As a tensor on a GPU answers."""

    def __dlpack__(self, **_: Any) -> Any:
        raise BufferError("not on the CPU")

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
        raise TypeError("can't convert a cuda:0 tensor;\nuse Tensor.cpu()")


READ_ONLY = NUMBERS.copy()
READ_ONLY.flags.writeable = False

TAKEN: dict[str, tuple[Any, np.ndarray[Any, Any]]] = {
    "a list of floats": ([[0.0, 1, 2], [3, 4, 5]], NUMBERS),
    "a tuple of whole numbers": ((1, 2), np.array([1, 2], np.int64)),
    "a list of bools": ([True, False], np.array([True, False])),
    "a list of arrays": ([NUMBERS[0].astype(np.float64), NUMBERS[1].astype(np.float64)], NUMBERS.astype(np.float64)),
    "an empty list": ([], np.zeros(0, np.float32)),
    "a float": (1.5, np.array(1.5, np.float32)),
    "a whole number": (7, np.array(7, np.int64)),
    "a NaN": (float("nan"), np.array(np.nan, np.float32)),
    "an infinite one": ([float("-inf")], np.array([-np.inf], np.float32)),
    "a scalar of NumPy": (np.float64(1.5), np.array(1.5, np.float64)),
    "DLPack": (Tensor(NUMBERS), NUMBERS),
    "DLPack, transposed": (Tensor(NUMBERS.T), NUMBERS.T),
    "__array__": (Series(), NUMBERS),
    "a buffer": (memoryview(b"\x01\x02"), np.array([1, 2], np.uint8)),
    "an array of the standard library": (array.array("d", [1, 2]), np.array([1, 2], np.float64)),
    "a subclass": (NUMBERS.view(np.recarray), NUMBERS),
    "a complex number": (1j, np.array(1j)),
    "read-only": (READ_ONLY, NUMBERS),
    "big-endian": (NUMBERS.astype(">f4"), NUMBERS),
    "strided": (NUMBERS[:, ::2], NUMBERS[:, ::2]),
    "reversed": (NUMBERS[::-1], NUMBERS[::-1]),
    "broadcast": (np.broadcast_to(np.float32(2), (3, 2)), np.full((3, 2), 2, np.float32)),
    "without dimensions": (np.array(3, np.int8), np.array(3, np.int8)),
    "without elements": (np.zeros((0, 4)), np.zeros((0, 4))),
}

REFUSED: dict[str, tuple[Any, type[TrtdError], str]] = {
    "None": (None, UnsupportedDtype, "'x': is None"),
    "strings": (["a", "b"], UnsupportedDtype, "<U1 does not travel"),
    "bytes": (b"ab", UnsupportedDtype, "does not travel"),
    "objects": (np.array([None]), UnsupportedDtype, "object does not travel"),
    "an object": (object(), UnsupportedDtype, "a object cannot be read as an array"),
    "a mapping": ({"y": 1}, UnsupportedDtype, "a dict cannot be read as an array"),
    "long doubles": (np.longdouble(1), UnsupportedDtype, "does not travel"),
    "dates": (np.array(["2020-01-01"], "M8[D]"), UnsupportedDtype, "does not travel"),
    "a structure": (np.zeros(2, "i4,f4"), UnsupportedDtype, "does not travel"),
    "rows of different lengths": ([[1.0], [1.0, 2.0]], InvalidInput, "a list cannot be read as an array"),
    "a number beyond float32": ([1e300], InvalidInput, "float32 cannot hold"),
    "a number beyond 64 bits": ([2**70], UnsupportedDtype, "a list cannot be read"),
    "masked": (np.ma.masked_array([1.0, 2.0], [True, False]), InvalidInput, "filled"),
    "a tensor on another device": (OnAnotherDevice(), InvalidInput, r"cuda:0 tensor; use Tensor\.cpu"),
}


@pytest.mark.parametrize(("value", "expected"), TAKEN.values(), ids=TAKEN)
def test_what_numpy_reads_as_an_array_is_sent_as_one(router, client, value, expected):
    """The daemon gets the dtype, the shape and the elements that are meant."""
    router.serve(router.answer)
    output = client.infer("m", {"x": value})["x"]
    assert isinstance(output, np.ndarray)
    assert (output.dtype, output.shape) == (expected.dtype.newbyteorder("="), expected.shape)
    np.testing.assert_array_equal(output, expected)


@pytest.mark.parametrize(("value", "error", "text"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_array_is_refused(router, client, value, error, text):
    """With one line that names the input; nothing is sent, not even the inputs that are good."""
    with pytest.raises(error, match=text) as caught:
        client.infer("m", {"a": NUMBERS, "x": value})
    assert "'x'" in caught.value.message
    assert "\n" not in str(caught.value)
    assert router.poll() is None


CALLS: dict[str, tuple[type[TrtdError], dict[str, Any]]] = {
    "model None": (Usage, {"model": None}),
    "model list": (Usage, {"model": ["m"]}),
    "model empty": (Usage, {"model": ""}),
    "model long": (Usage, {"model": "m" * 300}),
    "model lines": (Usage, {"model": "a\nb"}),
    "model surrogate": (Usage, {"model": "\ud800"}),
    "version number": (Usage, {"version": 3}),
    "version empty": (Usage, {"version": ""}),
    "inputs None": (InvalidInput, {"inputs": None}),
    "inputs list": (InvalidInput, {"inputs": [NUMBERS]}),
    "inputs array": (InvalidInput, {"inputs": NUMBERS}),
    "inputs text": (InvalidInput, {"inputs": "x"}),
    "name number": (InvalidInput, {"inputs": {1: NUMBERS}}),
    "name bytes": (InvalidInput, {"inputs": {b"x": NUMBERS}}),
    "name tuple": (InvalidInput, {"inputs": {("x",): NUMBERS}}),
    "name empty": (InvalidInput, {"inputs": {"": NUMBERS}}),
    "name None": (InvalidInput, {"inputs": {None: [1.0]}}),
    "too many": (InvalidInput, {"inputs": {f"x{number}": NUMBERS for number in range(5000)}}),
    "outputs text": (InvalidInput, {"outputs": "y"}),
    "outputs number": (InvalidInput, {"outputs": 3}),
    "outputs none": (InvalidInput, {"outputs": []}),
    "outputs numbers": (InvalidInput, {"outputs": [1]}),
    "outputs lists": (InvalidInput, {"outputs": [["y"]]}),
    "outputs twice": (InvalidInput, {"outputs": ["y", "y"]}),
    "timeout zero": (Usage, {"timeout": 0}),
    "timeout negative": (Usage, {"timeout": -1}),
    "timeout NaN": (Usage, {"timeout": float("nan")}),
    "timeout infinite": (Usage, {"timeout": float("inf")}),
    "timeout huge": (Usage, {"timeout": 1e300}),
    "timeout huge whole": (Usage, {"timeout": 10**400}),
    "timeout text": (Usage, {"timeout": "5"}),
    "timeout bool": (Usage, {"timeout": True}),
    "timeout bool of NumPy": (Usage, {"timeout": np.bool_(1)}),
    "timeout list": (Usage, {"timeout": [1.0]}),
    "timeout array": (Usage, {"timeout": np.ones(2)}),
    "priority 8": (Usage, {"priority": 8}),
    "priority -9": (Usage, {"priority": np.int64(-9)}),
    "priority float": (Usage, {"priority": 1.0}),
    "priority text": (Usage, {"priority": "1"}),
    "priority None": (Usage, {"priority": None}),
    "priority bool": (Usage, {"priority": True}),
    "priority array": (Usage, {"priority": np.ones(2, int)}),
}


@pytest.mark.parametrize(("error", "changes"), CALLS.values(), ids=CALLS)
def test_arguments_of_the_wrong_kind_are_refused(router, address, client, error, changes):
    """By every way to make a call, of both clients, with a typed error of one line; the client goes on as before."""
    arguments = {"model": "m", "inputs": X} | changes
    many = arguments | {"inputs": [arguments["inputs"]]}

    async def ask() -> None:
        async with aio.Client(address, timeout=WAIT_S) as other:
            with pytest.raises(error):
                await other.infer(**arguments)
            with pytest.raises(error):
                other.submit(**arguments)
            with pytest.raises(error):
                [answer async for answer in other.infer_many(**many)]

    for call in (client.infer, client.submit):
        with pytest.raises(error) as caught:
            call(**arguments)
        assert "\n" not in str(caught.value)
    with pytest.raises(error):
        list(client.infer_many(**many))
    asyncio.run(ask())
    assert router.poll() is None
    router.serve(router.answer)
    assert client.infer("m", X).model == "m"


@pytest.mark.parametrize(
    "arguments",
    [
        {"timeout": np.float32(5), "priority": np.int64(1)},
        {"timeout": 5, "priority": np.int8(-8), "version": np.str_("1")},
        {"timeout": np.array(5.0), "model": np.str_("m")},
        {"timeout": 366 * 86_400.0, "inputs": {}},
        {"inputs": {np.str_("x"): NUMBERS}},
    ],
)
def test_numbers_and_names_of_numpy_are_as_good_as_others(router, client, arguments):
    """They reach the daemon as what they stand for; no inputs at all are inputs too, and a year is a timeout."""
    messages = []

    def answer(received):
        messages.append(received.message)
        router.answer(received)

    router.serve(answer)
    client.infer(**{"model": "m", "inputs": X} | arguments)
    (message,) = messages
    assert isinstance(message, InferRequest)
    assert message.priority == arguments.get("priority", 0)
    assert message.timeout_s == float(arguments.get("timeout", WAIT_S))


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda client: client.infer_many("m", X), Usage),
        (lambda client: client.infer_many("m", None), Usage),
        (lambda client: client.infer_many("m", [X], window=0), Usage),
        (lambda client: client.infer_many("m", [X], window=1.5), Usage),
        (lambda client: client.infer_many(None, [X]), Usage),
        (lambda client: list(client.infer_many("m", [None])), InvalidInput),
        (lambda client: client.describe(3), Usage),
        (lambda client: client.describe(timeout="1"), Usage),
        (lambda client: client.health(timeout=-1), Usage),
        (lambda client: client.empty(-1), Usage),
        (lambda client: client.empty((-2, -(2**20))), Usage),
        (lambda client: client.empty("ab"), Usage),
        (lambda client: client.empty(2.5), Usage),
        (lambda client: client.empty(4, "no dtype"), Usage),
        (lambda client: client.empty((2**40, 2**40)), Usage),
        (lambda client: client.submit("m", X).result("1"), Usage),
        (lambda client: client.submit("m", X).exception(float("nan")), Usage),
        (lambda client: client.submit("m", X).add_done_callback(None), Usage),
    ],
)
def test_other_calls_refuse_what_they_do_not_take(router, client, call, error):
    """With a typed error at the call."""
    with pytest.raises(error) as caught:
        call(client)
    assert "\n" not in str(caught.value)


def test_shapes_of_every_kind_make_an_array(client):
    """A number of NumPy is a shape, and so is any sequence of numbers."""
    assert client.empty(np.int64(3)).shape == (3,)
    assert client.empty([np.int8(2), 3], "f8").shape == (2, 3)
    assert client.empty((), bool).shape == ()


@pytest.mark.parametrize("wait", [-1, 0, float("-inf")])
def test_a_wait_of_no_time_is_over_at_once(router, client, wait):
    """A handle that is not done says so, and the request goes on."""
    handle = client.submit("m", X)
    with pytest.raises(TimeoutError, match="goes on"):
        handle.result(wait)
    router.answer(router.receive())
    assert handle.result(1e300).model == "m"


@pytest.mark.parametrize("make", [Client, aio.Client])
@pytest.mark.parametrize(
    "arguments",
    [
        {"address": None},
        {"address": b"ipc://a.sock"},
        {"address": Path("a.sock")},
        {"address": ""},
        {"address": "ipc://"},
        {"address": "ipc://a\0b.sock"},
        {"address": "ipc://\udc80.sock"},
        {"address": "tcp://nowhere"},
        {"address": "ipc:///tmp/a.sock", "timeout": 0},
        {"address": "ipc:///tmp/a.sock", "timeout": None},
        {"address": "tcp://127.0.0.1:1", "curve": "key"},
        {"address": "tcp://127.0.0.1:1", "curve": CurveKeys("a" * 40, None, "c")},  # type: ignore[arg-type]
        {"address": "tcp://127.0.0.1:1", "curve": CurveKeys("é" * 40, "b" * 40, "c" * 40)},
    ],
)
def test_clients_of_nothing_are_refused(make, arguments):
    """An address, a key or a timeout that is none is refused where the client is made, and a key is not shown."""
    with pytest.raises(Usage) as caught:
        make(**arguments)
    assert "\n" not in str(caught.value)
    assert "é" not in str(caught.value)


@pytest.mark.parametrize("make", [Client.for_tenant, aio.Client.for_tenant])
@pytest.mark.parametrize(
    "arguments",
    [
        (None,),
        ("",),
        ("../a",),
        ("A",),
        ("a/b",),
        ("a" * 64,),
        ("a\n",),
        ("a", ""),
        ("a", b"/tmp"),
        ("a", 3),
        ("a", "/" + "x" * 200),
    ],
)
def test_tenants_that_cannot_be_are_refused(make, arguments):
    """A name that no tenant can have and a directory that is none are told where the client is made."""
    with pytest.raises(Usage):
        make(*arguments)


def test_a_runtime_directory_may_be_a_path(tmp_path, address, router):
    """As it comes from pathlib."""
    router.serve(router.answer)
    with Client.for_tenant("a", tmp_path, timeout=WAIT_S) as client:
        assert client.infer("m", X).model == "m"


def test_a_closed_client_says_so():
    """Whatever it is asked, also by the asyncio client and outside of an event loop."""
    client = Client("ipc:///tmp/none.sock")
    client.close()
    for call in (lambda: client.infer("m", X), client.health, client.describe, lambda: client.empty(3)):
        with pytest.raises(Usage, match="closed"):
            call()
    with pytest.raises(Usage, match="closed"):
        list(client.infer_many("m", [X]))
    other = aio.Client("ipc:///tmp/none.sock")
    with pytest.raises(Usage, match="event loop"):
        other.submit("m", X)
    asyncio.run(other.close())


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda answer: pickle.loads(pickle.dumps(answer))])
def test_an_answer_can_be_copied_and_sent_to_other_processes(router, client, again):
    """The copy says the same, holds its tensors itself, in shared memory or not, and is as read-only as the first."""
    router.take_arenas()
    router.serve(router.answer)
    large = np.arange(2**18, dtype=np.int32)
    inputs = {"large": large, "small": NUMBERS, "bf16": BFloat16.from_float32([1.0, 2.0]), "scalar": np.array(3)}
    answers = [client.infer("m", inputs, version="2") for _ in range(3)]
    for answer in answers:
        copied: Answer = again(answer)
        assert (copied.model, copied.version, copied.generation) == ("m", "2", 7)
        assert copied.timing == answer.timing
        assert repr(copied) == repr(answer)
        np.testing.assert_array_equal(copied["large"], large)
        np.testing.assert_array_equal(copied["bf16"].bits, inputs["bf16"].bits)
        np.testing.assert_array_equal(copied["scalar"], 3)
        assert not copied["small"].flags.writeable
        assert not np.shares_memory(copied["large"], answer["large"])


def test_errors_can_be_sent_to_other_processes():
    """With their advice."""
    error = pickle.loads(pickle.dumps(Overloaded("full", retry_after_s=0.5)))
    assert (str(error), error.retry_after_s, type(error)) == ("overloaded: full", 0.5, Overloaded)


@pytest.mark.parametrize(
    "script",
    [
        "import trtd.aio; trtd.aio.Client",
        "import trtd; trtd.aio.Client; trtd.errors.Overloaded",
        "from trtd import aio, errors; aio.Client; errors.Overloaded",
        "from trtd.aio import Client",
        "import trtd; trtd.client.Handle",
    ],
)
def test_every_way_to_import_what_applications_use(script):
    """Works in a process that has imported nothing else."""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])
