"""Serves ONNX models over gRPC. Never imports `training` or torch."""
