"""How families of models compute hidden states: the fast paths, the plain path, ONNX Runtime."""
