"""The same model as one GGUF file, for llama.cpp and its family: our codes where a type of the format holds them."""

from intarsia.compression.exporting.gguf.writing import export, export_gguf

__all__ = ["export", "export_gguf"]
