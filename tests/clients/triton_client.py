"""Calls every method that tritonclient has for what we serve: sync, asyncio and stream. Run in its own environment."""

import asyncio
import json
import math
import queue
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_asyncio
from oracle import DOMAIN_FAHRENHEIT, HALF_WIDTH_CELSIUS, READINGS_FAHRENHEIT, celsius, check, check_celsius, inside

TIMEOUT_SECONDS = 30
MANY = 50


def _rows(readings: tuple[float, ...] = READINGS_FAHRENHEIT) -> list[Any]:
    rows = np.array(readings, dtype=np.float32).reshape(-1, 1)
    given = triton.InferInput("fahrenheit", list(rows.shape), "FP32")
    given.set_data_from_numpy(rows)
    return [given]


def _tensor(name: str, datatype: str, array: Any) -> Any:  # noqa: ANN401 - tritonclient publishes no types
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def _failure(call: Any) -> triton.InferenceServerException | None:  # noqa: ANN401 - as above
    try:
        call()
    except triton.InferenceServerException as error:
        return error
    return None


def server(client: Any) -> None:  # noqa: ANN401 - as above
    """Liveness, readiness, metadata, configuration, index."""
    check((client.is_server_live(), client.is_server_ready()), (True, True), "live and ready")
    check(client.is_model_ready("linear"), True, "linear is ready")
    check(client.is_model_ready("linear", "2"), True, "linear/2 is ready")
    check(client.is_model_ready("absent"), False, "absent is ready")
    told = client.get_server_metadata()
    check(told.name, "quicksilver", "name of the server")
    check({"model_configuration", "statistics", "logging"} <= set(told.extensions), True, "extensions")
    metadata = client.get_model_metadata("linear", as_json=True)
    check(metadata["inputs"], [{"name": "fahrenheit", "datatype": "FP32", "shape": ["-1", "1"]}], "inputs")
    names = [output["name"] for output in metadata["outputs"]]
    check(names, ["celsius", "celsius_lower", "celsius_upper", "extrapolated"], "outputs")
    config = client.get_model_config("linear").config
    check((config.platform, config.input[0].data_type), ("onnxruntime_onnx", 11), "configuration")
    index = client.get_model_repository_index().models
    states = {(entry.name, entry.version): entry.state for entry in index}
    check((states["linear", "1"], states["linear", "2"]), ("READY", "READY"), "index")


def infer(client: Any) -> None:  # noqa: ANN401 - as above
    """Values, ids, versions, outputs by name, every datatype it has, compression."""
    answer = client.infer("linear", _rows(), request_id="17", client_timeout=TIMEOUT_SECONDS)
    check_celsius(answer.as_numpy("celsius").ravel().tolist(), READINGS_FAHRENHEIT, "infer")
    check((answer.get_response().id, answer.get_response().model_version), ("17", "1"), "id and version")
    second = client.infer("linear", _rows(), model_version="2")
    check_celsius(second.as_numpy("celsius").ravel().tolist(), READINGS_FAHRENHEIT, "infer of version 2", offset=5.0)
    zipped = client.infer("linear", _rows(), compression_algorithm="gzip")
    check_celsius(zipped.as_numpy("celsius").ravel().tolist(), READINGS_FAHRENHEIT, "compressed infer")
    _outputs_by_name(client)
    _datatypes(client)


def _outputs_by_name(client: Any) -> None:  # noqa: ANN401 - as above
    wanted = [triton.InferRequestedOutput(name) for name in ("extrapolated", "celsius_lower", "celsius_upper")]
    answer = client.infer("linear", _rows(), outputs=wanted)
    check(answer.as_numpy("celsius"), None, "an output that was not asked for")
    flags = answer.as_numpy("extrapolated").ravel().tolist()
    check(flags, [not inside(reading) for reading in READINGS_FAHRENHEIT], "flags")
    for reading, lower, upper in zip(
        READINGS_FAHRENHEIT,
        answer.as_numpy("celsius_lower").ravel().tolist(),
        answer.as_numpy("celsius_upper").ravel().tolist(),
        strict=True,
    ):
        if inside(reading):
            check(abs(upper - celsius(reading) - HALF_WIDTH_CELSIUS) < 1e-4, True, "upper bound")
            check(abs(lower - celsius(reading) + HALF_WIDTH_CELSIUS) < 1e-4, True, "lower bound")
        else:
            check(math.isnan(lower) and math.isnan(upper), True, f"bounds of {reading} outside {DOMAIN_FAHRENHEIT}")


