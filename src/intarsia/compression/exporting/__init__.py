"""The same model in the format of an engine that runs it quickly: ONNX Runtime, its GenAI, or llama.cpp."""
