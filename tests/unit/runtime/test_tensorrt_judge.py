"""Failures as the H200 gave them, judged: text and code, and the probe that has the last word. No CUDA is needed."""

from __future__ import annotations

import pytest

from trtd.core.faults import ProcessFault
from trtd.errors import InvalidConfig, ModelFailed, OutOfMemory

ILLEGAL = "IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime (an illegal memory access was encountered)"
NO_MEMORY = "IRuntime::deserializeCudaEngine: Error Code 2: OutOfMemory (Requested size was 3152128 bytes.)"
TRUNCATED = (
    "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion header.size == blobSize "
    "failed.)"
)
OTHER_VERSION = (
    "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion stdVersionRead == "
    "kSERIALIZATION_VERSION failed.Version tag does not match. Note: Current Version: 245, Serialized Engine Version: "
    "239)"
)
WRONG_SHAPE = (
    "IExecutionContext::setInputShape: Error Code 3: API Usage Error (Parameter check failed, condition: "
    "engineDims.d[i] == dims.d[i].)"
)


@pytest.fixture
def judging(import_with_cuda, monkeypatch):
    """The judge, on a device whose probe gives what the test says."""
    judge = import_with_cuda("trtd.runtime.tensorrt.judge")
    probed = {"code": 0}
    monkeypatch.setattr(judge.cuda, "probe", lambda _stream=None: probed["code"])
    monkeypatch.setattr(judge.cuda, "forget_last_error", lambda: None)
    return judge, probed


@pytest.mark.parametrize(
    ("texts", "kind", "words"),
    [
        ([NO_MEMORY], OutOfMemory, "Requested size was 3152128 bytes"),
        ([TRUNCATED], InvalidConfig, "it is truncated, or has bytes behind its end"),
        ([OTHER_VERSION], InvalidConfig, "it has serialization version 239, this runtime reads 245"),
    ],
)
def test_a_load_that_failed_says_what_to_do(judging, texts, kind, words):
    """Want of memory is retryable, anything else is the plan's fault, with our words before TensorRT's."""
    judge, _ = judging
    error = judge.judge_load(judge.CallRefused("deserialize_cuda_engine"), texts, "model 'm'")
    assert type(error) is kind
    assert error.message.startswith("model 'm': ")
    assert words in error.message


def test_a_run_that_failed_is_the_models(judging):
    """A refused shape leaves the process sound; without any text the refused call itself is named."""
    judge, _ = judging
    refused = judge.CallRefused("set_input_shape")
    assert type(judge.judge(refused, [WRONG_SHAPE], "m")) is ModelFailed
    assert judge.judge(refused, [], "m").message == "m: set_input_shape was refused"


@pytest.mark.parametrize(
    ("texts", "code", "probed", "expected"),
    [([ILLEGAL], None, 700, 700), ([ILLEGAL], None, 0, 700), ([], 719, 0, 719), ([WRONG_SHAPE], None, 700, 700)],
)
def test_a_lost_process_is_found_by_text_by_code_or_by_the_probe(judging, texts, code, probed, expected):
    """One of them is enough: no answer is given by a process that may be lost."""
    judge, device = judging
    device["code"] = probed
    error = judge.CallRefused("execute_async_v3") if code is None else judge.cuda.CudaError(code, "cudaEventQuery")
    with pytest.raises(ProcessFault) as caught:
        judge.judge(error, texts, "m: running a batch")
    assert caught.value.fault.code == expected
    assert caught.value.fault.sticky


def test_memory_that_the_device_refused_is_survived(judging):
    """Code 2 is want of memory, whatever call it came from."""
    judge, _ = judging
    assert type(judge.judge(judge.cuda.CudaError(2, "cudaMallocFromPoolAsync"), [], "m")) is OutOfMemory
