"""Fits converters in PyTorch, judges them, and exports them to ONNX. Never imports `service` or grpc."""