def _datatypes(client: Any) -> None:  # noqa: ANN401 - as above
    texts = np.array([["°C", ""], ["a\0b", "x" * 300]], dtype=np.object_)
    answer = client.infer("identity_bytes", [_tensor("x", "BYTES", texts)])
    check([text.decode() for text in answer.as_numpy("y").ravel()], texts.ravel().tolist(), "BYTES")
    for name in ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"):
        limits = np.iinfo(name)
        array = np.array([[limits.min, limits.max], [0, 1]], dtype=name)
        answer = client.infer(f"identity_{name}", [_tensor("x", name.upper(), array)])
        check(answer.as_numpy("y").tolist(), array.tolist(), name)
    for name, kind in (("fp16", "float16"), ("fp32", "float32"), ("fp64", "float64"), ("bf16", ml_dtypes.bfloat16)):
        array = np.array([[1.5, -2.0], [0.25, 256.0]], dtype=kind)
        answer = client.infer(f"identity_{name}", [_tensor("x", name.upper(), array)])
        check(answer.as_numpy("y").astype(np.float64).tolist(), array.astype(np.float64).tolist(), name)
    a, flag = np.ones((2, 3), dtype=np.float32), np.array([True, False])
    given = [_tensor("flag", "BOOL", flag), _tensor("b", "FP32", a * 2), _tensor("a", "FP32", a)]
    answer = client.infer("two_by_two", given)
    check(answer.as_numpy("total").tolist(), (a * 3).tolist(), "several inputs")
    check(answer.as_numpy("flipped").tolist(), [False, True], "several outputs")


def errors(client: Any) -> None:  # noqa: ANN401 - as above
    """Real status codes."""
    for expected, call in (
        ("StatusCode.NOT_FOUND", lambda: client.infer("absent", _rows())),
        ("StatusCode.NOT_FOUND", lambda: client.infer("linear", _rows(), model_version="9")),
        ("StatusCode.INVALID_ARGUMENT", lambda: client.infer("linear", _rows((-500.0,)))),
        ("StatusCode.INVALID_ARGUMENT", lambda: client.infer("plain", [_tensor("x", "BOOL", np.array([True]))])),
        ("StatusCode.NOT_FOUND", lambda: client.get_model_metadata("absent")),
        ("StatusCode.UNIMPLEMENTED", client.get_system_shared_memory_status),
    ):
        error = _failure(call)
        check(error.status() if error else None, expected, "status")


def callbacks(client: Any) -> None:  # noqa: ANN401 - as above
    """async_infer, many at once."""
    answers: queue.Queue[Any] = queue.Queue()
    for index in range(MANY):
        client.async_infer(
            "linear", _rows((float(index),)), lambda result, error: answers.put((result, error)), request_id=str(index)
        )
    for _ in range(MANY):
        result, error = answers.get(timeout=TIMEOUT_SECONDS)
        check(error, None, "error of async_infer")
        check_celsius(result.as_numpy("celsius").ravel().tolist(), (float(result.get_response().id),), "async_infer")


def stream(client: Any) -> None:  # noqa: ANN401 - as above
    """A stream of requests, with an error in the place of an answer, and with errors that end it."""
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for index in range(MANY):
        client.async_stream_infer("linear", _rows((float(index),)), request_id=str(index))
    client.async_stream_infer("absent", _rows(), request_id="bad")
    client.async_stream_infer("linear", _rows((32.0,)), request_id="last", enable_empty_final_response=True)
    for index in range(MANY):
        result, error = answers.get(timeout=TIMEOUT_SECONDS)
        check((error, result.get_response().id), (None, str(index)), "order of the stream")
        check_celsius(result.as_numpy("celsius").ravel().tolist(), (float(index),), "stream")
    result, error = answers.get(timeout=TIMEOUT_SECONDS)
    check("no model 'absent'" in str(error), True, "error in the stream")
    result, error = answers.get(timeout=TIMEOUT_SECONDS)
    check(result.get_response().parameters["triton_final_response"].bool_param, True, "last answer")
    client.stop_stream()
    client.start_stream(lambda result, error: answers.put((result, error)), headers={"triton_grpc_error": "true"})
    client.async_stream_infer("absent", _rows())
    result, error = answers.get(timeout=TIMEOUT_SECONDS)
    check((result, error.status()), (None, "StatusCode.NOT_FOUND"), "error that ends the stream")
    client.stop_stream()


