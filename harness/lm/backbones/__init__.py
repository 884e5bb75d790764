"""How families of models compute hidden states: fast paths, the plain path and ONNX Runtime."""
