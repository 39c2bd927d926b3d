"""The service level: models behind an HTTP API that existing clients speak.

- `openai/`: OpenAI's API over any `Backend`. `service.py`: the application around it, with what else is served.
- `detecting.py`, `labelling.py`: whose text is it, and which label."""