def statistics(client: Any) -> None:  # noqa: ANN401 - as above
    """Counts that grow by what was asked."""
    before = client.get_inference_statistics("linear", "2").model_stats[0]
    client.infer("linear", _rows(), model_version="2")
    after = client.get_inference_statistics("linear", "2").model_stats[0]
    check(after.inference_count - before.inference_count, len(READINGS_FAHRENHEIT), "rows counted")
    check(after.inference_stats.success.count - before.inference_stats.success.count, 1, "calls counted")
    check(after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns, True, "nanoseconds")


def log_settings(client: Any) -> None:  # noqa: ANN401 - as above
    """Told, changed, and put back."""
    told = client.get_log_settings(as_json=True)["settings"]
    check(told["log_info"], {"bool_param": True}, "log_info")
    changed = client.update_log_settings({"log_verbose_level": 1, "log_info": False}, as_json=True)["settings"]
    check((changed["log_verbose_level"], changed["log_info"]), ({"uint32_param": 1}, {"bool_param": False}), "changed")
    client.update_log_settings({"log_verbose_level": 0, "log_info": True})


def lifecycle(client: Any, model_file: Path) -> None:  # noqa: ANN401 - as above
    """Load from bytes, use, unload, load again."""
    config = json.dumps({"backend": "onnxruntime"})
    client.load_model("uploaded", config=config, files={"file:1/model.onnx": model_file.read_bytes()})
    check(client.is_model_ready("uploaded"), True, "uploaded is ready")
    answer = client.infer("uploaded", _rows())
    check_celsius(answer.as_numpy("celsius").ravel().tolist(), READINGS_FAHRENHEIT, "uploaded")
    client.unload_model("uploaded")
    check(client.is_model_ready("uploaded"), False, "unloaded is ready")
    client.load_model("uploaded")
    check(client.is_model_ready("uploaded"), True, "loaded again")
    error = _failure(lambda: client.load_model("broken", config=config, files={"file:1/model.onnx": b"broken"}))
    check(error.status() if error else None, "StatusCode.INVALID_ARGUMENT", "a broken upload")


async def in_asyncio(address: str) -> None:
    """The asyncio client: many calls at once, and a stream."""
    async with triton_asyncio.InferenceServerClient(address) as client:
        check(await client.is_server_ready(), True, "asyncio: ready")
        calls = (client.infer("linear", _rows((float(index),))) for index in range(MANY))
        for index, answer in enumerate(await asyncio.gather(*calls)):
            check_celsius(answer.as_numpy("celsius").ravel().tolist(), (float(index),), "asyncio infer")

        async def requests() -> Any:  # noqa: ANN401 - as above
            for index in range(MANY):
                yield {"model_name": "linear", "inputs": _rows((float(index),)), "request_id": str(index)}

        seen = 0
        async for result, error in client.stream_infer(requests()):
            check((error, result.get_response().id), (None, str(seen)), "asyncio stream")
            check_celsius(result.as_numpy("celsius").ravel().tolist(), (float(seen),), "asyncio stream")
            seen += 1
        check(seen, MANY, "answers of the asyncio stream")


def main(address: str, model_file: Path) -> None:
    """Check everything; raises where something is not as it should be."""
    with triton.InferenceServerClient(address) as client:
        for step in (server, infer, errors, callbacks, stream, statistics, log_settings):
            step(client)
        lifecycle(client, model_file)
    asyncio.run(in_asyncio(address))
    print("tritonclient: all as it should be")  # noqa: T201 - this is a program


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
