"""The probe and captures: neither waits for the whole device, which would end the captures of other threads."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

GIVEN = {"cudaGetDevice": 0, "cudaMalloc": 0x1000, "cudaStreamCreateWithPriority": 7}
THREAD_LOCAL = 1


@pytest.fixture
def device(import_with_cuda, monkeypatch):
    """The module on a CUDA runtime that notes its calls and fails where the test says: `codes` by name."""
    cuda = import_with_cuda("trtd.runtime.cuda")
    noted = SimpleNamespace(cuda=cuda, calls=[], codes={})

    class Runtime:
        def __getattr__(self, name):
            if name == "cudaStreamCaptureMode":
                return SimpleNamespace(cudaStreamCaptureModeThreadLocal=THREAD_LOCAL)
            if name == "cudaStreamNonBlocking":
                return 1

            def function(*args):
                noted.calls.append((name, *args))
                code = noted.codes.get(name, 0)
                return code, None if code else GIVEN.get(name, name)

            function.__name__ = name
            return function

    monkeypatch.setattr(cuda, "cudart", Runtime())
    monkeypatch.setattr(cuda, "_probes", {})
    cuda._probes[0] = cuda._Probe()
    noted.calls.clear()
    return noted


WHOLE_DEVICE = ("cudaDeviceSynchronize", "cudaMalloc", "cudaFree", "cudaMemset", "cudaHostAlloc", "cudaFreeHost")
"""What a capture of another thread would refuse, or be ended by."""


def test_the_probe_touches_its_own_streams_only(device):
    """The failed stream and the probe's are waited for; the device as a whole, and the legacy stream, are not."""
    stream = device.cuda.Stream()
    device.calls.clear()
    assert device.cuda.probe(stream) == 0
    names = [name for name, *_ in device.calls]
    assert names == ["cudaStreamSynchronize", "cudaGetDevice", "cudaMemsetAsync", "cudaStreamSynchronize"]
    assert not set(names) & set(WHOLE_DEVICE)


@pytest.mark.parametrize("code", [900, 901, 906, 908, 2, 1, 801])
def test_a_sound_refusal_condemns_nobody(device, code):
    """A code after which a process can go on, of which the table knows, is no proof that it cannot."""
    device.codes["cudaMemsetAsync"] = code
    assert device.cuda.probe() == 0


@pytest.mark.parametrize("code", [700, 719, 46, 999, 12345])
@pytest.mark.parametrize("call", ["cudaStreamSynchronize", "cudaMemsetAsync"])
def test_a_lost_context_is_found(device, code, call):
    """Whichever call shows it, a code that ends processes, or that nobody knows, is given."""
    device.codes[call] = code
    assert device.cuda.probe(device.cuda.Stream()) == code


def test_a_failed_capture_is_ended_and_leaves_no_graph(device):
    """What was captured until the work failed is destroyed, and the error is the work's own."""

    def work():
        raise KeyError("the work")

    with pytest.raises(KeyError):
        device.cuda.Graph(device.cuda.Stream(), work)
    names = [name for name, *_ in device.calls]
    assert names.index("cudaStreamEndCapture") < names.index("cudaGraphDestroy")
    assert "cudaGraphInstantiate" not in names


def test_captures_are_of_their_own_thread(device):
    """Only the capturing thread is bound by a capture; others may allocate meanwhile."""
    device.cuda.Graph(device.cuda.Stream(), lambda: None)
    begun = next(args for name, *args in device.calls if name == "cudaStreamBeginCapture")
    assert begun[1] == THREAD_LOCAL
