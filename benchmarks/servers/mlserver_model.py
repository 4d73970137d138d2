"""The model as a runtime of MLServer, which is told of it by a model-settings.json."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from onnx_model import OnnxModel


class Converter(MLModel):
    """Answers the one tensor of a request."""

    async def load(self) -> bool:
        """Load the file that the settings name."""
        self._onnx = OnnxModel(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request, or what MLServer joined."""
        celsius = self._onnx(NumpyCodec.decode_input(payload.inputs[0]))
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=[NumpyCodec.encode_output("celsius", celsius)],
        )
