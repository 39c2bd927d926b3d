"""The server beside `transformers serve`."""
