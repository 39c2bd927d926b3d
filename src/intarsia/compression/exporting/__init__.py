"""The same model in the format of an engine that runs it quickly: ONNX Runtime (GenAI, or encoders alone), llama.cpp."""
