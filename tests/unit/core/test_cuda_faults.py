"""What CUDA's codes and TensorRT's texts mean; the texts were recorded from an H200 with TensorRT 10.6 and others."""

from __future__ import annotations

import pytest

from trtd.core.cuda_faults import (
    AWAITED,
    CODES,
    STRINGS,
    CudaClass,
    TextKind,
    lookup,
    opening_fault,
    read_text,
    sticky_fault,
    worst,
)
from trtd.core.faults import FaultDomain, FaultKind
from trtd.errors import Blame

AWAITED_CODES = {3, 802, 807, 808, 809}
STICKY = {46, 214, 220, 226, 700, 702, 709, 710, *range(714, 720), 721, 805, 806, 810, 911, 999} | AWAITED_CODES


def test_the_sticky_codes_are_these():
    """Exactly the codes after which a process can do no more work end it."""
    assert {code for code, known in CODES.items() if known.is_sticky} == STICKY
    assert all(known.code == code and known.name for code, known in CODES.items())


def test_what_is_awaited_has_words():
    """Exactly the codes that may pass by themselves say what a process waits for that got one of them."""
    assert {code for code, known in CODES.items() if known.kind is CudaClass.AWAITED} == AWAITED_CODES == set(AWAITED)
    assert all(opening_fault(code, "opening").kind is FaultKind.DEVICE_AWAITED for code in AWAITED)
    assert opening_fault(46, "opening").kind is FaultKind.STICKY_ERROR


def test_an_unknown_code_ends_the_process():
    """A code that is newer than the table is taken for sticky."""
    assert lookup(4711).is_sticky
    assert lookup(4711).name == "code 4711"


@pytest.mark.parametrize(
    ("code", "blame", "domain"),
    [
        (700, Blame.TENANT, FaultDomain.PROCESS),
        (810, Blame.DEVICE, FaultDomain.SHARING),
        (214, Blame.DEVICE, FaultDomain.DEVICE),
        (4711, Blame.TENANT, FaultDomain.PROCESS),
    ],
)
def test_who_pays(code, blame, domain):
    """The tenant pays for its own work, nobody for a neighbour's or the device's."""
    fault = sticky_fault(code, "run of model 'm'")
    assert (fault.kind, fault.blame, fault.domain, fault.code) == (FaultKind.STICKY_ERROR, blame, domain, code)
    assert fault.ends_process
    assert not fault.permanent
    assert str(code) in fault.message


def test_out_of_memory_and_absence_are_not_sticky():
    """Code 2 lets the worker live; without a driver there is nothing to live for, but no context is lost either."""
    assert lookup(2).kind is CudaClass.MEMORY
    assert lookup(35).kind is CudaClass.ABSENT
    assert lookup(1).kind is CudaClass.SOUND


ILLEGAL = "IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime (an illegal memory access was encountered)"
NO_MEMORY = "IRuntime::deserializeCudaEngine: Error Code 2: OutOfMemory (Requested size was 3152128 bytes.)"
NO_OUTPUT = (
    "IExecutionContext::enqueueV3: Error Code 5: API Usage Error (IOutputAllocator returned nullptr for allocation "
    "request of 512 bytes.)"
)
WRONG_SHAPE = (
    "IExecutionContext::setInputShape: Error Code 3: API Usage Error (Parameter check failed, condition: "
    "engineDims.d[i] == dims.d[i]. Static dimension mismatch while setting input shape.)"
)
NEWER = (
    "IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime (In x at y:1, cudaError 35: CUDA driver version is "
    "insufficient for CUDA runtime version)"
)
LEAN_INSIDE = (
    "Error Code 4: API Usage Error (Cannot deserialize engine with lean runtime since "
    "IRuntime::getEngineHostCodeAllowed() is false.)"
)
OTHER_GPU = (
    "The engine plan file is generated on an incompatible device, expecting compute 9.0 got compute 8.0, "
    "please rebuild."
)
RECORDED = [
    (ILLEGAL, TextKind.CUDA, 700),
    (
        "[checkMacros.cpp::catchCudaError::229] Error Code 1: Cuda Runtime (unspecified launch failure)",
        TextKind.CUDA,
        719,
    ),
    ("[defaultAllocator.cpp::allocateAsync::48] Error Code 1: Cuda Runtime (out of memory)", TextKind.MEMORY, 2),
    (NEWER, TextKind.CUDA, 35),
    ("Error Code 1: Cuda Runtime (a string of the future)", TextKind.CUDA, 999),
    ("Error Code 1: Myelin ([myelin_graph.h:1134] Platform (Cuda) error)", TextKind.CUDA, 0),
    (NO_MEMORY, TextKind.MEMORY, 2),
    (WRONG_SHAPE, TextKind.USAGE, 0),
    (NO_OUTPUT, TextKind.MEMORY, 2),
    ("Error Code 1: Serialization (Serialization assertion header.size == blobSize failed.)", TextKind.DAMAGED, 0),
    ("Error Code 1: Serialization (assertion header.magicTag == kEXPECTED_MAGIC_TAG failed.)", TextKind.DAMAGED, 0),
    ("Error Code 1: Serialization (assertion header.pad == expectedPlatformTag failed.)", TextKind.PLATFORM, 0),
    (LEAN_INSIDE, TextKind.HOST_CODE, 0),
    ("Unexpected call to stub deserializeEngine", TextKind.NO_LEAN, 0),
    (OTHER_GPU, TextKind.DEVICE, 0),
    ("something nobody has seen", TextKind.OTHER, 0),
]


@pytest.mark.parametrize(("text", "kind", "code"), RECORDED)
def test_texts_are_understood(text, kind, code):
    """Each recorded text has its meaning, whatever number and enum TensorRT gave it."""
    verdict = read_text(text)
    assert (verdict.kind, verdict.code) == (kind, code)


def test_versions_are_told():
    """A refusal for the version names what the plan has and what is read here."""
    text = (
        "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion stdVersionRead == "
        "kSERIALIZATION_VERSION failed.Version tag does not match. Note: Current Version: 240, "
        "Serialized Engine Version: 239)"
    )
    assert read_text(text).advice == (
        "it was built by another version of TensorRT (it has serialization version 239, this runtime reads 240)"
    )
    text = "not compatible with this version, expecting library version 10.6.0.26 got 10.5.0.18, please rebuild."
    assert read_text(text).advice.endswith("(it was built by 10.5.0.18, this is 10.6.0.26)")


def test_of_several_texts_the_gravest_decides():
    """A sticky code goes before memory, memory before usage, and anything known before the unknown."""
    assert worst([WRONG_SHAPE, NO_MEMORY, ILLEGAL]).code == 700
    assert worst([WRONG_SHAPE, NO_MEMORY]).kind is TextKind.MEMORY
    assert worst(["nobody knows", WRONG_SHAPE]).kind is TextKind.USAGE
    assert worst([]).kind is TextKind.OTHER


def test_every_known_string_has_a_known_code():
    """No string leads to a code without a meaning."""
    assert set(STRINGS.values()) <= set(CODES)
