"""The service level: models behind an HTTP API that existing clients speak.

- `completions.py`: OpenAI's `/v1/completions` over anything that makes tokens from a prompt."""
