"""Calls a server with kserve's InferenceGRPCClient, raw and typed. Run in its own environment."""

import asyncio
import sys

import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest
from kserve.protocol.infer_type import RequestedOutput
from oracle import READINGS_FAHRENHEIT, check, check_celsius, inside


def _request(*, raw: bool, model: str = "linear", outputs: list[str] | None = None) -> InferRequest:
    rows = np.array(READINGS_FAHRENHEIT, dtype=np.float32).reshape(-1, 1)
    given = InferInput("fahrenheit", list(rows.shape), "FP32")
    given.set_data_from_numpy(rows, binary_data=raw)
    wanted = [RequestedOutput(name) for name in outputs or ()]
    return InferRequest(model, [given], request_id="17", request_outputs=wanted)


async def _texts(client: InferenceGRPCClient, *, raw: bool) -> None:
    texts = np.array([["°C", ""], ["x", "y" * 300]], dtype=np.object_)
    given = InferInput("x", list(texts.shape), "BYTES")
    given.set_data_from_numpy(np.char.encode(texts.astype(str), "utf-8").astype(np.object_), binary_data=raw)
    answer = await client.infer(InferRequest("identity_bytes", [given]))
    back = [text.decode() if isinstance(text, bytes) else text for text in answer.outputs[0].as_numpy().ravel()]
    check(back, texts.ravel().tolist(), f"BYTES, raw={raw}")


async def _integers(client: InferenceGRPCClient, *, raw: bool) -> None:
    for name in ("UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "BOOL", "FP64"):
        array = np.array([[1, 0], [0, 1]], dtype={"BOOL": "bool", "FP64": "float64"}.get(name, name.lower()))
        given = InferInput("x", list(array.shape), name)
        given.set_data_from_numpy(array, binary_data=raw)
        answer = await client.infer(InferRequest(f"identity_{name.lower()}", [given]))
        check(answer.outputs[0].as_numpy().tolist(), array.tolist(), f"{name}, raw={raw}")


async def check_all(address: str) -> None:
    """Check everything; raises where something is not as it should be."""
    async with InferenceGRPCClient(address) as client:
        check(await client.is_server_live(), True, "live")
        check(await client.is_server_ready(), True, "ready")
        check(await client.is_model_ready("linear"), True, "linear is ready")
        check(await client.is_model_ready("absent"), False, "absent is ready")
        for raw in (True, False):
            answer = await client.infer(_request(raw=raw))
            check((answer.model_name, answer.model_version, answer.id), ("linear", "1", "17"), "head of the answer")
            check_celsius(answer.outputs[0].as_numpy().ravel().tolist(), READINGS_FAHRENHEIT, f"infer, raw={raw}")
            chosen = await client.infer(_request(raw=raw, outputs=["extrapolated", "celsius"]))
            check([output.name for output in chosen.outputs], ["extrapolated", "celsius"], "outputs by name")
            flags = chosen.outputs[0].as_numpy().ravel().tolist()
            check(flags, [not inside(reading) for reading in READINGS_FAHRENHEIT], "flags")
            await _texts(client, raw=raw)
            await _integers(client, raw=raw)
        try:
            await client.infer(_request(raw=True, model="absent"))
        except grpc.RpcError as error:
            check(error.code(), grpc.StatusCode.NOT_FOUND, "status")
        else:
            raise AssertionError("a model that is not there answered")


if __name__ == "__main__":
    asyncio.run(check_all(sys.argv[1]))
    print("kserve: all as it should be")  # noqa: T201 - this is a program
