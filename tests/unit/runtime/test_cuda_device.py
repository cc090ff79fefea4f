"""Opening a device: what is missing for good, what is only awaited, and what others have used up. No CUDA is needed."""

from __future__ import annotations

import pytest

from trtd.core.faults import FaultDomain, FaultKind, ProcessFault
from trtd.errors import Blame, InvalidConfig, OutOfMemory


@pytest.fixture
def opening(import_with_cuda, cudart, monkeypatch):
    """Opens a device of which one call, by its name, gives a code."""
    cuda = import_with_cuda("trtd.runtime.cuda")
    monkeypatch.setenv("CUDA_MODULE_LOADING", "")

    def opening(name: str, code: int) -> None:
        driver = type(cudart)()
        cudart.cudaGetDeviceCount = succeed = lambda: (0, 1)
        succeed.__name__ = "cudaGetDeviceCount"

        def fail(*_: object) -> tuple[int, None]:
            return code, None

        fail.__name__ = name
        setattr(cudart if name.startswith("cuda") else driver, name, fail)
        monkeypatch.setattr(cuda, "driver", driver)
        monkeypatch.setattr(cuda, "cudart", cudart)
        cuda.open_device(0, is_spinning=False, is_lazy=True)

    return opening


@pytest.mark.parametrize(
    ("call", "code", "domain", "awaited"),
    [
        ("cuInit", 802, FaultDomain.DEVICE, "fabric manager"),
        ("cudaInitDevice", 802, FaultDomain.DEVICE, "fabric manager"),
        ("cuInit", 3, FaultDomain.DEVICE, "driver"),
        ("cudaInitDevice", 807, FaultDomain.SHARING, "MPS server"),
        ("cudaFree", 808, FaultDomain.SHARING, "MPS server"),
        ("cudaFree", 809, FaultDomain.SHARING, "MPS server"),
    ],
)
def test_what_comes_by_itself_is_awaited(opening, call, code, domain, awaited):
    """A device that is not up yet is no fault of the configuration: it passes, and the fault says what is awaited."""
    with pytest.raises(ProcessFault) as caught:
        opening(call, code)
    fault = caught.value.fault
    assert (fault.kind, fault.permanent, fault.code) == (FaultKind.DEVICE_AWAITED, False, code)
    assert (fault.blame, fault.domain, fault.is_charged) == (Blame.DEVICE, domain, False)
    assert awaited in fault.message
    assert "waits for" in fault.message


@pytest.mark.parametrize("code", [34, 35, 36, 100, 101, 803, 804])
def test_what_is_missing_for_good_is_bad_configuration(opening, code):
    """No driver, too old a one, or no device: somebody has to change that."""
    with pytest.raises(InvalidConfig, match=str(code)):
        opening("cuInit", code)


def test_a_device_that_others_have_filled_is_want_of_memory(opening):
    """No room for a context says nothing about the configuration, and no context is lost with it."""
    with pytest.raises(OutOfMemory, match="no room for a context"):
        opening("cudaInitDevice", 2)


@pytest.mark.parametrize(("code", "blame"), [(46, Blame.DEVICE), (999, Blame.TENANT)])
def test_anything_else_ends_the_process(opening, code, blame):
    """A device that cannot be had for another reason is a fault with the table's blame."""
    with pytest.raises(ProcessFault) as caught:
        opening("cudaInitDevice", code)
    assert (caught.value.fault.kind, caught.value.fault.blame) == (FaultKind.STICKY_ERROR, blame)
