"""The methods of `inference.GRPCInferenceService`, for any front."""

from service.calls import BatchedMethod, Method
from service.open_inference import SERVICE
from service.open_inference.infer import InferCodec


def methods() -> list[Method]:
    """Return the service's methods."""
    return [BatchedMethod(f"/{SERVICE}/ModelInfer", InferCodec())]
