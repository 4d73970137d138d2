"""Fits converters in PyTorch, judges them, and exports them to ONNX. Never imports `service`.

It imports grpc only to publish to a server.
"""
